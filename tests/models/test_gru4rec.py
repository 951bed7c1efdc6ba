"""GRU4Rec: its equations, causality, padding."""

from typing import Any

import numpy as np
import pytest
import torch

from modalmix.data import TrainData
from modalmix.models.contract import Query
from modalmix.models.gru4rec import GRU4Rec, GRU4RecConfig
from tests.models.sequences import check_causality, ring
from tests.models.training import train

HISTORY = torch.tensor([[3, 1, 4, 1, 5], [2, 6, -1, -1, -1], [0, -1, -1, -1, -1]])


@pytest.fixture
def data() -> TrainData:
    return ring()


def build(data: TrainData, **settings: Any) -> GRU4Rec:
    torch.manual_seed(0)
    return GRU4Rec(GRU4RecConfig.parse({"dim": 6, "init_std": 0.5, "dropout": 0.0, **settings}), data)


def test_states_equal_the_equations(data: TrainData) -> None:
    """r, z = sigmoid(W x + U h), n = tanh(W x + b + r (U h + c)), h = (1 - z) n + z h."""
    model = build(data, hidden=5).eval()
    states = model.states(HISTORY, model.items(data.catalog))
    gru = model.gru
    for row, length in enumerate((5, 2, 1)):
        h = torch.zeros(5)
        for t in range(length):
            wr, wz, wn = (gru.weight_ih_l0 @ model.table[HISTORY[row, t]] + gru.bias_ih_l0).chunk(3)
            ur, uz, un = (gru.weight_hh_l0 @ h + gru.bias_hh_l0).chunk(3)
            z = torch.sigmoid(wz + uz)
            h = (1 - z) * torch.tanh(wn + torch.sigmoid(wr + ur) * un) + z * h
            torch.testing.assert_close(states[row, t], model.output(h))


def test_a_later_item_changes_no_earlier_state_and_padding_says_nothing(data: TrainData) -> None:
    model = build(data, layers=2).eval()
    check_causality(model, HISTORY)
    scorer = model.scorer(data.catalog)
    scores = scorer(Query(history=HISTORY))
    torch.testing.assert_close(scores[1:2], scorer(Query(history=torch.tensor([[2, 6]]))))


def test_the_state_is_twice_as_long_as_the_vectors_unless_told(data: TrainData) -> None:
    assert build(data).gru.hidden_size == 12
    assert build(data, hidden=5).gru.hidden_size == 5


def test_it_learns_what_follows(data: TrainData) -> None:
    model = build(data, lr=0.02, batch_size=40)
    train(model, data, 30, size=40, rng=np.random.default_rng(0))
    scores = model.eval().scorer(data.catalog)(Query(history=torch.tensor([[0, 1, 2], [5, 6, 7], [7, 0, -1]])))
    assert scores.argmax(dim=1).tolist() == [3, 0, 1]
