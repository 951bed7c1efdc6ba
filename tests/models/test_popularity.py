"""Popularity by hand."""

import numpy as np
import pytest
import torch

from modalmix.data.catalog import Catalog
from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.data.split import TrainData
from modalmix.models.contract import Query
from modalmix.models.popularity import Popularity, PopularityConfig


@pytest.fixture
def popularity() -> Popularity:
    user, item = np.array([[0, 1], [1, 1], [2, 1], [0, 2]], dtype=np.int32).T
    data = TrainData(IdMap([0, 1, 2], "user"), Catalog(IdMap([7, 8, 9])), Interactions(user, item, 3, 3))
    model = Popularity(PopularityConfig(), data)
    model.fit(data)
    return model


def test_users_and_histories_see_the_train_counts(popularity: Popularity) -> None:
    scorer = popularity.scorer(Catalog(IdMap([7, 8, 9])))
    assert scorer(Query(users=torch.tensor([2, 0]))).tolist() == [[0, 3, 1], [0, 3, 1]]
    assert scorer(Query(history=torch.tensor([[0, -1]]))).tolist() == [[0, 3, 1]]


def test_a_new_item_scores_zero(popularity: Popularity) -> None:
    assert popularity.scorer(Catalog(IdMap([7, 8, 9, 10])))(Query(users=torch.tensor([0]))).tolist() == [[0, 3, 1, 0]]
