"""Counted transitions as a prior of a trained sequential model: what came after what, added to its scores."""

from typing import final

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from modalmix.config import Config
from modalmix.data.sequences import Sequences
from modalmix.nn.filters import deviation
from modalmix.nn.transitions import TransitionFilter, normalised, transitions

_USERS = 1 << 12  # at once


class TransitionConfig(Config):
    """Settings of the transitions (docs/models/transitions.md)."""

    steps: int = Field(3, ge=1)
    """Events after an item that count as coming after it."""
    decay: float = Field(0.7, ge=0, le=1)
    """Weight of each further step against the one before."""
    backward: float = Field(0.0, ge=0, le=1)
    """Weight of what came before an item, against what came after."""
    exponents: tuple[float, float] = (0.35, 0.0)
    """Powers of the events that counts are divided by: of the item met (1: shares of what followed), of the item to
    score (above 0: against popular ones)."""
    recency: float = Field(0.5, ge=0, le=1)
    """Weight of each earlier item of a history against the one after it; 0 reads the last one alone."""


def transition_filter(histories: Sequences, n_items: int, config: TransitionConfig) -> TransitionFilter:
    """The filter of these histories [n_items known items, n_items]."""
    events = histories.offsets, histories.items
    counts = transitions(*events, n_items, config.steps, config.decay, config.backward)
    degree = np.bincount(histories.items, minlength=n_items)
    return TransitionFilter(normalised(counts, degree, *config.exponents), config.recency)


@final
class TransitionPrior:
    """t(i) phi(h,i), phi the filter's scores: what a sequential scorer adds to those of all items."""

    def __init__(self, phi: TransitionFilter, trust: Float[Tensor, " items"]) -> None:
        """`trust`: t(i) of the items of a catalogue, which may have more than those the filter knows."""
        self.phi, self.trust = phi, trust

    def of(self, history: Int[Tensor, "batch longest"]) -> Float[Tensor, "batch items"]:
        """Of these histories, oldest first, below 0 where there is none; 0 for items the filter does not know."""
        scores = self.phi.of(history)
        return F.pad(scores, (0, len(self.trust) - scores.shape[1])).mul_(self.trust.to(scores))

    def scaled(self, factor: Float[Tensor, " items"] | float) -> "TransitionPrior":
        """This prior with t(i) times the factor."""
        return TransitionPrior(self.phi, self.trust * factor)

    def extended(self, n_items: int) -> "TransitionPrior":
        """This prior over so many items; those beyond its own were added later, and nothing is known of them."""
        return TransitionPrior(self.phi, F.pad(self.trust, (0, n_items - len(self.trust))))


def transition_prior(
    histories: Sequences, n_items: int, length: int, trust: float, config: TransitionConfig
) -> TransitionPrior:
    """The prior that these histories make: `trust` is what one standard deviation of phi adds to a score.

    The deviation is over the last `length` events of all histories and all items. Where it is 0 nothing is trusted.
    """
    phi = transition_filter(histories, n_items, config)
    users = np.flatnonzero(histories.lengths)
    blocks = (users[start : start + _USERS] for start in range(0, len(users), _USERS))
    scale = deviation((phi.rows(torch.from_numpy(histories.last(one, length))) for one in blocks), phi.weights)
    return TransitionPrior(phi, torch.full((n_items,), trust / scale if scale > 0 else 0.0))
