"""The best items of a query: of all items, or in two steps, of those that an index and the prior name.

Both give lists in the same form, so that one can stand for the other. `evaluation.retrieval` measures how many of the
exact ones two steps find.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modalmix.errors import QueryError
from modalmix.models.contract.query import Query, Scorer

_BLOCK = 1 << 22  # scores held at once in the first step


class Best(NamedTuple):
    """The best items of each query, best first; -inf where fewer are left than were asked for."""

    rows: Int[Tensor, "batch k"]
    scores: Float[Tensor, "batch k"]


class Ranker(Protocol):
    """Names the best items of queries."""

    def top(
        self,
        query: Query,
        k: int,
        exclude: Int[Tensor, "batch most"] | None = None,
        pool: Bool[Tensor, " items"] | None = None,
    ) -> Best:
        """The best k of `pool` (all items without it), without those of `exclude` (padded with -1)."""
        ...


@runtime_checkable
class PairScorer(Scorer, Protocol):
    """A scorer that also scores chosen pairs, and is near to inner products plus a prior: what two steps need."""

    prior: Callable[[Query], Float[Tensor, "batch items"]] | None
    """What is added to the inner products, for all items."""

    @property
    def item_vectors(self) -> Float[Tensor, "items wide"]:
        """The items' side of the inner products."""
        ...

    def vectors(self, query: Query) -> Float[Tensor, "batch wide"]:
        """The queries' side."""
        ...

    def pairs(self, query: Query, candidates: Int[Tensor, "batch candidates"]) -> Float[Tensor, "batch candidates"]:
        """Exact scores of some items, other ones for each query."""
        ...


class Index(Protocol):
    """Items by inner product with a vector. An approximate index can stand in the place of `InnerProducts`."""

    def __call__(
        self, vectors: Float[Tensor, "batch wide"], n: int, pool: Bool[Tensor, " items"] | None = None
    ) -> Int[Tensor, "batch n"]:
        """Rows of the n largest of the pool, largest first; -1 where there are fewer."""
        ...


