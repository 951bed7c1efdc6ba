"""Softmax over many items without ever holding all its scores: in full, or estimated from a sample of them."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from modalmix.nn.linear import frozen_linear

_CHUNK = 1 << 22  # scores held at once: 16 MB in float32
_ROOM = 24  # in powers of e: a sum of numbers that far below the largest float, over a billion items, does not overflow
_MULTIPLE = 32  # chunks have a multiple of so many rows: oneDNN keeps a kernel, a megabyte or two, for every new shape


def full_softmax_loss(
    queries: Float[Tensor, "batch dim"],
    items: Float[Tensor, "items dim"],
    positive: Int[Tensor, " batch"],
    *,
    coarse: bool = False,
) -> Float[Tensor, ""]:
    """Mean over the batch of -log softmax(<q, h>)[positive], the softmax running over all items.

    Scores are made in chunks of queries, and both gradients are taken while a chunk is there: memory is
    O(batch dim + items dim), the work that of scoring thrice. With `coarse` these three products are of numbers rounded
    to bfloat16 (8 significant bits).
    """
    return _FullSoftmax.apply(queries, items, positive, coarse)


def sampled_softmax_loss(
    queries: Float[Tensor, "batch dim"],
    items: Float[Tensor, "items dim"],
    positive: Int[Tensor, " batch"],
    sampled: Int[Tensor, " samples"],
    log_expected: Float[Tensor, " items"],
    *,
    correct_positive: bool,
) -> Float[Tensor, ""]:
    """Mean over the batch of -log [exp(s_y) / (exp(s_y) + sum over sampled j other than y of exp(s_j))], y = positive,
    with logits s_j = <q, h_j> - log_expected[j].

    All queries share the sample; log_expected[j] is the log of how often item j is expected in one (logQ correction,
    Bengio and Senecal 2008). With `correct_positive` s_y is corrected as the others are (Yi et al. 2019): the
    likelihood of y among what stands below the line. Without, s_y = <q, h_y>: y is there for certain, and the sum is an
    unbiased estimate of that of the full softmax (Khrylchenko et al. 2025). Where every item is sampled once, and
    expected once, both are the full softmax. Chunks as in `full_softmax_loss`: no score of another item is made.
    """
    rows = torch.cat([positive, sampled])
    own, others = items.index_select(0, rows).split([len(positive), len(sampled)])
    own_shift, shift = log_expected.index_select(0, rows).split([len(positive), len(sampled)])
    if not correct_positive:
        own_shift = torch.zeros_like(own_shift)
    return _SampledSoftmax.apply(queries, own, others, positive, sampled, own_shift, shift)


def _within_range(queries: Float[Tensor, "batch dim"], items: Float[Tensor, "items dim"]) -> bool:
    """Whether e^<q, h> can neither overflow nor vanish, nor its sum over the items: |<q, h>| <= |q| |h|."""
    limit = math.log(torch.finfo(items.dtype).max) - _ROOM
    return bool((queries.norm(dim=1) * items.norm(dim=1).max() < limit).all())


def _rows_of_a_chunk(items: int) -> int:
    rows = max(1, _CHUNK // max(1, items))
    return rows - rows % _MULTIPLE if rows > _MULTIPLE else rows


class _FullSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, items: Tensor, positive: Tensor, coarse: bool) -> Tensor:
        kind = torch.bfloat16 if coarse else items.dtype
        count, queries = len(queries), F.pad(queries, (0, 0, 0, -len(queries) % _MULTIPLE))
        positive = F.pad(positive, (0, len(queries) - count))
        weight = queries.new_full((len(queries), 1), 1 / max(1, count))
        weight[count:] = 0.0
        rows, columns = _rows_of_a_chunk(len(items)), items.to(kind).T.contiguous()
        read = columns.T if coarse else items  # the same numbers; the faster layout for each kind of product
        as_they_are = _within_range(queries, items)
        grad_queries, grad_columns = torch.empty_like(queries), torch.zeros_like(columns, dtype=items.dtype)
        total = queries.new_zeros(())
        for chunk, target, each, grad in zip(
            *(part.split(rows) for part in (queries, positive, weight, grad_queries)), strict=True
        ):
            p = frozen_linear(chunk.to(kind), read).to(items.dtype)
            scored = p.gather(1, target.unsqueeze(1))
            if not as_they_are:  # a softmax does not feel a shift, which costs two passes over the scores
                largest = p.amax(dim=1, keepdim=True)
                p, scored = p.sub_(largest), scored - largest
            mass = p.exp_().sum(dim=1, keepdim=True)
            total += ((mass.log() - scored) * each).sum()
            # d loss / d scores = (p / mass - one-hot) weight: both factors are applied on the side of length dim
            share, own, p = each / mass, items.index_select(0, target), p.to(kind)
            grad.copy_(frozen_linear(p, columns).to(items.dtype).mul_(share).sub_(own.mul_(each)))
            grad_columns += frozen_linear((chunk * share).T.contiguous().to(kind), p.T)
        grad_items = grad_columns.T.contiguous().index_add_(0, positive, queries * weight, alpha=-1)
        ctx.save_for_backward(grad_queries[:count], grad_items)
        return total

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_queries, grad_items = ctx.saved_tensors
        return grad_queries * grad[0], grad_items * grad[0], None, None


class _SampledSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        own: Tensor,
        others: Tensor,
        positive: Tensor,
        sampled: Tensor,
        own_shift: Tensor,
        shift: Tensor,
    ) -> Tensor:
        count, more = len(queries), -len(queries) % _MULTIPLE
        queries, own = (F.pad(one, (0, 0, 0, more)) for one in (queries, own))
        positive, own_shift = (F.pad(one, (0, more)) for one in (positive, own_shift))
        weight = queries.new_full((len(queries), 1), 1 / max(1, count))
        weight[count:] = 0.0
        grad_queries, grad_own = torch.empty_like(queries), torch.empty_like(own)
        rows, columns = _rows_of_a_chunk(len(others)), others.T.contiguous()
        grad_columns = torch.zeros_like(columns)
        total = queries.new_zeros(())
        for chunk, mine, target, mine_shift, each, to_queries, to_own in zip(
            *(part.split(rows) for part in (queries, own, positive, own_shift, weight, grad_queries, grad_own)),
            strict=True,
        ):
            p = frozen_linear(chunk, others).sub_(shift)
            p.masked_fill_(target.unsqueeze(1) == sampled, -torch.inf)
            scored = (chunk * mine).sum(dim=1, keepdim=True) - mine_shift.unsqueeze(1)
            largest = torch.maximum(p.amax(dim=1, keepdim=True), scored)
            scored -= largest
            mass = p.sub_(largest).exp_().sum(dim=1, keepdim=True) + scored.exp()
            total += ((mass.log() - scored) * each).sum()
            share = each / mass
            pull = share * scored.exp() - each  # d loss / d own score
            to_queries.copy_(frozen_linear(p, columns).mul_(share).add_(mine * pull))
            to_own.copy_(chunk * pull)
            grad_columns += frozen_linear((chunk * share).T.contiguous(), p.T)
        ctx.save_for_backward(grad_queries[:count], grad_own[:count], grad_columns.T.contiguous())
        return total

    @staticmethod
    def backward(ctx: Any, *grad: Tensor) -> tuple[Tensor | None, ...]:
        return *(one * grad[0] for one in ctx.saved_tensors), None, None, None, None
