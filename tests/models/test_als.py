"""ALS as a model: factors of the teacher, zeros for what was never met."""

from collections.abc import Mapping

import numpy as np
import polars as pl
import pytest
import torch

from modalmix.data.catalog import Catalog
from modalmix.data.ids import IdMap
from modalmix.data.split import TrainData
from modalmix.errors import ConfigError, ModelError
from modalmix.models.als import ALS, ALSConfig
from modalmix.models.contract import Query, TeacherConfig, teach
from tests.models.conftest import Shop

USERS = Query(users=torch.arange(40))


def fitted(data: TrainData, **settings: object) -> ALS:
    model = ALS(ALSConfig.parse({"dim": 6, **settings}), data)
    model.fit(data)
    return model


def test_scores_are_inner_products_of_the_teachers_factors(content_shop: Shop) -> None:
    data = content_shop()
    scores = fitted(data, seed=4, reg=2.0, alpha=3.0, iterations=5).scorer(data.catalog)(USERS)
    users, items = teach(data.interactions, TeacherConfig(dim=6, reg=2.0, alpha=3.0, iterations=5), 4)
    torch.testing.assert_close(scores, users @ items.T)


def test_met_items_are_above_others(content_shop: Shop) -> None:
    data = content_shop()
    scores = fitted(data, reg=1.0).scorer(data.catalog)(USERS).numpy()
    met = data.interactions.csr.toarray() > 0
    assert scores[met].mean() > 0.5
    assert scores[:, data.warm][~met[:, data.warm]].mean() < 0.3


def test_cold_and_new_items_and_unknown_users_score_zero(content_shop: Shop) -> None:
    data = content_shop()
    data = TrainData(data.users, data.catalog, data.interactions.take(data.interactions.user != 7))
    model = fitted(data)
    features = {name: m.matrix(np.array([0])) for name, m in data.catalog.modalities.items()}
    scores = model.scorer(data.catalog.extend(pl.DataFrame({"item": [1000]}), features))(USERS)
    assert scores.shape == (40, 31)
    assert not scores[:, 24:].any()
    assert not scores[7].any()
    assert bool(scores[8, :24].any())
    torch.testing.assert_close(scores[:, :30], model.scorer(data.catalog)(USERS))


def test_the_seed_decides(content_shop: Shop) -> None:
    data = content_shop()
    first, second, other = (fitted(data, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.items, second.items)
    assert not torch.allclose(first.items, other.items)


def test_another_catalogue_is_an_error(content_shop: Shop) -> None:
    data = content_shop()
    with pytest.raises(ModelError, match="training items first"):
        fitted(data).scorer(Catalog(IdMap(np.arange(100, 130)), data.catalog.modalities))


@pytest.mark.parametrize("wrong", [{"dim": 0}, {"alpha": 0}, {"reg": -1}, {"iterations": 0}])
def test_impossible_settings(wrong: Mapping[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ALSConfig.parse(dict(wrong))
