"""Training examples for a whole epoch at once; samples of a catalogue, drawn for a step."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from modalmix.data.interactions import Interactions
from modalmix.errors import DataError

_MAX_ROUNDS = 100  # after so many rejections the free items of a user are listed instead
Epoch = tuple[Int64[np.ndarray, " batch"], Int64[np.ndarray, " batch"], Int64[np.ndarray, " batch"]]


def triples(
    interactions: Interactions,
    size: int,
    rng: np.random.Generator,
    pool: Bool[np.ndarray, " items"],
) -> Iterator[Epoch]:
    """One epoch of (user, positive, negative) rows in random order, in batches of `size` (the last may be smaller).

    Each positive gets one fresh negative, uniform over `pool` minus the user's own items. A user who owns the whole
    pool prefers nothing to anything: such events are left out. Raises DataError when none is left.
    """
    if len(interactions) == 0:
        raise DataError("the train split has no interactions", fix="Check the split labels and filters.")
    order = rng.permutation(len(interactions))
    user = interactions.user[order]
    owned = interactions.csr @ pool.astype(np.float32)  # how much of the pool each user has
    undecided = owned[user] >= max(1, pool.sum())
    if undecided.all():
        raise DataError("every user has met every item that may be drawn", expected="a free negative for somebody")
    order, user = order[~undecided], user[~undecided]
    negative = negatives(interactions, user, rng, pool).astype(np.int64)
    user, positive = user.astype(np.int64), interactions.item[order].astype(np.int64)
    for start in range(0, len(order), size):
        end = start + size
        yield user[start:end], positive[start:end], negative[start:end]


def negatives(
    interactions: Interactions,
    user: Int32[np.ndarray, " draws"],
    rng: np.random.Generator,
    pool: Bool[np.ndarray, " items"],
) -> Int32[np.ndarray, " draws"]:
    """One item a draw, uniform over `pool` minus the items of `user` in `interactions`, by rejection."""
    candidates = np.flatnonzero(pool).astype(np.int32)
    if len(candidates) == 0:
        raise DataError("the pool of negatives is empty", expected="at least one item")
    drawn = candidates[rng.integers(0, len(candidates), len(user), dtype=np.int32)]
    again = np.flatnonzero(interactions.contains(user, drawn))
    for _ in range(_MAX_ROUNDS):
        if len(again) == 0:
            return drawn
        drawn[again] = candidates[rng.integers(0, len(candidates), len(again), dtype=np.int32)]
        again = again[interactions.contains(user[again], drawn[again])]
    for position in again:
        drawn[position] = _one_of_the_free(interactions, int(user[position]), candidates, rng)
    return drawn


def inclusion_probabilities(weights: Float64[np.ndarray, " pool"], size: int) -> Float64[np.ndarray, " pool"]:
    """Chance of each row to be among `size` distinct ones: min(1, c w), c such that they sum to `size`.

    1 for all where the pool has no more than `size` rows. Weights are positive.
    """
    sure = np.full(len(weights), size >= len(weights))
    while not sure.all():
        chance = weights * ((size - sure.sum()) / weights[~sure].sum())
        more = ~sure & (chance > 1)
        if not more.any():
            return np.where(sure, 1.0, chance)
        sure |= more
    return np.ones(len(weights))


def systematic_sample(
    probability: Float64[np.ndarray, " pool"], rng: np.random.Generator
) -> Int64[np.ndarray, " sample"]:
    """Distinct rows, each with its own chance to be among them; as many as the chances sum to.

    The rows, in random order, lie end to end on a line, each as long as its chance: taken are those on which the marks
    u, u + 1, u + 2, ... fall, u uniform in [0, 1) (random systematic sampling, Hartley and Rao 1962). O(pool).
    """
    order = rng.permutation(len(probability))
    ends = np.cumsum(probability[order])
    marks = rng.random() + np.arange(round(ends[-1]))
    return order[np.minimum(np.searchsorted(ends, marks, side="right"), len(order) - 1)]  # rounding of the last end


def _one_of_the_free(
    interactions: Interactions, user: int, candidates: Int32[np.ndarray, " pool"], rng: np.random.Generator
) -> int:
    """A candidate the user does not own, for users who own nearly all. Raises DataError when there is none."""
    free = candidates[~interactions.contains(np.full(len(candidates), user, dtype=np.int32), candidates)]
    if len(free) == 0:
        raise DataError(
            f"user row {user} has all {len(candidates):,} items that may be drawn",
            expected="a free negative",
            fix="Leave out users who have met everything.",
        )
    return int(rng.choice(free))
