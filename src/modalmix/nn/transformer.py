"""A causal Transformer over right-padded sequences that computes single positions packed, without their padding."""

from typing import Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from modalmix.nn.dropout import FastDropout
from modalmix.nn.dyt import DynamicTanh
from modalmix.nn.packing import Packing

Order = Literal["post", "pre"]
Activation = Literal["gelu", "relu"]
Norm = Literal["layer", "dyt"]
NORMS = {"layer": nn.LayerNorm, "dyt": DynamicTanh}
_MULTIPLE = 128


@final
class RowsGELU(nn.Module):
    """GELU of rows whose number changes from batch to batch: oneDNN would keep a kernel for each new number."""

    def forward(self, x: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows dim"]:
        return F.gelu(F.pad(x, (0, 0, 0, -len(x) % _MULTIPLE)))[: len(x)]


ACTIVATIONS: dict[Activation, type[nn.Module]] = {"gelu": RowsGELU, "relu": nn.ReLU}


@final
class CausalAttention(nn.Module):
    """Scaled dot-product attention in `heads` heads: each position looks at itself and at earlier ones.

    A(Q, K, V) = softmax(Q K' / sqrt(dim / heads)) V,  Q, K, V = X W_Q, X W_K, X W_V;  heads concatenated, times W_O
    Padding stands right of everything real, so that the causal mask hides it too. Source: Vaswani et al. 2017.
    """

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        """`dropout` is that of the attention weights. Raises ValueError unless heads divide dim."""
        super().__init__()
        if dim % heads:
            raise ValueError(f"dim {dim} is no multiple of {heads} heads")
        self.heads, self.dropout = heads, dropout
        self.query_key_value = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Float[Tensor, "positions dim"], packing: Packing) -> Float[Tensor, "positions dim"]:
        return self.output(packing.by_sequence(self._attend, self.query_key_value(x)))

    def _attend(self, mixed: Float[Tensor, "batch length three_dim"]) -> Float[Tensor, "batch length dim"]:
        query, key, value = mixed.unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)
        return attended.transpose(1, 2).flatten(2)


@final
class TransformerLayer(nn.Module):
    """Attention, then a network on each position, each with dropout, a residual and a LayerNorm.

    order="post": x = LN(x + Dropout(f(x)));  "pre": x = x + Dropout(f(LN(x)));  f is attention, then
    FFN(x) = act(x W_1 + b_1) W_2 + b_2 with dropout after the activation.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        dropout: float,
        attention_dropout: float,
        order: Order = "post",
        activation: Activation = "gelu",
        norm: Norm = "layer",
    ) -> None:
        super().__init__()
        self.order = order
        self.attention = CausalAttention(dim, heads, attention_dropout)
        self.network = nn.Sequential(
            nn.Linear(dim, hidden), ACTIVATIONS[activation](), FastDropout(dropout), nn.Linear(hidden, dim)
        )
        self.norms = nn.ModuleList(NORMS[norm](dim) for _ in range(2))
        self.dropout = FastDropout(dropout)

    def forward(self, x: Float[Tensor, "positions dim"], packing: Packing) -> Float[Tensor, "positions dim"]:
        before_attention, before_network = self.norms
        if self.order == "pre":
            x = x + self.dropout(self.attention(before_attention(x), packing))
            return x + self.dropout(self.network(before_network(x)))
        x = before_attention(x + self.dropout(self.attention(x, packing)))
        return torch.as_tensor(before_network(x + self.dropout(self.network(x))))


@final
class CausalTransformer(nn.Module):
    """Transformer layers, one after another, with a last LayerNorm where the layers have theirs before (order="pre").

    Weights start at N(0, .02), biases at 0, as the sequential recommenders' codes have them.
    """

    def __init__(
        self,
        dim: int,
        layers: int,
        heads: int,
        hidden: int,
        dropout: float,
        attention_dropout: float = 0.0,
        order: Order = "post",
        activation: Activation = "gelu",
        norm: Norm = "layer",
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TransformerLayer(dim, heads, hidden, dropout, attention_dropout, order, activation, norm)
            for _ in range(layers)
        )
        self.last = NORMS[norm](dim) if order == "pre" else nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x: Float[Tensor, "positions dim"], packing: Packing) -> Float[Tensor, "positions dim"]:
        """States of the packed positions."""
        for layer in self.layers:
            x = layer(x, packing)
        return torch.as_tensor(self.last(x))
