"""A model of about a thousand numbers with all that can go wrong in a checkpoint: dropout, an epoch-end latch that is a
buffer, tied parameters, two loss terms. It reports what it monitored. The tests train it by path, as a user would."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from modalmix.data.catalog import Catalog
from modalmix.data.split import TrainData
from modalmix.models.contract import DotScorer, GradientConfig, GradientRecommender, Triples


class Settings(GradientConfig):
    """Small enough to train in milliseconds."""

    dim: int = 8
    """Length of the vectors."""
    batch_size: int = 64
    """Examples a step."""
    epochs: int = 6
    """Most epochs."""
    lr: float = 0.05
    """Learning rate."""
    settle_at: int = 0
    """Epoch at whose end the latch closes."""


class Tiny(GradientRecommender[Settings]):
    """Matrix factorisation with dropout."""

    def __init__(self, config: Settings, data: TrainData) -> None:
        super().__init__(config, data)
        self.users = nn.Embedding(self.n_users, config.dim)
        self.items = nn.Embedding(self.n_items, config.dim)
        self.tied = self.items
        self.dropout = nn.Dropout(0.3)
        self.register_buffer("latch", torch.zeros((), dtype=torch.int64))
        self.met: list[Tensor] = []
        self.told: dict[str, float] = {}

    def start_epoch(self, epoch: int) -> None:
        self.met = []

    def loss(self, batch: Triples) -> Mapping[str, Tensor]:
        self.met.append(batch.negative.float().mean())
        user = self.dropout(self.users(batch.user))
        difference = self.items(batch.positive) - self.tied(batch.negative)
        bpr = -nn.functional.logsigmoid((user * difference).sum(dim=1)).mean()
        return {"bpr": bpr, "reg": self.config.reg * user.square().sum(dim=1).mean()}

    def monitored(self) -> Mapping[str, Tensor]:
        """Mean row of the negatives that this process drew."""
        return {"negative": torch.stack(self.met).mean()}

    def end_epoch(self, epoch: int, means: Mapping[str, float]) -> None:
        self.told = {"latch": float(self.latch), **means}
        if epoch >= self.config.settle_at and self.latch == 0:
            self.latch.fill_(epoch)

    def report(self) -> Mapping[str, float]:
        """The latch before the epoch's end, and all that `end_epoch` was given."""
        return self.told

    @property
    def settled(self) -> bool:
        return bool(self.latch > 0) or self.config.settle_at == 0

    def scorer(self, catalog: Catalog) -> DotScorer:
        self.check_extends(catalog)
        return DotScorer(self.users.weight, self.items.weight)
