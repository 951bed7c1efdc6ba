"""Item vectors with positions through a causal Transformer: the encoder that sequential recommenders share."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from modalmix.nn.dropout import FastDropout
from modalmix.nn.packing import Packing
from modalmix.nn.transformer import CausalTransformer


@final
class PositionedTransformer(nn.Module):
    """S = Transformer(Dropout(LN(x_1 + p_1, ..., x_n + p_n))), p one learned vector a position, 0 is the oldest item.

    Source: Kang & McAuley 2018 (SASRec), LayerNorm after each residual and after the input.
    """

    def __init__(
        self, length: int, dim: int, layers: int, heads: int, hidden: int, dropout: float, attention_dropout: float
    ) -> None:
        """`length`: of the longest sequence."""
        super().__init__()
        self.positions = nn.Parameter(torch.randn(length, dim) * 0.02)
        self.norm = nn.LayerNorm(dim)
        self.dropout = FastDropout(dropout)
        self.transformer = CausalTransformer(dim, layers, heads, hidden, dropout, attention_dropout)

    def forward(self, x: Float[Tensor, "positions dim"], packing: Packing) -> Float[Tensor, "positions dim"]:
        """The state after each packed position."""
        placed = x + self.positions.index_select(0, packing.place)
        return torch.as_tensor(self.transformer(self.dropout(self.norm(placed)), packing))
