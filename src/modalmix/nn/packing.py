"""Right-padded sequences without their padding: what works on single positions need not compute it."""

from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@final
class Packing:
    """Where the real positions of a batch of sequences are. Packed rows run over sequences, then positions."""

    def __init__(self, real: Bool[Tensor, "batch length"]) -> None:
        self.shape = real.shape
        self.rows: Int[Tensor, " positions"] = real.flatten().nonzero().squeeze(1)

    def pack(self, x: Float[Tensor, "batch length *dim"]) -> Float[Tensor, "positions *dim"]:
        """The real positions of x."""
        return x.flatten(0, 1).index_select(0, self.rows)

    def unpack(self, x: Float[Tensor, "positions dim"]) -> Float[Tensor, "batch length dim"]:
        """The sequences again; padding is zeros."""
        batch, length = self.shape
        return x.new_zeros(batch * length, x.shape[1]).index_copy(0, self.rows, x).view(batch, length, x.shape[1])

    @property
    def place(self) -> Int[Tensor, " positions"]:
        """The position of each packed row in its sequence, 0 is the oldest."""
        return self.rows % self.shape[1]


def last_positions(
    x: Float[Tensor, "batch length dim"], real: Bool[Tensor, "batch length"]
) -> Float[Tensor, "batch dim"]:
    """x at the last real position of each sequence. Each has one."""
    place = real.sum(dim=1) - 1
    return x[torch.arange(len(x), device=x.device), place]
