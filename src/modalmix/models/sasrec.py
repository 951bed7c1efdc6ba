"""SASRec: self-attention over what somebody met (Kang & McAuley 2018), trained with the full softmax.

x_t = e(i_t) + p_t,  S = Transformer(x_1, ..., x_n) with a causal mask,  s(u,i) = <S_n, e(i)>
L = mean over all positions of -log softmax(<S_t, e(.)>)[i_(t+1)]

One item table on both sides. Position 0 is the oldest item read. The default is the form today's codes have: LayerNorm
after each residual, GELU, full softmax. `paper` is the published one: LayerNorm before, ReLU, one drawn negative.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from modalmix.data.catalog import Catalog
from modalmix.data.split import TrainData
from modalmix.models.contract.initial import initial_items
from modalmix.models.contract.sequential import Items, SequentialRecommender, TransformerConfig
from modalmix.nn.dropout import FastDropout
from modalmix.nn.packing import Packing
from modalmix.nn.transformer import Activation, CausalTransformer, Order


class SASRecConfig(TransformerConfig):
    """Settings of SASRec."""

    order: Order = "post"
    """Where LayerNorm stands: post, after each residual and after the input; pre, before each part and at the end."""
    activation: Activation = "gelu"
    """The non-linearity of the networks."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "dim": 50,
            "init_std": 0.02,
            "layers": 2,
            "heads": 1,
            "hidden": 50,
            "order": "pre",
            "activation": "relu",
            "dropout": 0.5,
            "attention_dropout": 0.5,
            "loss": "bce",
            "long_histories": "last",
            "lr": 1e-3,
            "lr_decay": "none",
            "weight_decay": 0.0,
            "epochs": 200,
            "patience": 20,
            "eval_every": 1,
        }
    }


@final
class SASRec(SequentialRecommender[SASRecConfig]):
    """One item table, one position table, a causal Transformer."""

    def __init__(self, config: SASRecConfig, data: TrainData) -> None:
        super().__init__(config, data)
        start = initial_items(data, config.dim, config.init_std, config.id_init, config.init_modalities)
        self.table = nn.Parameter(start)
        self.positions = nn.Parameter(torch.randn(config.length, config.dim) * 0.02)
        self.norm = nn.LayerNorm(config.dim) if config.order == "post" else nn.Identity()
        self.dropout = FastDropout(config.dropout)
        self.transformer = CausalTransformer(
            config.dim,
            config.layers,
            config.heads,
            config.hidden,
            config.dropout,
            config.attention_dropout,
            config.order,
            config.activation,
        )

    def items(self, catalog: Catalog) -> Items:
        """The table, on both sides; a cold or new item has the mean vector of the warm ones."""
        table = self.known(self.table, catalog)
        return Items(table, table)

    def states(self, history: Int[Tensor, "batch length"], items: Items) -> Float[Tensor, "batch length dim"]:
        """S; zeros at padding."""
        packing = Packing(history >= 0)
        x = items.inputs.index_select(0, packing.pack(history)) + self.positions.index_select(0, packing.place)
        return packing.unpack(self.transformer(self.dropout(self.norm(x)), packing))
