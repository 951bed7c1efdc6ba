"""A split, and the only views of it that training, validation and testing get to see."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool

from modalmix.data.catalog import Catalog
from modalmix.data.dataset import Dataset
from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.data.sequences import Sequences
from modalmix.files import sha256_values

IN_ORDER = ("leave-last-two-out", "global-time")
"""Kinds of split whose parts follow each other: of each user, or of all."""


@dataclass(frozen=True, eq=False)
class TrainData:
    """What a model may learn from: train interactions and the content of the catalogue. No held-out row is in here."""

    users: IdMap
    catalog: Catalog
    interactions: Interactions

    @property
    def n_users(self) -> int:
        """Number of users, those without a train event included."""
        return len(self.users)

    @property
    def n_items(self) -> int:
        """Number of items, cold ones included."""
        return len(self.catalog)

    @cached_property
    def warm(self) -> Bool[np.ndarray, " items"]:
        """Items with at least one train interaction; the others are cold."""
        return self.interactions.item_degree > 0

    @cached_property
    def sequences(self) -> Sequences:
        """Train items of each user in time order."""
        return Sequences.of(self.interactions)

    @cached_property
    def sha256(self) -> str:
        """Content hash of interactions and catalogue."""
        return sha256_values(self.interactions.sha256, self.catalog.sha256)


@dataclass(frozen=True, eq=False)
class Holdout:
    """Held-out interactions to rank against, with what is needed to mask and to group.

    `seen` are the events known at that time: train at validation, train + validation at test. `train` is always train.
    `in_order` says that what is seen came before what is held out, so that scores may follow it.
    """

    name: str
    positives: Interactions
    seen: Interactions
    train: Interactions
    catalog: Catalog
    users: IdMap
    in_order: bool = False

    @cached_property
    def warm(self) -> Bool[np.ndarray, " items"]:
        """Items with at least one train interaction."""
        return self.train.item_degree > 0

    @cached_property
    def sequences(self) -> Sequences:
        """What each user has met by then, in time order: train items at validation, train and validation at test."""
        return Sequences.of(self.seen)


@dataclass(frozen=True, eq=False)
class Split:
    """Train, validation and test events of a data set.

    `kind` and `settings` say how it was made, so that it can be made again. `cold_split` is True where items were held
    out whole, so that pools matter. `report` counts what splitting met: tied times, cold items, users left whole.
    """

    dataset: Dataset
    train: Interactions
    valid: Interactions
    test: Interactions
    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    cold_split: bool = False
    report: dict[str, int] = field(default_factory=dict)

    def train_data(self) -> TrainData:
        """What training sees."""
        return TrainData(self.dataset.users, self.dataset.catalog, self.train)

    def validation(self) -> Holdout:
        """What selection, early stopping and search may look at."""
        return self._holdout("valid", self.valid, self.train)

    def testing(self) -> Holdout:
        """What only `evaluate` opens, and counts."""
        return self._holdout("test", self.test, self.train + self.valid)

    def _holdout(self, name: str, positives: Interactions, seen: Interactions) -> Holdout:
        dataset = self.dataset
        return Holdout(name, positives, seen, self.train, dataset.catalog, dataset.users, self.kind in IN_ORDER)

    @cached_property
    def sha256(self) -> str:
        """Content hash of the three parts."""
        return sha256_values(self.train.sha256, self.valid.sha256, self.test.sha256)
