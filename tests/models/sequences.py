"""Histories and catalogues for the tests of sequential models, and what several check: causality, padding, the loss."""

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from modalmix.data.catalog import Catalog
from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.data.split import TrainData
from modalmix.models.contract.sequential import SequentialRecommender, Steps

HISTORY = torch.tensor([[0, 4, 8, 2], [9, 3, -1, -1], [5, -1, -1, -1]])
TARGETS = torch.tensor([[4, 8, 2, 7], [3, 1, -1, -1], [6, -1, -1, -1]])
NAMES = ("hats", "shoes", "socks")


def ring() -> TrainData:
    """Everybody walks round a ring of eight items: what comes next is the next item."""
    item = (np.repeat(np.arange(24) % 8, 6) + np.tile(np.arange(6), 24)) % 8
    events = Interactions(np.repeat(np.arange(24), 6).astype(np.int32), item.astype(np.int32), 24, 8)
    return TrainData(IdMap(list(range(24)), "user"), Catalog(IdMap(list(range(8)))), events)


def with_days(data: TrainData) -> TrainData:
    """The same data with each event a day after the one before."""
    seconds = 1_500_000_000 + 86_400 * np.arange(len(data.interactions), dtype=np.int64)
    return replace(data, interactions=replace(data.interactions, time=seconds))


def with_categories(data: TrainData, values: list[Any]) -> TrainData:
    """The same data with these categories of its items."""
    table = pl.DataFrame({"item": data.catalog.items.series, "categories": values})
    return replace(data, catalog=Catalog(data.catalog.items, data.catalog.modalities, table))


def several(k: int) -> list[str] | None:
    """One or two categories for item k, none for every fifth."""
    return None if k % 5 == 4 else [NAMES[k % 3]] + (["sale"] if k % 2 else [])


@torch.no_grad()
def check_causality(built: SequentialRecommender[Any], history: Tensor) -> None:
    """Another fourth item in the first history changes its states from there on, and nothing else."""
    items, changed = built.items(built.train_catalog), history.clone()
    changed[0, 3] = 7  # an item of every shop here, and another than before
    before, after = built.states(history, items), built.states(changed, items)
    assert torch.equal(after[0, :3], before[0, :3])
    assert not any(torch.allclose(*states) for states in zip(after[0, 3:], before[0, 3:], strict=True))
    assert torch.equal(after[1:], before[1:])


@torch.no_grad()
def check_padding(built: SequentialRecommender[Any], history: Tensor) -> None:
    """The second history, of two items, has the states it has without padding, and zeros after them."""
    items = built.items(built.train_catalog)
    states = built.states(history, items)
    torch.testing.assert_close(built.states(history[1:2, :2], items)[0], states[1, :2])
    assert not states[1, 2:].any()


@torch.no_grad()
def check_softmax_loss(built: SequentialRecommender[Any], candidates: Tensor) -> None:
    """The loss is the cross-entropy over `candidates`, the vectors of the warm items, at every position."""
    states = built.states(HISTORY, built.items(built.train_catalog))
    expected = F.cross_entropy(states[TARGETS >= 0] @ candidates.T, TARGETS[TARGETS >= 0])
    torch.testing.assert_close(built.loss(Steps(HISTORY, TARGETS))["softmax"], expected)
