"""SASRec: its equations, causality, padding, presets."""

from typing import Any

import numpy as np
import pytest
import torch

from modalmix.data import TrainData
from modalmix.models.contract import Query
from modalmix.models.sasrec import SASRec, SASRecConfig
from modalmix.nn.packing import Packing
from tests.models.sequences import check_causality, ring
from tests.models.training import train

HISTORY = torch.tensor([[3, 1, 4, 1, 5], [2, 6, -1, -1, -1], [0, -1, -1, -1, -1]])


@pytest.fixture
def data() -> TrainData:
    return ring()


def build(data: TrainData, **settings: Any) -> SASRec:
    torch.manual_seed(0)
    small = {"dim": 8, "length": 5, "hidden": 16, "init_std": 0.5, "dropout": 0.0}
    return SASRec(SASRecConfig.parse({**small, **settings}), data)


@pytest.mark.parametrize("order", ["post", "pre"])
def test_the_input_is_item_plus_position(data: TrainData, order: str) -> None:
    """The encoder itself is tested against its equations in tests/nn/test_transformer.py."""
    model = build(data, order=order).eval()
    states = model.states(HISTORY, model.items(data.catalog))
    for row, length in enumerate((5, 2, 1)):
        x = model.table[HISTORY[row, :length]] + model.positions[:length]
        alone = model.transformer(model.norm(x), Packing(torch.ones(1, length, dtype=torch.bool)))
        torch.testing.assert_close(states[row, :length], alone)
        assert not states[row, length:].any()


@pytest.mark.parametrize("order", ["post", "pre"])
def test_a_later_item_changes_no_earlier_state(data: TrainData, order: str) -> None:
    check_causality(build(data, order=order).eval(), HISTORY)


def test_padding_never_leaks(data: TrainData) -> None:
    model = build(data).eval()
    items = model.items(data.catalog)
    alone = model.last_states(HISTORY[1:2, :2], items)
    torch.testing.assert_close(model.last_states(HISTORY, items)[1:2], alone)
    scorer = model.scorer(data.catalog)
    scores = scorer(Query(history=HISTORY))
    torch.testing.assert_close(scores[2:], scorer(Query(history=torch.tensor([[0]]))))
    torch.testing.assert_close(scores[1:2], scorer(Query(history=torch.tensor([[-1, 2, -1, 6]]))))


def test_only_the_last_items_are_read(data: TrainData) -> None:
    scorer = build(data).eval().scorer(data.catalog)
    long = torch.tensor([[7, 7, 2, 3, 1, 4, 1, 5]])
    torch.testing.assert_close(scorer(Query(history=long)), scorer(Query(history=long[:, -5:])))


@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_it_learns_what_follows(data: TrainData, loss: str) -> None:
    model = build(data, loss=loss, lr=0.01, batch_size=40)
    train(model, data, 40, size=40, rng=np.random.default_rng(0))
    met = torch.tensor([[0, 1, 2], [5, 6, 7], [6, 7, 0]])
    scores = model.eval().scorer(data.catalog)(Query(history=met))
    scores = scores.scatter(1, met, -torch.inf)  # bce never learns anything against an item that its user has met
    assert scores.argmax(dim=1).tolist() == [3, 0, 1]


def test_the_published_form(data: TrainData) -> None:
    config = SASRecConfig.preset("paper")
    model = SASRec(config, data)
    assert (config.loss, config.order, config.activation, config.id_init) == ("bce", "pre", "relu", "normal")
    assert isinstance(model.norm, torch.nn.Identity)
    assert isinstance(model.transformer.last, torch.nn.LayerNorm)
    assert config.hidden == config.dim == 50
