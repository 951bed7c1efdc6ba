"""SASRec whose item vectors are an id vector plus linear maps of content: the plain way to add content to it.

v_i = id_i + sum_m (W_m x_i^m + b_m), over the modalities that i has;  S = Transformer(v + p),  s(u,i) = <S_n, v_i>
L = mean over all positions of -log softmax(<S_t, v>)[i_(t+1)]

Without `ids` items are their content alone. With `whiten` the maps read whitened principal components of the features.
SASRec: Kang & McAuley 2018; the sum is the usual baseline of multimodal sequential recommenders.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, final

from torch import nn

from modalmix.models.contract.content import ModalityFeatures
from modalmix.models.contract.content_sequential import ContentSequentialConfig, ContentSequentialRecommender
from modalmix.nn.linear import FeatureLinear


class SASRecContentConfig(ContentSequentialConfig):
    """Settings of SASRec with content."""

    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {"no-ids": {"ids": False}}


@final
class SASRecContent(ContentSequentialRecommender[SASRecContentConfig]):
    """An id table where it is asked for, a linear map a modality, a causal Transformer."""

    def projection(self, modality: ModalityFeatures) -> FeatureLinear:
        """W_m and b_m: they start at N(0, .02) and 0."""
        linear = FeatureLinear(modality.width, self.config.dim)
        nn.init.normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)
        return linear
