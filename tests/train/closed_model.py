"""A model learnt in one pass: item popularity as a buffer. The tests fit it by path."""

import torch
from torch import Tensor

from modalmix.data.catalog import Catalog
from modalmix.data.split import TrainData
from modalmix.models.contract import ClosedFormRecommender, ModelConfig, Query, Scorer


class Settings(ModelConfig):
    """One setting."""

    power: float = 1.0
    """Exponent of popularity."""


class Counted(ClosedFormRecommender[Settings]):
    """Score = (train interactions of the item) ** power."""

    def fit(self, data: TrainData) -> None:
        counts = torch.from_numpy(data.interactions.item_degree).float()
        self.register_buffer("popularity", counts**self.config.power)

    def scorer(self, catalog: Catalog) -> Scorer:
        self.check_extends(catalog)

        def score(query: Query) -> Tensor:
            return self.popularity.expand(len(query), -1)

        return score
