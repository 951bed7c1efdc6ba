"""Full softmax over many items without ever holding all its scores."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

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
        rows = max(1, _CHUNK // max(1, len(items)))
        scores = queries.new_empty(min(rows, len(queries)), len(items))
        total = queries.new_zeros(())
        for start in range(0, len(queries), rows):
            chunk, target = queries[start : start + rows], positive[start : start + rows].unsqueeze(1)
            p = torch.mm(chunk, items.T, out=scores[: len(chunk)])
            largest = p.amax(dim=1, keepdim=True)
            scored = p.gather(1, target) - largest
            mass = p.sub_(largest).exp_().sum(dim=1, keepdim=True)
            total += (mass.log() - scored).sum()
            # d loss / d scores = softmax - one-hot, over the batch
            p.div_(mass * len(queries)).scatter_add_(1, target, torch.full_like(scored, -1.0 / len(queries)))
            torch.mm(p, items, out=grad_queries[start : start + rows])
            grad_items.addmm_(p.T, chunk)
        ctx.save_for_backward(grad_queries, grad_items)
        return total / len(queries)

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_queries, grad_items = ctx.saved_tensors
        return grad_queries * grad[0], grad_items * grad[0], None
