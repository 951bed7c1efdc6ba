"""Late mixing: the score of a pair is the gated sum of what the experts say of it."""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

_NOTHING = 60.0  # e^-60 of the largest weight is nothing in float32
_TIE = 1e-6  # logits of a pair that differ by less than this are alike at the k-th place


def top_k_mixture(
    logits: Float[Tensor, "experts users items"], scores: Iterable[Float[Tensor, "users items"]], k: int
) -> Float[Tensor, "users items"]:
    """sum_e g_e s_e, g the softmax over the k largest logits of each pair. Exact, in a few passes over the block.

    The experts stand first, so that each one's block is contiguous: the k-th largest logit is found by running minima
    and maxima, and no pair is sorted. Experts that tie at the k-th place, to 1e-6, all count; the router lets none tie.
    """
    if k >= len(logits):
        weights = (logits - logits.amax(dim=0)).exp_()
        total, mixture = weights.sum(dim=0), torch.zeros_like(weights[0])
        for weight, score in zip(weights, scores, strict=True):
            mixture.addcmul_(weight, score)
        return mixture.div_(total)
    largest = _largest(logits, k)
    floor = torch.maximum(largest[-1], largest[0] - _NOTHING)  # what is heard; so that no exponential overflows
    total, mixture, weight = (torch.zeros_like(floor) for _ in range(3))
    for one, score in zip(logits, scores, strict=True):
        torch.sub(one, floor, out=weight).clamp_(min=-_NOTHING).exp_()  # exp is slow where it comes to 0
        torch.threshold_(weight, 1 - _TIE, 0.0)  # a pass over floats: a mask of booleans takes five times as long
        total += weight
        mixture.addcmul_(weight, score)
    return mixture.div_(total)


def _largest(logits: Float[Tensor, "experts users items"], k: int) -> list[Float[Tensor, "users items"]]:
    """The k largest logits of each pair, falling: each expert is inserted into the sorted list, all pairs at once."""
    largest = [torch.full_like(logits[0], -torch.inf) for _ in range(k)]
    spare = [torch.empty_like(logits[0]) for _ in range(2)]
    for one in logits:
        for place, kept in enumerate(largest[:-1]):
            smaller = torch.minimum(kept, one, out=spare[place % 2])
            torch.maximum(kept, one, out=kept)
            one = smaller
        torch.maximum(largest[-1], one, out=largest[-1])
    return largest
