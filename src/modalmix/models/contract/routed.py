"""The scorer of a model that routes every user-item pair to experts: exact, block by block."""

from collections.abc import Callable
from functools import cached_property
from typing import Literal, NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from modalmix.errors import QueryError
from modalmix.models.contract.query import Query, distinct
from modalmix.nn.gates import top_k_softmax
from modalmix.nn.linear import times_transposed
from modalmix.nn.mixing import top_k_mixture
from modalmix.nn.roles import PlainExperts, RoleExperts, available
from modalmix.nn.router import PairRouter, Side

MixtureGradient = Literal["all", "experts", "none"]  # all: experts and router; experts alone; neither
_USERS, _ITEMS = 128, 512  # the blocks of all experts for so many pairs stay in the cache
_PAIRS = 1 << 10  # pairs of queries with items of their own at once


class Nodes(NamedTuple):
    """Users or items: their own vector, and what experts and router see of them."""

    own: Float[Tensor, "nodes dim"]
    z: Float[Tensor, "signals nodes dim"]
    """Signals, behaviour first; zeros where absent."""
    degree: Float[Tensor, " nodes"]
    present: Bool[Tensor, "nodes signals"]

    def rows(self, rows: Tensor | slice) -> "Nodes":
        """Some of them."""
        return Nodes(self.own[rows], self.z[:, rows], self.degree[rows], self.present[rows])


@final
class Mixture(NamedTuple):
    """Experts and their router, frozen: neither may change any more."""

    experts: nn.Module
    router: PairRouter
    allowed: Bool[Tensor, "items experts"]
    """Which experts an item may be routed to."""
    top_k: int
    mean_gate: Float[Tensor, " experts"] | None = None
    """What each expert weighs on average in training; without it all weigh the same. For `RoutedScorer.vectors`."""


def pair_scores(
    experts: RoleExperts | PlainExperts, router: PairRouter, users: Nodes, items: Nodes, gradient: MixtureGradient
) -> tuple[Float[Tensor, "pairs experts"], Float[Tensor, "pairs experts"]]:
    """In training: logits, and what each expert says, of users with the items in the same place of each list.

    `gradient`: what of the mixture moves the signals.
    """
    seen = [nodes.z if gradient == "all" else nodes.z.detach() for nodes in (users, items)]
    heard = [nodes.z.detach() if gradient == "none" else nodes.z for nodes in (users, items)]
    allowed = available(experts.roles, items.present)
    of_users = router.users(seen[0], users.degree, users.present)
    logits = router.pairs(of_users, router.items(seen[1], items.degree, items.present, allowed))
    return logits, experts.agree(heard[0], heard[1])


