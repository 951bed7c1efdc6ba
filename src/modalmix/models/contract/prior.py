"""The training-free graph filter as a prior of a trained model: its scores, and what they are without an event.

A train event is in the filter it is scored by: in the user's history, and among those who met both items. Training on
such scores would trust the filter far more than it deserves; `FilterPrior.positives` takes the event out of both.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import final

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from modalmix.config import Config
from modalmix.models.contract.histories import history_rows
from modalmix.models.contract.query import Query, Triples
from modalmix.nn.filters import ItemFilter, content_filter, content_reach, deviation, entries, item_filter, mean_graph

_EVENTS, _USERS = 1 << 16, 1 << 12  # train events, users at once


class FilterConfig(Config):
    """Settings of the filter (docs/models/graphfilter.md)."""

    exponents: tuple[float, float, float] = (0.35, 0.5, 0.15)
    """Powers of the degrees in the item filter: of the item met, of the users, of the item scored."""
    hops: tuple[float, ...] = (1.5, 0.5)
    """Weights of one step over the content graph, of two steps, and so on; the history itself has weight 1."""
    both_ways: bool = False
    """Whether an item's neighbours are those that list it too, beside those it lists."""
    entries: int = Field(1000, ge=1)
    """Largest entries kept in each row of the filter: memory is items x entries."""


@final
class FilterPrior:
    """phi(u,i) = sum over j in history(u) of W_ji, W = (I + h_1 S + h_2 S² + ...) K."""

    def __init__(
        self,
        interactions: sp.csr_matrix,
        graphs: Sequence[sp.csr_matrix],
        weights: Sequence[float],
        config: FilterConfig,
    ) -> None:
        """`graphs`: [all items, training items], one a modality. Items beyond the training ones score 0."""
        self.config, self.n_items = config, interactions.shape[1]
        self.interactions = sp.csr_matrix(interactions, dtype=np.float32)
        self.graph = mean_graph(graphs, weights, config.both_ways)
        co_met = item_filter(self.interactions, config.exponents, config.entries)
        histories = self.interactions.copy()
        histories.resize(interactions.shape[0], self.graph.shape[0])  # nobody has met what was added
        self.filter = ItemFilter(histories, content_filter(co_met, self.graph, config.hops, config.entries))

    @cached_property
    def scale(self) -> float:
        """Standard deviation of W's scores over all users and training items; never 0."""
        histories = self.filter.histories
        blocks = (histories[start : start + _USERS] for start in range(0, self.interactions.shape[0], _USERS))
        return max(deviation(blocks, self.filter.weights), float(np.finfo(np.float32).tiny))

    def rows(self, query: Query) -> Float[Tensor, "batch items"]:
        """phi of all items."""
        scores = self.filter.of(history_rows(query, self.filter.histories, self.graph.shape[0]))
        return F.pad(scores, (0, self.graph.shape[0] - scores.shape[1]))

    def negatives(self, batch: Triples) -> Float[Tensor, " batch"]:
        """phi(u, j) of the batch's negatives, as if the user had not met the positive."""
        return self.filter.pairs(batch.user, batch.negative, without=batch.positive)

    def positives(self, batch: Triples) -> Float[Tensor, " batch"]:
        """phi(u, i) of the batch's positives without their event, neither in the history nor in K."""
        found = entries(self.without_event, batch.user.cpu().numpy(), batch.positive.cpu().numpy())
        return torch.from_numpy(found).float().to(batch.user.device)

    @cached_property
    def without_event(self) -> sp.csr_matrix:
        """phi of every train event without itself: [users, training items].

        The event (u, i) adds d_l^-a d_u^-b d_i^-c to K_li for each item l that u met, i among them; the degrees stay.
        Exact where no row of K or W was cut to its `entries` largest; where one was, what was cut is taken off too, so
        that a score is a little low, at least 0.
        """
        events = self.interactions.tocoo()
        user, item = torch.from_numpy(events.row.astype(np.int64)), torch.from_numpy(events.col.astype(np.int64))
        whole = torch.cat(
            [self.filter.pairs(u, i, without=i) for u, i in zip(user.split(_EVENTS), item.split(_EVENTS), strict=True)]
        ).numpy()
        rest = np.maximum(0.0, whole - self._own_share(events.row, events.col))
        return sp.csr_matrix((rest, (events.row, events.col)), shape=self.interactions.shape)

    def _own_share(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """d_u^-b d_i^-c sum over l in N_u of d_l^-a sum over j in N_u without i of T_jl; T = I + h_1 S + ..."""
        met, reach = self.interactions, content_reach(self.graph[: self.n_items], self.config.hops)
        a, b, c = self.config.exponents
        of_user = np.maximum(met.getnnz(axis=1), 1).astype(np.float64)
        of_item = np.maximum(met.getnnz(axis=0), 1).astype(np.float64)
        towards = _on(met, met @ sp.diags(of_item**-a), reach.T.tocsr())  # [u, j]: sum over l in N_u of d_l^-a T_jl
        inside = np.asarray(towards.sum(axis=1)).ravel()[user] - entries(towards, user, item)
        return of_user[user] ** -b * of_item[item] ** -c * inside


@final
class PriorScores:
    """t(i) phi(u,i) of all items, for queries."""

    def __init__(self, prior: FilterPrior, trust: Float[Tensor, " items"]) -> None:
        """`trust`: t(i), on the CPU."""
        self.prior, self.trust = prior, trust

    def __call__(self, query: Query) -> Float[Tensor, "batch items"]:
        """On the CPU. Raises QueryError for an empty history."""
        return self.prior.rows(query).mul_(self.trust)


def _on(pattern: sp.csr_matrix, left: sp.csr_matrix, right: sp.csr_matrix) -> sp.csr_matrix:
    """left @ right where `pattern` has entries, a block of rows at a time."""
    blocks = [
        sp.csr_matrix(pattern[start : start + _USERS].multiply(left[start : start + _USERS] @ right))
        for start in range(0, pattern.shape[0], _USERS)
    ]
    return sp.vstack(blocks, format="csr")
