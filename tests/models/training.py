"""Training a model without the trainer, and what tests of several models ask of cold items and of bad catalogues."""

from collections.abc import Callable
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from modalmix.data.catalog import Catalog
from modalmix.data.split import TrainData
from modalmix.errors import ModelError
from modalmix.models.contract import GradientRecommender, Query, Recommender
from modalmix.models.contract.taught import TaughtRecommender
from tests.models.conftest import Correlation, Shop


def train(
    built: GradientRecommender[Any],
    data: TrainData,
    epochs: int,
    size: int = 256,
    rng: np.random.Generator | None = None,
) -> None:
    """Some epochs at a constant learning rate. Without `rng`, each epoch draws with a generator of its own."""
    optimizer = built.optimizer()
    for epoch in range(epochs):
        built.start_epoch(epoch + 1)
        for batch in built.batches(data, size, rng or np.random.default_rng(epoch)):
            optimizer.zero_grad()
            torch.stack(list(built.loss(batch).values())).sum().backward()
            optimizer.step()


def cold_items_follow_content(
    built: Recommender[Any], data: TrainData, correlation: Correlation, at_least: float
) -> None:
    """Users score the cold items nearest to their own items above the farthest."""
    scores = built.scorer(data.catalog)(Query(users=torch.arange(data.n_users))).numpy()
    cold = int((~data.warm).sum())
    assert correlation(data, scores[:, -cold:]) > at_least


def cold_items_are_content_alone(built: TaughtRecommender[Any], data: TrainData) -> None:
    """An added item scores as the cold one it is a copy of, and the teacher's item vectors do not matter."""
    everyone = Query(users=torch.arange(40))
    features = {name: m.matrix(np.array([26])) for name, m in data.catalog.modalities.items()}
    scores = built.scorer(data.catalog.extend(pl.DataFrame({"item": [1000]}), features))(everyone)
    torch.testing.assert_close(scores[:, 30], scores[:, 26])
    with torch.no_grad():
        built.teacher_items += 1.0
    torch.testing.assert_close(built.scorer(data.catalog)(everyone)[:, 24:], scores[:, 24:30])


def users_without_events_get_zeros(model: Callable[..., Recommender[Any]], content_shop: Shop) -> None:
    """A user who met nothing scores zero everywhere."""
    data = content_shop()
    data = TrainData(data.users, data.catalog, data.interactions.take(data.interactions.user != 7))
    assert not model(data).scorer(data.catalog)(Query(users=torch.arange(40)))[7].any()


def refuses_bad_catalogues(model: Callable[..., Recommender[Any]], content_shop: Shop) -> None:
    """An unknown modality, none at all, and a catalogue without the training items are errors that say so."""
    data = content_shop()
    with pytest.raises(ModelError, match="Did you mean 'image'"):
        model(data, modalities=("imgae",))
    with pytest.raises(ModelError, match="no modality"):
        model(TrainData(data.users, Catalog(data.catalog.items), data.interactions))
    with pytest.raises(ModelError, match="training items first"):
        model(data).scorer(content_shop(items=29).catalog)


def refuses_bad_modalities(model: Callable[..., Recommender[Any]], content_shop: Shop) -> None:
    """A modality of another name, and one that no warm item has, are errors that say so."""
    with pytest.raises(ModelError, match="Did you mean 'text'"):
        model(content_shop(), modalities=("texts",))
    with pytest.raises(ModelError, match="no item with a train interaction has modality 'image'"):
        model(content_shop(absent={"image": range(24)}))
