"""Scorers whose answer depends on what somebody has met by now, in order."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modalmix.data.sequences import Sequences
from modalmix.models.contract.query import Query
from modalmix.models.contract.transitions import TransitionPrior


class Histories(NamedTuple):
    """Items that somebody met, oldest first, padded right with -1, and, where they are read and known, the times."""

    items: Int[Tensor, "batch longest"]
    times: Int[Tensor, "batch longest"] | None = None


class HistoryScorer(ABC):
    """A Scorer that reads histories: whoever asks for users says what these have met by now, with Query(history=...).

    The evaluator asks with the events known at that time: train items at validation, train and validation items at
    test. Query(users=...) stands for the train histories.
    """

    def __init__(self, length: int, known: Sequences, n_items: int, reads_times: bool = False) -> None:
        """`length`: items of a history it reads, the last ones. `known`: the train histories. `n_items`: of the
        catalogue. `reads_times`: whether it also reads when the events happened."""
        self.length, self.known, self.n_items, self.reads_times = length, known, n_items, reads_times

    @abstractmethod
    def __call__(self, query: Query) -> Float[Tensor, "batch items"]:
        """Scores of all items. A query without any item is answered by popularity, with a warning."""

    @abstractmethod
    def calibrated(self, scale: Float[Tensor, " items"], offset: Float[Tensor, " items"]) -> "HistoryScorer":
        """This scorer with scores x scale + offset."""

    def ask(self, known: Sequences, users: Int[np.ndarray, " users"]) -> Query:
        """The query for users of whom these events are known: what of them this scorer reads."""
        times = known.last_times(users, self.length) if self.reads_times else None
        history = torch.from_numpy(known.last(users, self.length))
        return Query(history=history, times=None if times is None else torch.from_numpy(times))

    def histories(self, query: Query) -> Histories:
        """The last `length` items of each query, at least one column, and their times where it reads them."""
        if query.users is not None:
            asked = self.ask(self.known, query.users.cpu().numpy())
            found = (None if one is None else one.to(query.users.device) for one in (asked.history, asked.times))
            return Histories(*found)  # type: ignore[arg-type]
        assert query.history is not None
        return last_events(query.history, query.times if self.reads_times else None, self.length)


@final
class SequentialScorer(HistoryScorer):
    """Score = <what the encoder makes of the history, item vector>; an index over `item_vectors` can serve it.

    Where there is a prior it is added: an index then names some candidates, the prior others (`TwoStep`).
    The vectors have two more numbers: the popularity of an item, at which only queries without any item look, and its
    bias, at which all others do.
    """

    def __init__(
        self,
        length: int,
        known: Sequences,
        encode: Callable[
            [Int[Tensor, "batch longest"], Int[Tensor, "batch longest"] | None], Float[Tensor, "batch dim"]
        ],
        items: Float[Tensor, "items dim"],
        popularity: Float[Tensor, " items"],
        item_bias: Float[Tensor, " items"] | None = None,
        reads_times: bool = False,
        transitions: TransitionPrior | None = None,
    ) -> None:
        """`encode` gets histories, none of them empty, and their times: None unless read and known. `transitions`:
        what is added to the inner products."""
        super().__init__(length, known, len(items), reads_times)
        bias = torch.zeros_like(popularity) if item_bias is None else item_bias
        self.encode, self.transitions = encode, transitions
        self.prior = None if transitions is None else self._prior
        self.item_vectors = torch.cat([items.detach(), torch.stack([popularity, bias], dim=1).to(items)], dim=1)
        self._items_transposed = self.item_vectors.T.contiguous()

    @torch.no_grad()
    def vectors(self, query: Query) -> Float[Tensor, "batch wide"]:
        """The queries' side of the inner products."""
        history, times = self.histories(query)
        empty = history[:, 0] < 0
        vectors = self.item_vectors.new_zeros(len(history), self.item_vectors.shape[1])
        vectors[:, -1] = 1.0
        if bool(empty.any()):
            warnings.warn("queries without any known item are answered by popularity", stacklevel=2)
            vectors[empty, -2], vectors[empty, -1] = 1.0, 0.0
        if not bool(empty.all()):
            vectors[~empty, :-2] = self.encode(history[~empty], None if times is None else times[~empty])
        return vectors

    def __call__(self, query: Query) -> Float[Tensor, "batch items"]:
        """Scores of all items. A query without any item is answered by popularity, with a warning."""
        scores = self.vectors(query) @ self._items_transposed
        return scores if self.prior is None else scores.add_(self.prior(query).to(scores))

    def pairs(self, query: Query, candidates: Int[Tensor, "batch candidates"]) -> Float[Tensor, "batch candidates"]:
        """Scores of some items, other ones for each query."""
        scores = torch.einsum("bd,bcd->bc", self.vectors(query), self.item_vectors[candidates])
        return scores if self.prior is None else scores.add_(self.prior(query).to(scores).gather(1, candidates))

    def _prior(self, query: Query) -> Float[Tensor, "batch items"]:
        assert self.transitions is not None
        return self.transitions.of(self.histories(query).items)

    def calibrated(self, scale: Float[Tensor, " items"], offset: Float[Tensor, " items"]) -> "SequentialScorer":
        """This scorer with scores x scale + offset."""
        wide = self.item_vectors * scale.to(self.item_vectors).unsqueeze(1)
        bias = wide[:, -1] + offset.to(wide)
        popularity = self.item_vectors[:, -2]  # what calibrates scores is not of counts
        prior = None if self.transitions is None else self.transitions.scaled(scale)
        return self._with(wide[:, :-2], popularity, bias, prior)

    def trusting(self, factor: float) -> "SequentialScorer":
        """This scorer with its prior times the factor, without it where that is 0; itself if it has none."""
        if self.transitions is None:
            return self
        popularity, bias = self.item_vectors[:, -2:].T
        prior = self.transitions.scaled(factor) if factor else None
        return self._with(self.item_vectors[:, :-2], popularity, bias, prior)

    def _with(
        self,
        items: Float[Tensor, "items dim"],
        popularity: Float[Tensor, " items"],
        bias: Float[Tensor, " items"],
        transitions: TransitionPrior | None,
    ) -> "SequentialScorer":
        return SequentialScorer(
            self.length, self.known, self.encode, items, popularity, bias, self.reads_times, transitions
        )


def last_events(
    history: Int[Tensor, "batch given"], times: Int[Tensor, "batch given"] | None, length: int
) -> Histories:
    """The last `length` items of each row, oldest first, padded right with -1; items are those that are not below 0.

    Their times where there are any, padded with 0.
    """
    real = history >= 0
    counted = real.sum(dim=1, keepdim=True)
    width = max(1, min(length, int(counted.max()) if counted.numel() else 1))
    place = real.cumsum(dim=1) - 1 - (counted - length).clamp(min=0)
    kept: Bool[Tensor, "batch given"] = real & (place >= 0)
    row = torch.arange(len(history), device=history.device).unsqueeze(1).expand_as(history)
    where = row[kept], place[kept]

    def moved(x: Int[Tensor, "batch given"], padding: int) -> Int[Tensor, "batch longest"]:
        return x.new_full((len(x), width), padding).index_put_(where, x[kept])

    return Histories(moved(history, -1), None if times is None else moved(times, 0))
