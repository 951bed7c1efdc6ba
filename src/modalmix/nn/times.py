"""When events happened, as vectors, and a mixture of experts that these choose among.

HM4SR (Zhang et al., WWW 2025, arXiv 2501.14269): buckets of the time since the event before, a cosine encoding of the
time itself, and a softmax over experts that are one weight a dimension.
"""

import math
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from modalmix.nn.packing import Packing

LONGEST_PERIOD = 10000.0


def intervals(times: Int[Tensor, " positions"], packing: Packing) -> Int[Tensor, " positions"]:
    """Time since the event before in the same sequence, at least 0; 0 for the first."""
    return (times - times.roll(1)).clamp(min=0).masked_fill(packing.place == 0, 0)


def buckets(interval: Int[Tensor, " positions"], scale: float) -> Int[Tensor, " positions"]:
    """floor(scale log2(interval + 1))."""
    return (scale * (interval + 1).double().log2()).floor().long()


@final
class TimeEncoding(nn.Module):
    """[v of the interval's bucket || cos((w_j (t - t_0) / unit + b_j) 10000^(-j / dim)), j = 0..dim-1]

    v, w and b are learned. An interval beyond the longest one has its bucket.
    """

    frequencies: Float[Tensor, " dim"]

    def __init__(self, dim: int, scale: float, longest: int, origin: int, unit: float) -> None:
        """`scale`: buckets each time the interval doubles. `longest`: interval there is. `origin`: t_0, of `unit`s
        time is counted in."""
        super().__init__()
        self.scale, self.origin, self.unit = scale, origin, unit
        self.buckets = nn.Embedding(math.floor(scale * math.log2(longest + 1)) + 1, dim)
        self.absolute = nn.Linear(1, dim)
        frequencies = LONGEST_PERIOD ** (-torch.arange(dim, dtype=torch.float32) / dim)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def forward(self, times: Int[Tensor, " positions"], packing: Packing) -> Float[Tensor, "positions two_dim"]:
        """Of packed positions."""
        bucket = buckets(intervals(times, packing), self.scale).clamp(max=self.buckets.num_embeddings - 1)
        since = ((times - self.origin).double() / self.unit).to(self.frequencies)  # exact before it is made small
        return torch.cat([self.buckets(bucket), torch.cos(self.absolute(since.unsqueeze(1)) * self.frequencies)], dim=1)


@final
class TemporalExperts(nn.Module):
    """e^m * sum_k r_k w_k^m element by element,  r = softmax_k(W_r time + b_r),  w_k^m learned vectors."""

    def __init__(self, modalities: int, dim: int, experts: int, time_dim: int) -> None:
        super().__init__()
        self.modalities = modalities
        self.route = nn.Linear(time_dim, experts)
        self.experts = nn.Parameter(torch.randn(experts, modalities * dim) * 0.1)

    def forward(
        self, e: Float[Tensor, "modalities positions dim"], time: Float[Tensor, "positions time_dim"]
    ) -> Float[Tensor, "modalities positions dim"]:
        """The modalities, weighted."""
        weights = self.routes(time) @ self.experts
        return e * weights.view(len(time), self.modalities, -1).transpose(0, 1)

    def routes(self, time: Float[Tensor, "positions time_dim"]) -> Float[Tensor, "positions experts"]:
        """r: rows sum to 1."""
        return self.route(time).softmax(dim=1)
