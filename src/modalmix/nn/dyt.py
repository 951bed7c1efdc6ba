"""Dynamic tanh: a normalisation without statistics."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn


@final
class DynamicTanh(nn.Module):
    """DyT(x) = gamma tanh(alpha x) + beta, alpha one scalar (Zhu et al. 2025, arXiv 2503.10622).

    It does not rescale: an input of deviation .028 leaves it at .014 (alpha .5), where LayerNorm would make it 1.
    """

    def __init__(self, dim: int, alpha: float = 0.5) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.tensor(alpha))
        self.gamma = nn.Parameter(torch.ones(dim))
        self.beta = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows dim"]:
        """The same shape."""
        return self.gamma * (self.alpha * x).tanh() + self.beta
