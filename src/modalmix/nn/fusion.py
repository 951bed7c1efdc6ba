"""The weighted sum of an item's modality vectors, and how far each of them is from it."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_ROWS = 512  # rows at a time, so that everything between reading and writing stays in the cache


def fuse(
    parts: Float[Tensor, "rows modalities dim"],
    weights: Float[Tensor, "rows modalities"],
    present: Bool[Tensor, "rows modalities"],
) -> tuple[Float[Tensor, "rows dim"], Float[Tensor, ""]]:
    """h = sum_m w_m h_m, and L_align = sum over m of the mean squared error between h and h_m over rows that have m.

    MAMEX (arXiv 2508.08042). No gradient is stopped. For two modalities L_align = mean[(w_1^2 + w_2^2)(h_1 - h_2)^2].
    """
    share = present.to(parts.dtype) / (present.sum(dim=0).clamp(min=1) * parts.shape[2])
    return _Fuse.apply(parts, weights, share)


class _Fuse(torch.autograd.Function):
    """With e_m = h - h_m and a_m its share in the mean: L = sum a_m |e_m|^2, dL/d e_m = 2 a_m e_m."""

    @staticmethod
    def forward(ctx: Any, parts: Tensor, weights: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
        vectors, error = parts.new_empty(len(parts), parts.shape[2]), parts.new_zeros(())
        for h, p, w, a in zip(*(x.split(_ROWS) for x in (vectors, parts, weights, share)), strict=True):
            torch.sum(w.unsqueeze(2) * p, dim=1, out=h)
            error += ((h.unsqueeze(1) - p).square_().sum(dim=2) * a).sum()
        ctx.save_for_backward(parts, weights, share, vectors)
        return vectors, error

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        parts, weights, share, vectors = ctx.saved_tensors
        grad_vectors, grad_error = grads
        grad_parts, grad_weights = torch.empty_like(parts), torch.empty_like(weights)
        everything = (grad_parts, grad_weights, grad_vectors, vectors, parts, weights, share)
        for gp, gw, g, h, p, w, a in zip(*(x.split(_ROWS) for x in everything), strict=True):
            ge = (h.unsqueeze(1) - p).mul_((2.0 * grad_error * a).unsqueeze(2))
            gh = (ge.sum(dim=1) + g).unsqueeze(1)
            torch.sum(gh * p, dim=2, out=gw)
            torch.mul(gh, w.unsqueeze(2), out=gp).sub_(ge)
        return grad_parts, grad_weights, None
