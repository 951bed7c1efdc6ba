"""The scorer of a model that routes every user-item pair to experts: exact, block by block."""

from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from modalmix.errors import QueryError
from modalmix.models.contract.query import Query
from modalmix.nn.gates import top_k_softmax
from modalmix.nn.mixing import top_k_mixture
from modalmix.nn.router import PairRouter, Side

_USERS, _ITEMS = 128, 256  # the blocks of all experts for so many pairs stay in the cache


class Nodes(NamedTuple):
    """Users or items as experts and router see them: signals (absent ones zeros), degree, which signals are there."""

    z: Float[Tensor, "signals nodes dim"]
    degree: Float[Tensor, " nodes"]
    present: Bool[Tensor, "nodes signals"]

    def rows(self, rows: Tensor | slice) -> "Nodes":
        """Some of them."""
        return Nodes(self.z[:, rows], self.degree[rows], self.present[rows])


def nodes_of(z: Float[Tensor, "signals nodes dim"], degree: Float[Tensor, " nodes"]) -> Nodes:
    """Nodes that have the signals which are not zero."""
    return Nodes(z, degree, (z.detach().abs().sum(dim=2) > 0).T)


@final
class RoutedScorer:
    """y(u,i) = <own_u, z_i^1> + sum over the top k experts of g_e(u,i) <f_e(u), f_e(i)>; signal 1 is behaviour.

    A history is folded in: each signal is the mean of its items', and the user's own vector is that of behaviour,
    scaled to the mean length of known users'.
    """

    def __init__(
        self,
        experts: nn.Module,
        router: PairRouter,
        own: Float[Tensor, "users dim"],
        item_own: Float[Tensor, "items dim"],
        users: Nodes,
        items: Nodes,
        allowed: Bool[Tensor, "items experts"],
        top_k: int,
        prior=None,
        trust=None,
    ) -> None:
        """`experts` and `router` must not change any more; `allowed` says which experts an item may be routed to."""
        self.experts, self.router, self.top_k = experts, router, top_k
        self.own, self.users, self.items = own, users, items
        self._item_outputs = experts(items.z)
        self._item_side = router.items(items.z, items.degree, items.present, allowed)
        self.prior, self.trust = prior, trust
        self._behaviour = item_own
        known = own[users.degree > 0]
        self._scale = known.norm(dim=1).mean() if len(known) else own.new_ones(())

    @torch.no_grad()
    def __call__(self, query: Query) -> Float[Tensor, "batch items"]:
        """Scores of all items."""
        own, nodes = self.asked(query)
        scores = own @ self._behaviour.T
        if self.prior is not None:
            scores += self.prior.rows(query) * self.trust
        for start in range(0, len(scores), _USERS):
            block = slice(start, start + _USERS)
            outputs, side = self._encode(nodes.rows(block))
            for first in range(0, len(self._behaviour), _ITEMS):
                tile = slice(first, first + _ITEMS)
                logits = self.router.every(side, self._item_side.rows(tile))
                found = torch.bmm(outputs, self._item_outputs[:, tile].transpose(1, 2))
                scores[block, tile] += top_k_mixture(logits, found, self.top_k)
        return scores

    @torch.no_grad()
    def pairs(self, query: Query, candidates: Int[Tensor, "batch candidates"]) -> Float[Tensor, "batch candidates"]:
        """Exact scores of some items only, other ones for each query: the second step after a retrieval."""
        own, nodes = self.asked(query)
        scores = own.new_empty(candidates.shape)
        for row, items in enumerate(candidates):
            outputs, side = self._encode(nodes.rows(slice(row, row + 1)))
            logits = self.router.every(side, self._item_side.rows(items))
            found = torch.bmm(outputs, self._item_outputs[:, items].transpose(1, 2))
            scores[row] = self._behaviour[items] @ own[row] + top_k_mixture(logits, found, self.top_k)[0]
        if self.prior is not None:
            scores += (self.prior.rows(query) * self.trust).gather(1, candidates)
        return scores

    @torch.no_grad()
    def gates(self, query: Query, items: Int[Tensor, " items"]) -> Float[Tensor, "batch items experts"]:
        """The gates of these pairs: `top_k` of each are not 0, fewer where an item may be routed to fewer."""
        _, side = self._encode(self.asked(query)[1])
        logits = self.router.every(side, self._item_side.rows(items)).permute(1, 2, 0)
        return top_k_softmax(logits.flatten(0, 1), self.top_k).view(logits.shape)

    def asked(self, query: Query) -> tuple[Float[Tensor, "batch dim"], Nodes]:
        """The query's own vector and its nodes. Raises QueryError for an empty history."""
        if query.users is not None:
            return self.own[query.users], self.users.rows(query.users)
        history = query.history
        assert history is not None
        there = (history >= 0).float()
        length = there.sum(dim=1)
        if not length.all():
            raise QueryError("a history is empty", expected="at least one item", fix="Ask popularity instead.")
        z = torch.einsum("bh,sbhd->sbd", there / length.unsqueeze(1), self.items.z[:, history.clamp(min=0)])
        return F.normalize(z[0], dim=1) * self._scale, nodes_of(z, length)

    def _encode(self, nodes: Nodes) -> tuple[Float[Tensor, "experts batch dim"], Side]:
        return self.experts(nodes.z), self.router.users(*nodes)
