"""Cold items on the warm ones' scale: what the mixed pool of a shop needs."""

from dataclasses import dataclass
from functools import cached_property
from typing import final

import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modalmix.models.contract.dot import DotScorer
from modalmix.models.contract.histories import FollowingScorer
from modalmix.models.contract.history import HistoryScorer, SequentialScorer
from modalmix.models.contract.query import Query, Scorer
from modalmix.models.contract.retrieval import PairScorer


@dataclass(frozen=True)
class Calibration:
    """What validation says of a trained model's scores.

    Score of a cold item = scale x the model's score + offset. Warm items, and the order among cold ones, stay. `prior`:
    what a prior of counted transitions is multiplied by.
    """

    scale: float = 1.0
    offset: float = 0.0
    prior: float = 1.0


def calibrate(scorer: Scorer, warm: Bool[Tensor, " items"], calibration: Calibration) -> Scorer:
    """The scorer with its cold items calibrated; a DotScorer, a HistoryScorer and a PairScorer stay one. What of
    `calibration` says nothing about this scorer is left out.

    `warm` may be shorter than the scorer's catalogue: items below are new, hence cold. A DotScorer folds a history in
    by the items it has, so that a scale changes what a cold item in a history weighs; an offset does not.
    """
    if isinstance(scorer, SequentialScorer) and calibration.prior != 1:
        scorer = scorer.trusting(calibration.prior)
    if (calibration.scale, calibration.offset) == (1, 0):
        return scorer
    if isinstance(scorer, DotScorer):
        cold = ~torch.nn.functional.pad(warm, (0, len(scorer.items) - len(warm))).to(scorer.items.device)
        factor = torch.where(cold, calibration.scale, 1.0)
        bias = scorer.items.new_zeros(len(cold)) if scorer.item_bias is None else scorer.item_bias
        return DotScorer(
            scorer.users,
            scorer.items * factor.unsqueeze(1).to(scorer.items.dtype),
            (bias * factor + cold * calibration.offset).to(scorer.items.dtype),
            without_content=scorer.without_content,
            of_history=scorer.of_history,
        )
    if isinstance(scorer, HistoryScorer):  # before PairScorer: who asks it must still see that it reads histories
        cold = ~torch.nn.functional.pad(warm, (0, scorer.n_items - len(warm)))
        return scorer.calibrated(torch.where(cold, calibration.scale, 1.0), cold * calibration.offset)
    if isinstance(scorer, PairScorer):
        return CalibratedPairScorer(scorer, warm, calibration)
    return CalibratedScorer(scorer, warm, calibration)


@final
class CalibratedScorer:
    """Any other scorer with its cold items calibrated."""

    def __init__(self, scorer: Scorer, warm: Bool[Tensor, " items"], calibration: Calibration) -> None:
        self.scorer, self.warm, self.calibration = scorer, warm, calibration

    def following(self, met: sp.csr_matrix) -> Scorer:
        """This scorer where users have met this; itself where scores do not follow what they have met."""
        if not isinstance(self.scorer, FollowingScorer):
            return self
        return CalibratedScorer(self.scorer.following(met), self.warm, self.calibration)

    def __call__(self, query: Query) -> Float[Tensor, "batch items"]:
        """Scores of all items."""
        scores = self.scorer(query)
        warm = torch.nn.functional.pad(self.warm, (0, scores.shape[1] - len(self.warm))).to(scores.device)
        return torch.where(warm, scores, self.calibration.scale * scores + self.calibration.offset)


@final
class CalibratedPairScorer:
    """A scorer of pairs with its cold items calibrated. An offset is one more number in the vectors."""

    def __init__(self, scorer: PairScorer, warm: Bool[Tensor, " items"], calibration: Calibration) -> None:
        vectors = scorer.item_vectors
        cold = ~torch.nn.functional.pad(warm, (0, len(vectors) - len(warm))).to(vectors.device)
        self.scorer = scorer
        self.factor = torch.where(cold, calibration.scale, 1.0).to(vectors.dtype)
        self.offset = cold * vectors.new_tensor(calibration.offset)
        self.prior = None if scorer.prior is None else self._scaled_prior

    def __call__(self, query: Query) -> Float[Tensor, "batch items"]:
        """Scores of all items."""
        return self.scorer(query) * self.factor + self.offset

    def pairs(self, query: Query, candidates: Int[Tensor, "batch candidates"]) -> Float[Tensor, "batch candidates"]:
        """Scores of some items, other ones for each query."""
        return self.scorer.pairs(query, candidates) * self.factor[candidates] + self.offset[candidates]

    def vectors(self, query: Query) -> Float[Tensor, "batch wide"]:
        """The queries' side of the inner products."""
        return torch.nn.functional.pad(self.scorer.vectors(query), (0, 1), value=1.0)

    @cached_property
    def item_vectors(self) -> Float[Tensor, "items wide"]:
        """The items' side of the inner products."""
        scaled = self.scorer.item_vectors * self.factor.unsqueeze(1)
        return torch.cat([scaled, self.offset.unsqueeze(1)], dim=1)

    def _scaled_prior(self, query: Query) -> Float[Tensor, "batch items"]:
        assert self.scorer.prior is not None
        prior = self.scorer.prior(query)
        return prior * self.factor.to(prior.device)
