"""A linear map of features that are not trained: the product that content models spend their time in."""

from typing import Any, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from modalmix.nn.rows import round_up

# MKL takes its slow path on processors that are not Intel's: oneDNN is twice as fast there and equal elsewhere
_ONEDNN = torch.backends.mkldnn.is_available()


def frozen_linear(
    x: Float[Tensor, "rows features"], weight: Float[Tensor, "dim features"]
) -> Float[Tensor, "rows dim"]:
    """x Wᵀ in float32, differentiable in W only. x is float32 or bfloat16; the product is taken in the precision of x.

    x must not change before the backward pass: autograd raises RuntimeError when it does.
    """
    return _FrozenLinear.apply(x, weight)


class _FrozenLinear(torch.autograd.Function):
    """Y = X Wᵀ; dL/dW = (dL/dY)ᵀ X."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return times_transposed(x, weight.detach().to(x.dtype)).to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor]:
        (x,) = ctx.saved_tensors
        gradient = gradients[0].T.to(x.dtype).contiguous()
        return None, times_transposed(gradient, x.T).to(gradients[0].dtype)


def times_transposed(
    a: Float[Tensor, "rows inner"], b: Float[Tensor, "columns inner"]
) -> Float[Tensor, "rows columns"]:
    """a bᵀ, without gradients. For few shapes: oneDNN keeps a kernel for every new one."""
    # oneDNN takes no empty matrix
    if _ONEDNN and a.device.type == "cpu" and a.dtype == torch.float32 and a.numel() and b.numel():
        return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")
    return a @ b.T


@final
class FeatureLinear(nn.Linear):
    """A Linear with bias on features that are not trained: x gets no gradient."""

    def forward(
        self, x: Float[Tensor, "items features"], rows: Int[Tensor, " rows"] | None = None
    ) -> Float[Tensor, "rows dim"]:
        """x[rows] Wᵀ + b, of all of x without `rows`."""
        if rows is None:
            return frozen_linear(x, self.weight) + self.bias
        return frozen_linear(x.index_select(0, round_up(rows)), self.weight)[: len(rows)] + self.bias