@final
class RoutedScorer:
    """y(u,i) = <own_u, own_i> + sum over the top k experts e of g_e(u,i) <f_e(u), f_e(i)> + prior(u,i).

    A history is folded in: each signal is the mean of its items', and the user's own vector the mean of its items' own,
    scaled to the mean length of known users'. A repeat in it counts once.
    """

    def __init__(
        self,
        users: Nodes,
        items: Nodes,
        mixture: Mixture | None,
        prior: Callable[[Query], Float[Tensor, "batch items"]] | None = None,
    ) -> None:
        """Without `mixture` there are no experts; `prior` gives what is added to the scores of all items."""
        self.users, self.items, self.mixture, self.prior = users, items, mixture, prior
        if mixture is not None:
            self._said = mixture.experts(items.z)
            self._side = mixture.router.items(items.z, items.degree, items.present, mixture.allowed)
        known = users.own[users.degree > 0]
        self._length = known.norm(dim=1).mean() if len(known) else users.own.new_ones(())

    @torch.no_grad()
    def __call__(self, query: Query) -> Float[Tensor, "batch items"]:
        """Scores of all items."""
        nodes = self.asked(query)
        scores = nodes.own.new_empty(len(nodes.own), len(self.items.own))
        for start in range(0, len(scores), _USERS):
            block = slice(start, start + _USERS)
            scores[block] = times_transposed(nodes.own[block], self.items.own)
            if self.mixture is not None:
                self._add_mixture(scores[block], nodes.rows(block))
        return scores if self.prior is None else scores.add_(self.prior(query).to(scores))

    @torch.no_grad()
    def pairs(self, query: Query, candidates: Int[Tensor, "batch candidates"]) -> Float[Tensor, "batch candidates"]:
        """Exact scores of some items only, other ones for each query: the second step after a retrieval."""
        nodes = self.asked(query)
        scores = nodes.own.new_empty(candidates.shape)
        size = max(1, _PAIRS // max(1, candidates.shape[1]))
        for start in range(0, len(scores), size):
            block = slice(start, start + size)
            scores[block] = self._of_lists(nodes.rows(block), candidates[block])
        return scores if self.prior is None else scores.add_(self.prior(query).to(scores).gather(1, candidates))

    @torch.no_grad()
    def vectors(self, query: Query) -> Float[Tensor, "batch wide"]:
        """The queries' side of inner products with `item_vectors`: the score with the mean gate for every pair, the
        prior left out. What an index retrieves by."""
        nodes = self.asked(query)
        return self._wide(nodes.own, None if self.mixture is None else self.mixture.experts(nodes.z))

    @cached_property
    def item_vectors(self) -> Float[Tensor, "items wide"]:
        """The items' side of these inner products: all that an index is made of."""
        with torch.no_grad():
            return self._wide(self.items.own, None if self.mixture is None else self._said)

    @torch.no_grad()
    def gates(self, query: Query, items: Int[Tensor, " items"]) -> Float[Tensor, "batch items experts"]:
        """The gates of these pairs: `top_k` of each are not 0, fewer where an item may be routed to fewer experts.

        Raises ValueError without experts.
        """
        if self.mixture is None:
            raise ValueError("there are no experts to route to")
        _, side = self._encode(self.asked(query))
        logits = self.mixture.router.every(side, self._side.rows(items)).permute(1, 2, 0)
        return top_k_softmax(logits.flatten(0, 1), self.mixture.top_k).view(logits.shape)

    def asked(self, query: Query) -> Nodes:
        """The query's side. Raises QueryError for an empty history."""
        if query.users is not None:
            return self.users.rows(query.users)
        assert query.history is not None
        history = distinct(query.history)
        there = (history >= 0).to(self.items.own)
        length = there.sum(dim=1)
        if not length.all():
            raise QueryError("a history is empty", expected="at least one item", fix="Ask popularity instead.")
        share, met = there / length.unsqueeze(1), history.clamp(min=0)
        own = F.normalize(torch.einsum("bh,bhd->bd", share, self.items.own[met]), dim=1) * self._length
        z = torch.einsum("bh,sbhd->sbd", share, self.items.z[:, met])
        present = (self.items.present[met] & (history >= 0).unsqueeze(2)).any(dim=1)
        return Nodes(own, z, length, present)

    def _add_mixture(self, scores: Float[Tensor, "block items"], nodes: Nodes) -> None:
        """Add the mixture to the scores of a block of queries, a tile of items at a time."""
        said, side = self._encode(nodes)
        width = _ITEMS * max(1, _USERS // len(side.vectors))  # few users: more items at once
        for first in range(0, scores.shape[1], width):
            tile = slice(first, first + width)
            scores[:, tile] += self._mixed(said, side, tile)

    def _mixed(self, said: Tensor, side: Side, items: Tensor | slice) -> Float[Tensor, "batch tile"]:
        assert self.mixture is not None
        logits = self.mixture.router.every(side, self._side.rows(items))
        scores = (times_transposed(*both) for both in zip(said, self._said[:, items], strict=True))  # one at a time
        return top_k_mixture(logits, scores, self.mixture.top_k)

    def _of_lists(self, nodes: Nodes, items: Int[Tensor, "batch listed"]) -> Float[Tensor, "batch listed"]:
        """Scores, but for the prior, of each query with items of its own. Only what the chosen experts say is read."""
        scores = (F.embedding(items, self.items.own) * nodes.own.unsqueeze(1)).sum(dim=2)
        if self.mixture is None:
            return scores
        said, side = self._encode(nodes)
        assert self._side.bias is not None
        sides = Side(F.embedding(items, self._side.vectors), F.embedding(items, self._side.bias))
        logits, experts = self.mixture.router.of_lists(side, sides).topk(self.mixture.top_k, dim=2)
        query = torch.arange(len(items), device=items.device).view(-1, 1, 1)
        of_items = F.embedding(experts * self._said.shape[1] + items.unsqueeze(2), self._said.flatten(0, 1))
        of_users = F.embedding(experts * len(items) + query, said.flatten(0, 1))
        return scores.add_((logits.softmax(dim=2) * of_items.mul_(of_users).sum(dim=3)).sum(dim=2))

    def _wide(self, own: Tensor, said: Float[Tensor, "experts rows dim"] | None) -> Float[Tensor, "rows wide"]:
        """[own || sqrt(g_1) f_1 || sqrt(g_2) f_2 ...], g the mean gate."""
        if self.mixture is None or said is None:
            return own
        gate = self.mixture.mean_gate
        if gate is None:
            gate = said.new_full((len(said),), 1.0 / len(said))
        return torch.cat([own, (gate.sqrt().view(-1, 1, 1) * said).transpose(0, 1).flatten(1)], dim=1)

    def _encode(self, nodes: Nodes) -> tuple[Float[Tensor, "experts batch dim"], Side]:
        assert self.mixture is not None
        return self.mixture.experts(nodes.z), self.mixture.router.users(nodes.z, nodes.degree, nodes.present)
