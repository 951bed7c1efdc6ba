"""Scorers whose answer depends on what somebody has met by now, in order."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modalmix.data.sequences import Sequences
from modalmix.models.contract.query import Query


class HistoryScorer(ABC):
    """A Scorer that reads histories: whoever asks for users says what these have met by now, with Query(history=...).

    The evaluator asks with the events known at that time: train items at validation, train and validation items at
    test. Query(users=...) stands for the train histories.
    """

    def __init__(self, length: int, known: Sequences, n_items: int) -> None:
        """`length`: items of a history it reads, the last ones. `known`: the train histories. `n_items`: of the
        catalogue."""
        self.length, self.known, self.n_items = length, known, n_items

    @abstractmethod
    def __call__(self, query: Query) -> Float[Tensor, "batch items"]:
        """Scores of all items. A query without any item is answered by popularity, with a warning."""

    @abstractmethod
    def calibrated(self, scale: Float[Tensor, " items"], offset: Float[Tensor, " items"]) -> "HistoryScorer":
        """This scorer with scores x scale + offset."""

    def histories(self, query: Query) -> Int[Tensor, "batch longest"]:
        """The last `length` items of each query, oldest first, padded right with -1; at least one column."""
        if query.users is not None:
            return torch.from_numpy(self.known.last(query.users.cpu().numpy(), self.length)).to(query.users.device)
        assert query.history is not None
        return last_items(query.history, self.length)


@final
class SequentialScorer(HistoryScorer):
    """Score = <what the encoder makes of the history, item vector>; an index over `item_vectors` can serve it.

    The vectors have two more numbers: the popularity of an item, which only queries without any item look at, and its
    bias.
    """

    prior: None = None
    """Nothing is added to the inner products."""

    def __init__(
        self,
        length: int,
        known: Sequences,
        encode: Callable[[Int[Tensor, "batch longest"]], Float[Tensor, "batch dim"]],
        items: Float[Tensor, "items dim"],
        popularity: Float[Tensor, " items"],
        item_bias: Float[Tensor, " items"] | None = None,
    ) -> None:
        """`encode` never gets an empty history."""
        super().__init__(length, known, len(items))
        bias = torch.zeros_like(popularity) if item_bias is None else item_bias
        self.encode = encode
        self.item_vectors = torch.cat([items.detach(), torch.stack([popularity, bias], dim=1).to(items)], dim=1)
        self._items_transposed = self.item_vectors.T.contiguous()

    @torch.no_grad()
    def vectors(self, query: Query) -> Float[Tensor, "batch wide"]:
        """The queries' side of the inner products."""
        history = self.histories(query)
        empty = history[:, 0] < 0
        vectors = self.item_vectors.new_zeros(len(history), self.item_vectors.shape[1])
        vectors[:, -1] = 1.0
        if bool(empty.any()):
            warnings.warn("queries without any known item are answered by popularity", stacklevel=2)
            vectors[empty, -2] = 1.0
        if not bool(empty.all()):
            vectors[~empty, :-2] = self.encode(history[~empty])
        return vectors

    def __call__(self, query: Query) -> Float[Tensor, "batch items"]:
        """Scores of all items. A query without any item is answered by popularity, with a warning."""
        return self.vectors(query) @ self._items_transposed

    def pairs(self, query: Query, candidates: Int[Tensor, "batch candidates"]) -> Float[Tensor, "batch candidates"]:
        """Scores of some items, other ones for each query."""
        return torch.einsum("bd,bcd->bc", self.vectors(query), self.item_vectors[candidates])

    def calibrated(self, scale: Float[Tensor, " items"], offset: Float[Tensor, " items"]) -> "SequentialScorer":
        """This scorer with scores x scale + offset."""
        wide = self.item_vectors * scale.to(self.item_vectors).unsqueeze(1)
        bias = wide[:, -1] + offset.to(wide)
        return SequentialScorer(self.length, self.known, self.encode, wide[:, :-2], wide[:, -2], bias)


def last_items(history: Int[Tensor, "batch given"], length: int) -> Int[Tensor, "batch longest"]:
    """The last `length` items of each row, oldest first, padded right with -1; items are those that are not below 0."""
    real = history >= 0
    counted = real.sum(dim=1, keepdim=True)
    width = max(1, min(length, int(counted.max()) if counted.numel() else 1))
    place = real.cumsum(dim=1) - 1 - (counted - length).clamp(min=0)
    kept: Bool[Tensor, "batch given"] = real & (place >= 0)
    last = history.new_full((len(history), width), -1)
    row = torch.arange(len(history), device=history.device).unsqueeze(1).expand_as(history)
    last[row[kept], place[kept]] = history[kept]
    return last