@final
class InnerProducts:
    """The exact index: all inner products, a block of queries at a time."""

    def __init__(self, items: Float[Tensor, "items wide"]) -> None:
        self.items = items.detach()

    def __call__(
        self, vectors: Float[Tensor, "batch wide"], n: int, pool: Bool[Tensor, " items"] | None = None
    ) -> Int[Tensor, "batch n"]:
        """Rows of the n largest of the pool, largest first; -1 where there are fewer."""
        size = max(1, _BLOCK // max(1, len(self.items)))
        blocks = [largest(_within(part @ self.items.T, pool), n) for part in vectors.split(size)]
        return torch.cat(blocks) if blocks else vectors.new_empty((0, n), dtype=torch.int64)


@final
class FullRanking:
    """Every item is scored."""

    def __init__(self, scorer: Scorer) -> None:
        self.scorer = scorer

    @torch.no_grad()
    def top(
        self,
        query: Query,
        k: int,
        exclude: Int[Tensor, "batch most"] | None = None,
        pool: Bool[Tensor, " items"] | None = None,
    ) -> Best:
        """The best k; ties by item row. Memory: batch x items. Raises QueryError for a score that is not finite."""
        scores = _finite(self.scorer(query))
        scores = scores.clone() if pool is None else _within(scores, pool)
        return _sorted(None, _without(scores, exclude), k)


@final
class TwoStep:
    """Items are retrieved by inner products and by the prior; these are scored exactly."""

    def __init__(self, scorer: PairScorer, candidates: int, index: Index | None = None) -> None:
        """`candidates`: items that the index names, and as many that the prior names where there is one. `index`: over
        `scorer.item_vectors`; the exact one without it. Raises QueryError for candidates below 1."""
        if candidates < 1:
            raise QueryError("candidates to retrieve", got=candidates, expected="at least 1")
        self.scorer, self.candidates = scorer, candidates
        self.index = InnerProducts(scorer.item_vectors) if index is None else index

    @torch.no_grad()
    def top(
        self,
        query: Query,
        k: int,
        exclude: Int[Tensor, "batch most"] | None = None,
        pool: Bool[Tensor, " items"] | None = None,
    ) -> Best:
        """The best k of the retrieved ones, with their exact scores; ties by item row.

        Raises QueryError for a score that is not finite, and when k is more than the candidates.
        """
        if k > self.candidates:
            raise QueryError("k", got=k, expected=f"at most the {self.candidates:,} candidates", fix="Retrieve more.")
        rows = self.retrieve(query, exclude, pool)
        scores = _finite(self.scorer.pairs(query, rows.clamp(min=0)))
        return _sorted(rows, scores.masked_fill(rows < 0, -torch.inf), k)

    @torch.no_grad()
    def retrieve(
        self,
        query: Query,
        exclude: Int[Tensor, "batch most"] | None = None,
        pool: Bool[Tensor, " items"] | None = None,
    ) -> Int[Tensor, "batch retrieved"]:
        """The first step: rows in ascending order, each once, -1 among them in place of those that are not."""
        wanted = self.candidates + (0 if exclude is None else exclude.shape[1])  # none is missing without the excluded
        named = [_keep(self.index(self.scorer.vectors(query), wanted, pool), exclude, self.candidates)]
        if self.scorer.prior is not None:
            prior = self.scorer.prior(query)
            prior = prior.clone() if pool is None else _within(prior, pool)
            named.append(largest(_without(prior, exclude), self.candidates).to(named[0].device))
        rows = torch.cat(named, dim=1).sort(dim=1).values
        rows[:, 1:] = rows[:, 1:].masked_fill(rows[:, 1:] == rows[:, :-1], -1)
        return rows


def largest(scores: Float[Tensor, "batch items"], n: int) -> Int[Tensor, "batch n"]:
    """Columns of the n largest entries of each row, largest first; -1 for those that are -inf or not there.

    Among entries that tie at the end of the list any.
    """
    kept = min(n, scores.shape[1])
    if scores.device.type == "cpu":  # numpy selects with SIMD: several times faster than torch.topk
        array = scores.numpy()
        columns = np.argpartition(array, scores.shape[1] - kept, axis=1)[:, scores.shape[1] - kept :]
        order = np.argsort(-np.take_along_axis(array, columns, axis=1), axis=1)
        found = torch.from_numpy(np.take_along_axis(columns, order, axis=1).astype(np.int64))
    else:
        found = scores.topk(kept, dim=1).indices
    found = found.masked_fill(scores.gather(1, found) == -torch.inf, -1)
    return torch.nn.functional.pad(found, (0, n - kept), value=-1)


def _within(scores: Float[Tensor, "batch items"], pool: Bool[Tensor, " items"] | None) -> Tensor:
    """-inf outside the pool, in a copy where there is one."""
    return scores if pool is None else scores.masked_fill(~pool.to(scores.device), -torch.inf)


def _without(scores: Float[Tensor, "batch items"], exclude: Int[Tensor, "batch most"] | None) -> Tensor:
    """-inf at the excluded items of each query, in place."""
    if exclude is not None:
        query, place = (exclude >= 0).nonzero(as_tuple=True)
        scores[query, exclude[query, place]] = -torch.inf
    return scores


def _keep(rows: Int[Tensor, "batch named"], exclude: Int[Tensor, "batch most"] | None, n: int) -> Tensor:
    """The first n of each list that are not excluded; -1 where fewer are left."""
    if exclude is None:
        return rows
    exclude = exclude.to(rows.device)
    apart = 1 + max(int(part.max()) if part.numel() else 0 for part in (rows, exclude))
    query = (1 + apart) * torch.arange(len(rows), device=rows.device).unsqueeze(1)
    hidden = torch.isin(query + rows, query + exclude) | (rows < 0)
    first = hidden.sort(dim=1, stable=True).indices[:, :n]
    return rows.masked_fill(hidden, -1).gather(1, first)


def _finite(scores: Tensor) -> Tensor:
    if not torch.isfinite(scores).all():
        raise QueryError("the model gave a score that is NaN or infinite", fix="Training may have diverged: lower lr.")
    return scores


def _sorted(rows: Int[Tensor, "batch named"] | None, scores: Float[Tensor, "batch named"], k: int) -> Best:
    """The first k by score, of ascending rows (columns without them): ties stay in that order."""
    best = scores.sort(dim=1, descending=True, stable=True)
    columns, values = best.indices[:, :k], best.values[:, :k]
    return Best(columns if rows is None else rows.gather(1, columns), values)
