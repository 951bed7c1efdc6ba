"""SASRec whose item vectors are an id vector plus linear maps of content: the plain way to add content to it.

v_i = id_i + sum_m (W_m x_i^m + b_m), over the modalities that i has;  S = Transformer(v + p),  s(u,i) = <S_n, v_i>
L = mean over all positions of -log softmax(<S_t, v>)[i_(t+1)]

Without `ids` items are their content alone. With `whiten` the maps read whitened principal components of the features.
SASRec: Kang & McAuley 2018; the sum is the usual baseline of multimodal sequential recommenders.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from modalmix.models.contract.content import ModalityFeatures
from modalmix.models.contract.content_sequential import ContentSequentialConfig, ContentSequentialRecommender
from modalmix.nn.components import whitening
from modalmix.nn.linear import frozen_linear


class SASRecContentConfig(ContentSequentialConfig):
    """Settings of SASRec with content."""

    whiten: int = Field(0, ge=0)
    """Whitened principal components of each modality that are read, at most; 0: the features as they are."""

    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {"no-ids": {"ids": False}}


@final
class ContentMap(nn.Module):
    """W z + b of frozen features x, z = x or their whitened components (x - m) A / sqrt(k), of mean square length 1.

    Components are taken as one product, (W Aᵀ / sqrt(k)) (x - m) + b: no whitened copy of the features is kept. m and A
    are saved with the model. W starts at N(0, .02), b at 0.
    """

    mean: Float[Tensor, " features"] | None
    directions: Float[Tensor, "features found"] | None

    def __init__(self, modality: ModalityFeatures, warm: Bool[Tensor, " items"], dim: int, components: int) -> None:
        """`components`: at most so many, learnt from the warm items; 0 for z = x."""
        super().__init__()
        mean, directions, wide = None, None, modality.dim
        if components:
            mean, directions = whitening(modality.x[warm & modality.present], components)
            wide = directions.shape[1]
            mean, directions = mean.float(), (directions / max(1, wide) ** 0.5).float()
        self.register_buffer("mean", mean)
        self.register_buffer("directions", directions)
        self.weight = nn.Parameter(torch.randn(dim, wide) * 0.02)
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Float[Tensor, "items features"]) -> Float[Tensor, "items dim"]:
        if self.mean is None or self.directions is None:
            return frozen_linear(x, self.weight) + self.bias
        weight = self.weight @ self.directions.T
        return frozen_linear(x, weight) + (self.bias - weight @ self.mean)


@final
class SASRecContent(ContentSequentialRecommender[SASRecContentConfig]):
    """An id table where it is asked for, a linear map a modality, a causal Transformer."""

    def projection(self, modality: ModalityFeatures) -> ContentMap:
        """The map of a modality."""
        return ContentMap(modality, self.warm, self.config.dim, self.config.whiten)
