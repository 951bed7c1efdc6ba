"""EASE against the dense formula, and against the problem it solves."""

import numpy as np
import polars as pl
import pytest
import torch

from modalmix.data.catalog import Catalog
from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.data.split import TrainData
from modalmix.errors import ConfigError, ModelError, QueryError
from modalmix.models import ease
from modalmix.models.contract import Query
from modalmix.models.ease import EASE, EASEConfig
from tests.models.histories import scores_a_history_like_its_user, train_data


def fitted(data: TrainData, **settings: float) -> EASE:
    model = EASE(EASEConfig.parse(settings), data)
    model.fit(data)
    return model


def test_two_items_by_hand() -> None:
    data = train_data(np.array([[1, 1], [1, 1], [1, 0]]))  # gram [[3, 2], [2, 2]]
    weights = fitted(data, reg=1.0).weights
    # inverse of [[4, 2], [2, 3]] = [[3, -2], [-2, 4]] / 8
    torch.testing.assert_close(weights, torch.tensor([[0.0, 2 / 4], [2 / 3, 0.0]]))


@pytest.mark.parametrize("reg", [0.5, 30.0])
def test_weights_equal_the_formula(met: np.ndarray, reg: float) -> None:
    inverse = np.linalg.inv(met.T @ met + reg * np.eye(12))
    expected = np.eye(12) - inverse @ np.diag(1 / np.diag(inverse))
    np.testing.assert_allclose(fitted(train_data(met), reg=reg).weights.numpy(), expected, atol=1e-6)


def test_each_item_is_a_ridge_regression_on_the_others(met: np.ndarray) -> None:
    weights = fitted(train_data(met), reg=2.0).weights.numpy()
    for item in range(12):
        others = np.arange(12) != item
        x, y = met[:, others], met[:, item]
        expected = np.linalg.solve(x.T @ x + 2.0 * np.eye(11), x.T @ y)
        np.testing.assert_allclose(weights[others, item], expected, atol=1e-6)
        assert weights[item, item] == 0.0


def test_blocks_change_nothing(met: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fitted(train_data(met)).weights
    monkeypatch.setattr(ease, "_BLOCK", 5)  # does not divide 12
    torch.testing.assert_close(fitted(train_data(met)).weights, whole, atol=0, rtol=0)


def test_scores_are_the_dense_product(met: np.ndarray) -> None:
    data = train_data(met)
    model = fitted(data, reg=2.0)
    scores = model.scorer(data.catalog)(Query(users=torch.arange(30)))
    np.testing.assert_allclose(scores.numpy(), met @ model.weights.numpy().astype(np.float64), atol=1e-6)
    assert not scores[:, 5].any()  # nothing is known about a cold item


def test_a_history_is_scored_like_the_user_who_has_it(met: np.ndarray) -> None:
    data = train_data(met)
    scorer = fitted(data).scorer(data.catalog)
    scores_a_history_like_its_user(scorer, data)
    with pytest.raises(QueryError, match="a history is empty"):
        scorer(Query(history=torch.tensor([[0], [-1]])))


def test_new_items_score_zero_and_may_stand_in_a_history(met: np.ndarray) -> None:
    data = train_data(met)
    model = fitted(data)
    scorer = model.scorer(data.catalog.extend(pl.DataFrame({"item": [100]}), {}))
    assert not scorer(Query(users=torch.arange(30)))[:, 12].any()
    assert not scorer(Query(history=torch.tensor([[12]]))).any()
    torch.testing.assert_close(scorer(Query(history=torch.tensor([[12, 2]])))[0, :12], model.weights[2])


def test_a_catalogue_above_the_limit_is_refused_with_its_memory(met: np.ndarray) -> None:
    with pytest.raises(ModelError, match=r"12 items \(0.0 GB\).*at most 11 .*max_items"):
        EASE(EASEConfig(max_items=11), train_data(met))
    many = TrainData(IdMap([0], "user"), Catalog(IdMap(np.arange(20_001))), Interactions(*NOBODY, 1, 20_001))
    with pytest.raises(ModelError, match=r"20,001 items \(1.6 GB\)"):
        EASE(EASEConfig(), many)


NOBODY = (np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int32))


def test_without_a_penalty_there_is_no_inverse(met: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="reg"):
        EASEConfig.parse({"reg": 0.0})
    twice = np.repeat(np.ones((64, 1)), 3, axis=1)
    with pytest.raises(ModelError, match="Raise reg"):
        fitted(train_data(twice), reg=1e-12)  # lost beside 64 in float32
