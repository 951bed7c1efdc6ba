"""ItemKNN by hand and against dense matrices."""

import numpy as np
import polars as pl
import pytest
import torch

from modalmix.data.split import TrainData
from modalmix.errors import QueryError
from modalmix.models import itemknn
from modalmix.models.contract import Query
from modalmix.models.itemknn import ItemKNN, ItemKNNConfig
from tests.models.histories import scores_a_history_like_its_user, train_data


def fitted(data: TrainData, **settings: float) -> ItemKNN:
    model = ItemKNN(ItemKNNConfig.parse(settings), data)
    model.fit(data)
    return model


def dense_scores(met: np.ndarray, neighbors: int, shrinkage: float) -> np.ndarray:
    """The docstring's formula with loops."""
    common, degree = met.T @ met, met.sum(axis=0)
    scores = np.zeros(met.shape)
    for j in range(met.shape[1]):
        cosine = common[j] / (np.sqrt(degree[j] * degree) + shrinkage + 1e-30)
        cosine[j] = -1
        for i in np.argsort(-cosine, kind="stable")[:neighbors]:
            if cosine[i] > 0:
                scores[met[:, j] > 0, i] += cosine[i]
    return scores


def test_by_hand() -> None:
    data = train_data(np.array([[1, 1, 0], [1, 1, 0], [1, 0, 1], [0, 0, 1]]))
    scores = fitted(data, shrinkage=1.0).scorer(data.catalog)(Query(users=torch.tensor([0, 3])))
    c01, c02 = 2 / (np.sqrt(3 * 2) + 1), 1 / (np.sqrt(3 * 2) + 1)
    torch.testing.assert_close(scores, torch.tensor([[c01, c01, c02], [c02, 0.0, 0.0]], dtype=torch.float32))


@pytest.mark.parametrize(("neighbors", "shrinkage"), [(3, 0.0), (3, 10.0), (100, 2.0)])
def test_equals_the_formula(met: np.ndarray, neighbors: int, shrinkage: float) -> None:
    data = train_data(met)
    scorer = fitted(data, neighbors=neighbors, shrinkage=shrinkage).scorer(data.catalog)
    scores = scorer(Query(users=torch.arange(len(met)))).numpy()
    np.testing.assert_allclose(scores, dense_scores(met, neighbors, shrinkage), atol=1e-5)
    assert not scores[:, 5].any()


def test_blocks_change_nothing(met: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    data = train_data(met)
    whole = fitted(data, neighbors=4).state_dict()
    monkeypatch.setattr(itemknn, "_BLOCK", 5 * met.shape[1])  # five items at a time
    for name, value in fitted(data, neighbors=4).state_dict().items():
        assert torch.equal(value, whole[name])


def test_at_most_k_neighbors_and_never_the_item_itself(met: np.ndarray) -> None:
    model = fitted(train_data(met), neighbors=2)
    assert model.offsets.diff().max() == 2
    owner = torch.repeat_interleave(torch.arange(met.shape[1]), model.offsets.diff())
    assert not (owner == model.neighbors).any()


def test_a_history_is_scored_like_the_user_who_has_it(met: np.ndarray) -> None:
    data = train_data(met)
    scorer = fitted(data).scorer(data.catalog)
    scores_a_history_like_its_user(scorer, data)


def test_new_items_score_zero_and_may_stand_in_a_history(met: np.ndarray) -> None:
    data = train_data(met)
    scorer = fitted(data).scorer(data.catalog.extend(pl.DataFrame({"item": [100]}), {}))
    assert not scorer(Query(users=torch.arange(30)))[:, 12].any()
    assert not scorer(Query(history=torch.tensor([[12]]))).any()


def test_an_empty_history_is_an_error(met: np.ndarray) -> None:
    data = train_data(met)
    with pytest.raises(QueryError, match="a history is empty"):
        fitted(data).scorer(data.catalog)(Query(history=torch.tensor([[0], [-1]])))
