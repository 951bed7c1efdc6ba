"""Full softmax over many items without ever holding all its scores."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modalmix.nn.linear import frozen_linear

_CHUNK = 1 << 22  # scores held at once: 16 MB in float32


def full_softmax_loss(
    queries: Float[Tensor, "batch dim"], items: Float[Tensor, "items dim"], positive: Int[Tensor, " batch"]
) -> Float[Tensor, ""]:
    """Mean over the batch of -log softmax(<q, h>)[positive], the softmax running over all items.

    Scores are made in chunks of queries, and both gradients are taken while a chunk is there: memory is
    O(batch dim + items dim), the work that of scoring thrice.
    """
    return _FullSoftmax.apply(queries, items, positive)


class _FullSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, items: Tensor, positive: Tensor) -> Tensor:
        grad_queries, grad_items = torch.empty_like(queries), torch.zeros_like(items)
        rows, columns = max(1, _CHUNK // max(1, len(items))), items.T.contiguous()
        total = queries.new_zeros(())
        for start in range(0, len(queries), rows):
            chunk, target = queries[start : start + rows], positive[start : start + rows]
            p = frozen_linear(chunk, items)
            largest = p.amax(dim=1, keepdim=True)
            scored = p.gather(1, target.unsqueeze(1)) - largest
            mass = p.sub_(largest).exp_().sum(dim=1, keepdim=True)
            total += (mass.log() - scored).sum()
            # d loss / d scores = (p / mass - one-hot) / batch: the division is done on the side of length dim
            share, own = 1.0 / (mass * len(queries)), items.index_select(0, target)
            grad_queries[start : start + rows] = frozen_linear(p, columns).mul_(share).sub_(own, alpha=1 / len(queries))
            grad_items += frozen_linear((chunk * share).T.contiguous(), p.T).T
            grad_items.index_add_(0, target, chunk, alpha=-1 / len(queries))
        ctx.save_for_backward(grad_queries, grad_items)
        return total / len(queries)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_queries, grad_items = ctx.saved_tensors
        return grad_queries * grad[0], grad_items * grad[0], None
