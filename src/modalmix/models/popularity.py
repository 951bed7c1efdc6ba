"""Popularity: every user is shown what most users met.

s(u,i) = number of train events of item i. An item without one scores 0.
"""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from modalmix.data.catalog import Catalog
from modalmix.data.split import TrainData
from modalmix.models.contract import ClosedFormRecommender, ModelConfig, Query


class PopularityConfig(ModelConfig):
    """Popularity has no settings."""


@final
class Popularity(ClosedFormRecommender[PopularityConfig]):
    """Counts of the train events."""

    degree: Float[Tensor, " items"]

    def fit(self, data: TrainData) -> None:
        """Count."""
        self.register_buffer("degree", torch.from_numpy(data.interactions.item_degree).float())

    def scorer(self, catalog: Catalog) -> "PopularityScorer":
        """The same scores for every query. Raises ModelError for another catalogue."""
        self.check_extends(catalog)
        return PopularityScorer(torch.nn.functional.pad(self.degree, (0, len(catalog) - self.n_items)))


@final
class PopularityScorer:
    """One row of scores for users and histories alike."""

    def __init__(self, scores: Float[Tensor, " items"]) -> None:
        self.scores = scores

    def __call__(self, query: Query) -> Float[Tensor, "batch items"]:
        """A copy of the row for each query, so that a caller may write into it."""
        return self.scores.repeat(len(query), 1)
