"""Linear mean: one linear map a modality, averaged over the modalities an item has; the baseline MAMEX must beat."""

from collections.abc import Mapping
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from modalmix.data.split import TrainData
from modalmix.models.contract import Triples
from modalmix.models.contract.content import Content, ContentConfig, ContentRecommender
from modalmix.nn.linear import FeatureLinear


class ContentMeanConfig(ContentConfig):
    """Settings of the linear mean."""

    reg: float = 1e-6
    """Weight of the L2 penalty on the vectors of a batch."""


@final
class ContentMean(ContentRecommender[ContentMeanConfig]):
    """h = mean over the present modalities m of W_m x_m + b_m; score = <e_u, h_i>."""

    def __init__(self, config: ContentMeanConfig, data: TrainData) -> None:
        super().__init__(config, data)
        self.maps = nn.ModuleList(FeatureLinear(dim, config.dim) for dim in self.dims)

    def item_vectors(
        self, content: Content, rows: Int[Tensor, " rows"] | None
    ) -> tuple[Float[Tensor, "rows dim"], Bool[Tensor, " rows"]]:
        present = content.present if rows is None else content.present[rows]
        share = present / present.sum(dim=1, keepdim=True).clamp(min=1)
        vectors = torch.zeros((), device=present.device)
        for linear, x, weight in zip(self.maps, content.features, share.unbind(dim=1), strict=True):
            vectors = vectors + linear(x, rows) * weight.unsqueeze(1)
        return vectors, present.any(dim=1)

    def loss(self, batch: Triples) -> Mapping[str, Tensor]:
        """Terms "bpr" or "softmax", and "reg", weighted."""
        asked = self.asked(batch)
        return self.ranking_terms(batch, asked, *self.item_vectors(self.train_content, asked.rows))
