"""The scorer of every model whose score is an inner product; an index can serve it."""

from collections.abc import Callable
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modalmix.errors import QueryError
from modalmix.models.contract.query import Query, distinct


@final
class DotScorer:
    """Score = <user vector, item vector> + item bias.

    A history is folded in by `of_history`, where a model knows how. Else its vector is the mean of the item vectors,
    scaled to the mean length of the known users' vectors: an approximation, for the model has learnt vectors for known
    users only. A repeat counts once there, as it does in training.
    """

    def __init__(
        self,
        users: Float[Tensor, "users dim"],
        items: Float[Tensor, "items dim"],
        item_bias: Float[Tensor, " items"] | None = None,
        *,
        without_content: Bool[Tensor, " items"] | None = None,
        of_history: Callable[[Int[Tensor, "batch length"]], Float[Tensor, "batch dim"]] | None = None,
    ) -> None:
        """`without_content` flags the items that a content model has nothing to go by for; None for other models."""
        self.users = users.detach().contiguous()
        self.items = items.detach().contiguous()
        self.item_bias = None if item_bias is None else item_bias.detach()
        self.without_content, self.of_history = without_content, of_history
        self._items_transposed = self.items.T.contiguous()
        self._scale = self.users.norm(dim=1).mean() if len(users) else users.new_ones(())

    def vectors(self, query: Query) -> Float[Tensor, "batch dim"]:
        """The query's side of the inner product."""
        if query.users is not None:
            return self.users[query.users]
        assert query.history is not None
        return (self.of_history or self._fold_in)(query.history)

    def __call__(self, query: Query, out: Float[Tensor, "batch items"] | None = None) -> Float[Tensor, "batch items"]:
        """Scores of all items; written into `out` where given, so that a caller can reuse one buffer."""
        vectors = self.vectors(query)
        if self.item_bias is None:
            return torch.mm(vectors, self._items_transposed, out=out)
        return torch.addmm(self.item_bias, vectors, self._items_transposed, out=out)

    def _fold_in(self, history: Int[Tensor, "batch length"]) -> Float[Tensor, "batch dim"]:
        history = distinct(history)
        present = (history >= 0).unsqueeze(-1).to(self.items.dtype)
        if not present.sum(dim=1).all():
            raise QueryError("a history is empty", expected="at least one item", fix="Ask popularity instead.")
        mean = (self.items[history.clamp(min=0)] * present).sum(dim=1) / present.sum(dim=1)
        return torch.nn.functional.normalize(mean, dim=1) * self._scale
