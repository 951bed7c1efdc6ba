"""Sampled ranking: a few candidates instead of all. Its numbers are of another kind, and labelled so."""

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor


def sample_candidates(
    scores: Float[Tensor, "users pool"],
    users: Int64[np.ndarray, " users"],
    rows: Int64[np.ndarray, " positives"],
    columns: Int64[np.ndarray, " positives"],
    size: int,
    seed: int,
) -> Float[Tensor, "users pool"]:
    """A copy of the scores, -inf but for the positives (rows, columns) and `size` other candidates of each user.

    Uniform without replacement; all others where there are no more than `size`. A user's sample depends on the seed,
    the user and the pool, not on the chunk.
    """
    taken = 2.0  # above every key
    keys = np.stack([np.random.default_rng((seed, user)).random(scores.shape[1]) for user in users.tolist()])
    keys[torch.isneginf(scores).cpu().numpy()] = taken
    keys[rows, columns] = taken
    place = min(size, scores.shape[1]) - 1
    chosen = (keys <= np.partition(keys, place, axis=1)[:, place, None]) & (keys < taken)
    chosen[rows, columns] = True
    return scores.masked_fill(torch.from_numpy(~chosen).to(scores.device), -torch.inf)
