"""A split of a world with two tastes, the tiny model, and its training."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modalmix.data.catalog import Catalog
from modalmix.data.dataset import Dataset
from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.data.modality import Modality
from modalmix.data.split import Split
from modalmix.models.contract import ModelType, Recommender, find_model
from modalmix.train.loop import TrainResult, train
from modalmix.train.run import RunFolder
from modalmix.train.settings import TrainConfig

TINY = Path(__file__).parent / "tiny_model.py"


def two_tastes(seed: int = 0, n_users: int = 30, n_items: int = 40) -> Split:
    """Users of one parity like items of that parity; each has 8 train, 2 validation and 2 test items."""
    rng = np.random.default_rng(seed)
    liked = np.stack([rng.permutation(np.arange(user % 2, n_items, 2))[:12] for user in range(n_users)])
    users = np.repeat(np.arange(n_users, dtype=np.int32), 12)
    events = Interactions(users, liked.astype(np.int32).ravel(), n_users, n_items)
    place = np.tile(np.arange(12), n_users)
    features = rng.normal(size=(n_items, 5)).astype(np.float32)
    items = IdMap([f"i{row}" for row in range(n_items)])
    catalog = Catalog(items, {"image": Modality.from_matrix("image", features)})
    dataset = Dataset("two tastes", IdMap([f"u{row}" for row in range(n_users)], "user"), catalog, events)
    parts = [events.take(place < 8), events.take((place >= 8) & (place < 10)), events.take(place >= 10)]
    return Split(dataset, *parts, kind="given")


@pytest.fixture
def split() -> Split:
    return two_tastes()


@pytest.fixture
def other_split() -> Split:
    """Other events of the same users and items."""
    return two_tastes(seed=1)


@pytest.fixture
def other_features(split: Split) -> Split:
    """The same events, one changed number in the features."""
    matrix = np.array(split.dataset.catalog.modalities["image"].features)
    matrix[3, 2] += 1
    catalog = replace(split.dataset.catalog, modalities={"image": Modality.from_matrix("image", matrix)})
    return replace(split, dataset=replace(split.dataset, catalog=catalog))


@pytest.fixture(scope="session")
def tiny() -> ModelType:
    return find_model(str(TINY))


@pytest.fixture
def quiet() -> TrainConfig:
    return TrainConfig(device="cpu", progress=False)


@pytest.fixture
def train_tiny(
    split: Split, tiny: ModelType, quiet: TrainConfig
) -> Callable[..., tuple[Recommender[Any], TrainResult]]:
    """train_tiny(folder, validate, train settings, model settings...): the model and the result of the bare loop."""

    def run(
        folder: Path | None = None,
        validate: Callable[[Recommender[Any]], float] | None = None,
        config: TrainConfig = quiet,
        **settings: Any,
    ) -> tuple[Recommender[Any], TrainResult]:
        data = split.train_data()
        torch.manual_seed(7)
        model = tiny.recommender(tiny.config(**settings), data)
        if folder is not None:
            folder.mkdir(exist_ok=True)
        return model, train(model, data, config, validate, None if folder is None else RunFolder(folder, "run-1"))

    return run


@pytest.fixture
def same_bits() -> Callable[[Recommender[Any], Recommender[Any]], bool]:
    def same(one: Recommender[Any], other: Recommender[Any]) -> bool:
        ours, theirs = one.state_dict(), other.state_dict()
        return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)

    return same
