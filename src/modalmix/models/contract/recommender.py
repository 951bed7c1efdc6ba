"""The abstract models."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from modalmix.data.catalog import Catalog
from modalmix.data.samplers import triples
from modalmix.data.split import TrainData
from modalmix.errors import ModelError
from modalmix.models.contract.query import Query, Scorer, Triples
from modalmix.models.contract.settings import ModelConfig

C = TypeVar("C", bound=ModelConfig)


class Recommender(nn.Module, ABC, Generic[C]):
    """A model. Indices are row numbers of the training data's users and items.

    `scorer(catalog)` takes the training catalogue or one that extends it (`Catalog.extend`): new items are rows below.
    """

    modalities: tuple[str, ...] = ()
    """Names of the modalities whose content the scores depend on; set by the constructor of a model that reads any."""

    def __init__(self, config: C, data: TrainData) -> None:
        super().__init__()
        self.config = config
        self.n_users, self.n_items = data.n_users, data.n_items
        self.train_items = data.catalog.items

    @abstractmethod
    def scorer(self, catalog: Catalog) -> Scorer:
        """Freeze: encode users and items once. Raises ModelError when `catalog` does not extend the training one."""

    def routing(self, query: Query, items: Int[Tensor, " items"]) -> Mapping[str, Tensor] | None:
        """Gate weights by name for these queries and items; None for a model that does not route."""
        return None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """No dropout and no gradients inside."""
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(was_training)

    def check_extends(self, catalog: Catalog) -> None:
        """Raise ModelError unless the training items are the first rows of `catalog`, in order."""
        if not catalog.items.extends(self.train_items):
            raise ModelError(
                "the catalogue",
                got=f"{len(catalog):,} other items",
                expected=f"the {self.n_items:,} training items first, in their order",
                fix="Add new items with Catalog.extend.",
            )


class ClosedFormRecommender(Recommender[C]):
    """A model learnt in one pass, without gradients. What `fit` learns are buffers, so that a run can save them."""

    @abstractmethod
    def fit(self, data: TrainData) -> None:
        """Learn. Registers buffers only."""

    def restore(self, buffers: Mapping[str, Tensor]) -> None:
        """Take back the buffers that an earlier `fit` registered."""
        for name, value in buffers.items():
            self.register_buffer(name, value)


class GradientRecommender(Recommender[C]):
    """A model trained by the loop. `config` is a GradientConfig."""

    config: Any

    @abstractmethod
    def loss(self, batch: Any) -> Mapping[str, Tensor]:
        """Named, weighted, scalar terms, e.g. {"bpr": ..., "balance/image": ...}; their sum is minimised."""

    def batches(self, data: TrainData, size: int, rng: np.random.Generator) -> Iterator[Any]:
        """One epoch of batches in random order: BPR triples with one fresh negative each, unless overridden."""
        for user, positive, negative in triples(data.interactions, size, rng, pool=self.negative_pool(data)):
            yield Triples(torch.from_numpy(user), torch.from_numpy(positive), torch.from_numpy(negative))

    def negative_pool(self, data: TrainData) -> Bool[np.ndarray, " items"]:
        """Items that may be drawn as negatives: the warm ones, unless overridden."""
        return data.warm

    def n_batches(self, data: TrainData, size: int) -> int:
        """Number of batches an epoch, for the progress bar."""
        return -(-len(data.interactions) // size)

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam over all parameters, fused."""
        return torch.optim.Adam(self.parameters(), lr=self.config.lr, fused=True)

    def lr_scale(self, epoch: int) -> float:
        """What the optimizer's learning rates are multiplied by in epoch 1, 2, ...: a function of the epoch alone."""
        return 1.0

    def prepare(self, data: TrainData) -> None:
        """Called, on the CPU, before training starts or goes on: fill the buffers it needs, e.g. a teacher's factors.

        The constructor registers them with their shapes. Persistent ones are saved with the weights; the others are
        there in training only. The same data gives the same bits. Nothing by default.
        """

    def start_epoch(self, epoch: int) -> None:
        """Called before epoch 1, 2, ...; nothing unless overridden."""

    def end_epoch(self, epoch: int, means: Mapping[str, float]) -> None:
        """Called after each epoch with the mean of each loss term, and what is `monitored`."""

    def monitored(self) -> Mapping[str, Tensor]:
        """Scalars of the epoch that ends, beside its losses; averaged over the processes, then given to `end_epoch`."""
        return {}

    def report(self) -> Mapping[str, float]:
        """What the training record keeps of the epoch, after `end_epoch`: metrics.jsonl, TensorBoard, the screen."""
        return {}

    @property
    def settled(self) -> bool:
        """Whether early stopping may count: a model with a training schedule says False until it is through."""
        return True
