"""UniSRec: item vectors from content by a mixture of whitening experts, read by a Transformer (Hou et al., KDD 2022).

w_k(x) = W_k (x - b_k),  f(x) = sum_k g_k w_k(x),  g = softmax(x W_g + noise * softplus(x W_n)),  v_i = sum_m f_m(x_i^m)
S = Transformer(v_(i_1) + p_1, ..., v_(i_n) + p_n);  s(u,i) = <S_n, v_i> / (|S_n| |v_i| tau);  L = full softmax

Published for one text vector an item, which is the case of one modality; several have an adaptor f_m each, and what
they say is summed over those an item has. `ids` adds an id vector to v: the transductive form; without it the inductive
one. arXiv 2206.05941. Trained from scratch on one data set: no pre-training on other ones.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from modalmix.data.catalog import Catalog
from modalmix.models.contract.content import ModalityFeatures
from modalmix.models.contract.content_sequential import ContentSequentialConfig, ContentSequentialRecommender
from modalmix.models.contract.sequential import Items
from modalmix.nn.dropout import FastDropout
from modalmix.nn.features import unit_rows
from modalmix.nn.linear import frozen_linear

_BLOCK = 1 << 16  # items that an adaptor takes at once
_LEAST_NOISE = 1e-2


class UniSRecConfig(ContentSequentialConfig):
    """Settings of UniSRec. With `ids` it is the transductive form, without the inductive one."""

    experts: int = Field(8, ge=1)
    """Whitening experts of each modality's adaptor."""
    noise: bool = True
    """Whether the gate is noisy in training."""
    adaptor_dropout: float = Field(0.2, ge=0, lt=1)
    """Share of feature values that experts do not see, in training."""
    similarity: Literal["cosine", "inner"] = "cosine"
    """Score: the cosine over `temperature`, or the inner product itself."""
    temperature: float = Field(0.07, gt=0)
    """Temperature of the cosines."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "dim": 300,
            "init_std": 0.02,
            "id_init": "normal",
            "dropout": 0.5,
            "attention_dropout": 0.5,
            "standardize": False,
            "training": "prefixes",
            "batch_size": 2048,
            "lr": 1e-3,
            "lr_decay": "none",
            "weight_decay": 0.0,
            "epochs": 300,
            "patience": 10,
            "eval_every": 1,
        }
    }
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "one-expert": {"experts": 1},
        "no-noise": {"noise": False},
        "inductive": {"ids": False},
    }


@final
class WhiteningExperts(nn.Module):
    """f(x) = sum_k g_k W_k (x - b_k): parametric whitening, weighed by a dense noisy gate.

    g = softmax(x W_g + n * (softplus(x W_n) + .01)), n ~ N(0, 1) in training, 0 else. W_g, W_n and b start at 0, W_k at
    N(0, .02). The features are frozen: x gets no gradient. Source: UniSRec, and Shazeer et al. 2017 for the gate.
    """

    def __init__(self, features: int, dim: int, experts: int, dropout: float, noise: bool) -> None:
        """`dropout`: of the experts' features, alike for all of them; the gate sees everything."""
        super().__init__()
        self.weight = nn.Parameter(torch.randn(experts, dim, features) * 0.02)
        self.shift = nn.Parameter(torch.zeros(experts, features))
        self.gate = nn.Parameter(torch.zeros(experts, features))
        self.noise = nn.Parameter(torch.zeros(experts, features)) if noise else None
        self.dropout = FastDropout(dropout)

    def forward(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows dim"]:
        return torch.cat([self._mix(part) for part in x.split(_BLOCK)])

    def gates(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows experts"]:
        """g: rows sum to 1."""
        logits = frozen_linear(x, self.gate)
        if self.noise is not None and self.training:
            deviation = F.softplus(frozen_linear(x, self.noise)) + _LEAST_NOISE
            logits = logits + torch.randn_like(logits) * deviation
        return logits.softmax(dim=1)

    def _mix(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows dim"]:
        experts, dim, _ = self.weight.shape
        said = frozen_linear(self.dropout(x), self.weight.flatten(0, 1)).view(len(x), experts, dim)
        shifted = said - torch.einsum("kdf,kf->kd", self.weight, self.shift)
        return torch.einsum("rk,rkd->rd", self.gates(x), shifted)


@final
class UniSRec(ContentSequentialRecommender[UniSRecConfig]):
    """An adaptor a modality, an id table where it is asked for, a causal Transformer."""

    def projection(self, modality: ModalityFeatures) -> WhiteningExperts:
        """The adaptor of a modality."""
        config = self.config
        return WhiteningExperts(modality.width, config.dim, config.experts, config.adaptor_dropout, config.noise)

    def items(self, catalog: Catalog) -> Items:
        """v on both sides, as an output of length 1 / tau with cosines."""
        items = super().items(catalog)
        if self.config.similarity == "inner":
            return items
        return Items(items.inputs, unit_rows(items.outputs) / self.config.temperature)

    def states(self, history: Int[Tensor, "batch length"], items: Items) -> Float[Tensor, "batch length dim"]:
        """S, of length 1 with cosines; zeros at padding."""
        states = super().states(history, items)
        return states if self.config.similarity == "inner" else F.normalize(states, dim=2)
