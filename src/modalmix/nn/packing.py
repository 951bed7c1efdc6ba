"""Right-padded sequences without their padding: what works on single positions need not compute it."""

from collections.abc import Callable, Iterator
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

_SHORTEST = 8  # sequences up to this length are of like length; the next group ends at twice as much


@final
class Packing:
    """Where the real positions of a batch of sequences are. Packed rows run over sequences, then positions."""

    def __init__(self, real: Bool[Tensor, "batch length"]) -> None:
        self.shape = real.shape
        self.lengths: Int[Tensor, " batch"] = real.sum(dim=1)
        self.rows: Int[Tensor, " positions"] = real.flatten().nonzero().squeeze(1)

    def pack(self, x: Tensor) -> Tensor:
        """The real positions of x [batch, length, ...]: [positions, ...]."""
        return x.flatten(0, 1).index_select(0, self.rows)

    def unpack(self, x: Float[Tensor, "positions dim"]) -> Float[Tensor, "batch length dim"]:
        """The sequences again; padding is zeros."""
        batch, length = self.shape
        return x.new_zeros(batch * length, x.shape[1]).index_copy(0, self.rows, x).view(batch, length, x.shape[1])

    @property
    def place(self) -> Int[Tensor, " positions"]:
        """The position of each packed row in its sequence, 0 is the oldest."""
        return self.rows % self.shape[1]

    def by_sequence(
        self,
        function: Callable[[Float[Tensor, "some longest dim"]], Float[Tensor, "some longest out"]],
        x: Float[Tensor, "positions dim"],
    ) -> Float[Tensor, "positions out"]:
        """What `function` makes of right-padded sequences, which it gets in groups of like length.

        Most histories are much shorter than the longest: together they would be mostly padding. Padding holds any
        value, and what the function gives there is left out.
        """
        rows, outputs = [], []
        for place, real in self._groups():
            padded = x.index_select(0, place.flatten()).view(*place.shape, x.shape[1])
            outputs.append(function(padded).flatten(0, 1)[real.flatten()])
            rows.append(place[real])
        return torch.empty_like(torch.cat(outputs)).index_copy(0, torch.cat(rows), torch.cat(outputs))

    def _groups(self) -> Iterator[tuple[Int[Tensor, "some longest"], Bool[Tensor, "some longest"]]]:
        """Packed rows of sequences of 1..8, 9..16, 17..32, ... items, row 0 in place of padding; and which are real."""
        start, longest, shorter = self.lengths.cumsum(0) - self.lengths, _SHORTEST, 0
        while shorter < self.shape[1]:
            chosen = ((self.lengths > shorter) & (self.lengths <= longest)).nonzero().squeeze(1)
            if len(chosen):
                lengths = self.lengths[chosen].unsqueeze(1)
                step = torch.arange(int(lengths.max()), device=lengths.device)
                real = step < lengths
                yield (start[chosen].unsqueeze(1) + step).masked_fill(~real, 0), real
            shorter, longest = longest, 2 * longest


def last_positions(
    x: Float[Tensor, "batch length dim"], real: Bool[Tensor, "batch length"]
) -> Float[Tensor, "batch dim"]:
    """x at the last real position of each sequence. Each has one."""
    place = real.sum(dim=1) - 1
    return x[torch.arange(len(x), device=x.device), place]
