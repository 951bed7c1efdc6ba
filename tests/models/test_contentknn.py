"""Content kNN against cosines worked out pair by pair."""

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics.pairwise import cosine_similarity

from modalmix.data.split import TrainData
from modalmix.errors import ModelError, QueryError
from modalmix.models.contentknn import ContentKNN, ContentKNNConfig
from modalmix.models.contract import Query
from tests.models.conftest import Shop

ABSENT = {"image": [0, 3, 28], "text": [3, 4, 29]}


def fitted(data: TrainData, **settings: object) -> ContentKNN:
    model = ContentKNN(ContentKNNConfig.parse(settings), data)
    model.fit(data)
    return model


def by_hand(data: TrainData, met: list[int], item: int, standardize: bool) -> float:
    """Mean over modalities of the mean cosine of `item` to the met items; 0 where either lacks the modality."""
    means = []
    for modality in data.catalog.modalities.values():
        x = modality.matrix().astype(np.float64)
        if standardize:
            learnt_on = x[data.warm & modality.present]
            x = (x - learnt_on.mean(axis=0)) / learnt_on.std(axis=0)
        has = modality.present
        cosines = [cosine_similarity(x[[item]], x[[row]]).item() if has[item] and has[row] else 0.0 for row in met]
        means.append(np.mean(cosines))
    return float(np.mean(means))


@pytest.mark.parametrize("standardize", [True, False])
def test_scores_are_mean_cosines(content_shop: Shop, standardize: bool) -> None:
    data = content_shop(absent=ABSENT)
    scores = fitted(data, standardize=standardize).scorer(data.catalog)(Query(users=torch.arange(40)))
    assert scores.shape == (40, 30)
    for user in range(0, 40, 7):
        met = data.interactions.item[data.interactions.user == user].tolist()
        expected = [by_hand(data, met, item, standardize) for item in range(30)]
        assert scores[user].tolist() == pytest.approx(expected, abs=1e-5)


def test_a_history_is_exact(content_shop: Shop) -> None:
    data = content_shop(absent=ABSENT)
    scorer = fitted(data).scorer(data.catalog)
    met = [np.sort(data.interactions.item[data.interactions.user == user]) for user in (3, 8)]
    history = torch.full((2, max(map(len, met)) + 1), -1)
    for row, items in enumerate(met):
        history[row, : len(items)] = torch.from_numpy(items)
    history[:, -1] = history[:, 0]  # what was met twice counts once
    torch.testing.assert_close(scorer(Query(history=history)), scorer(Query(users=torch.tensor([3, 8]))))
    with pytest.raises(QueryError, match="history is empty"):
        scorer(Query(history=torch.tensor([[1, 2], [-1, -1]])))


def test_users_and_items_without_content_score_zero(content_shop: Shop) -> None:
    data = content_shop(absent=ABSENT, users=41)
    train = data.interactions.take(data.interactions.user != 40)
    data = TrainData(data.users, data.catalog, train)
    scorer = fitted(data).scorer(data.catalog)
    scores = scorer(Query(users=torch.tensor([40, 0])))
    assert scores[0].abs().sum() == 0.0
    assert scores[1, 3] == 0.0
    assert scorer.without_content.nonzero().flatten().tolist() == [3]


def test_new_items_take_the_statistics_of_training(content_shop: Shop) -> None:
    data = content_shop()
    model = fitted(data)
    twin = {name: modality.matrix([2]) for name, modality in data.catalog.modalities.items()}
    bigger = data.catalog.extend(pl.DataFrame({"item": [500]}), twin)
    scores = model.scorer(bigger)(Query(users=torch.arange(40)))
    torch.testing.assert_close(scores[:, 30], scores[:, 2])
    torch.testing.assert_close(scores[:, :30], model.scorer(data.catalog)(Query(users=torch.arange(40))))


def test_restored_buffers_give_the_same_scores(content_shop: Shop) -> None:
    data = content_shop(absent=ABSENT)
    model, restored = fitted(data), ContentKNN(ContentKNNConfig(), data)
    restored.restore(dict(model.named_buffers()))
    query = Query(users=torch.arange(40))
    assert torch.equal(restored.scorer(data.catalog)(query), model.scorer(data.catalog)(query))


def test_chosen_and_unknown_modalities(content_shop: Shop) -> None:
    data = content_shop()
    both, one = fitted(data), fitted(data, modalities=["text"])
    assert one.scorer(data.catalog).items.shape == (30, 8)
    assert both.scorer(data.catalog).items.shape == (30, 20)
    with pytest.raises(ModelError, match="Did you mean 'text'"):
        fitted(data, modalities=["texts"])
    with pytest.raises(ModelError, match="no modality"):
        fitted(TrainData(data.users, data.catalog.select(()), data.interactions))
