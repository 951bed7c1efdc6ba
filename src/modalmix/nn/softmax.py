"""Full softmax over many items without ever holding all its scores."""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from modalmix.nn.linear import frozen_linear

_CHUNK = 1 << 22  # scores held at once: 16 MB in float32
_MULTIPLE = 32  # chunks have a multiple of so many rows: oneDNN keeps a kernel, a megabyte or two, for every new shape


def full_softmax_loss(
    queries: Float[Tensor, "batch dim"], items: Float[Tensor, "items dim"], positive: Int[Tensor, " batch"]
) -> Float[Tensor, ""]:
    """Mean over the batch of -log softmax(<q, h>)[positive], the softmax running over all items.

    Scores are made in chunks of queries, and both gradients are taken while a chunk is there: memory is
    O(batch dim + items dim), the work that of scoring thrice.
    """
    return _FullSoftmax.apply(queries, items, positive)


def _rows_of_a_chunk(items: int) -> int:
    rows = max(1, _CHUNK // max(1, items))
    return rows - rows % _MULTIPLE if rows > _MULTIPLE else rows


class _FullSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, items: Tensor, positive: Tensor) -> Tensor:
        count, queries = len(queries), F.pad(queries, (0, 0, 0, -len(queries) % _MULTIPLE))
        positive = F.pad(positive, (0, len(queries) - count))
        weight = queries.new_full((len(queries), 1), 1 / max(1, count))
        weight[count:] = 0.0
        grad_queries, grad_items = torch.empty_like(queries), torch.zeros_like(items)
        rows, columns = _rows_of_a_chunk(len(items)), items.T.contiguous()
        total = queries.new_zeros(())
        for chunk, target, each, grad in zip(
            *(part.split(rows) for part in (queries, positive, weight, grad_queries)), strict=True
        ):
            p = frozen_linear(chunk, items)
            largest = p.amax(dim=1, keepdim=True)
            scored = p.gather(1, target.unsqueeze(1)) - largest
            mass = p.sub_(largest).exp_().sum(dim=1, keepdim=True)
            total += ((mass.log() - scored) * each).sum()
            # d loss / d scores = (p / mass - one-hot) weight: both factors are applied on the side of length dim
            share, own = each / mass, items.index_select(0, target)
            grad.copy_(frozen_linear(p, columns).mul_(share).sub_(own.mul_(each)))
            grad_items += frozen_linear((chunk * share).T.contiguous(), p.T).T
            grad_items.index_add_(0, target, chunk * each, alpha=-1)
        grad_queries = grad_queries[:count]
        ctx.save_for_backward(grad_queries, grad_items)
        return total

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, Tensor, None]:
        grad_queries, grad_items = ctx.saved_tensors
        return grad_queries * grad[0], grad_items * grad[0], None
