"""The graph filter against dense matrices, and what it does for cold and added items."""

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from modalmix.data.catalog import Catalog
from modalmix.data.drop import drop_modality
from modalmix.data.split import TrainData
from modalmix.errors import ConfigError, ModelError, QueryError
from modalmix.models.contract import Query, item_graph
from modalmix.models.contract.graphs import modality_weights
from modalmix.models.graphfilter import GraphFilter, GraphFilterConfig
from tests.models.conftest import Correlation, Shop
from tests.models.histories import scores_a_history_like_its_user
from tests.models.training import cold_items_follow_content

ABSENT = {"image": [0, 3, 28], "text": [3, 4, 29]}  # item 3 has nothing; 28 and 29 are cold
EVEN = {"image": 1.0, "text": 1.0}
EVERYONE = Query(users=torch.arange(40))


def fitted(data: TrainData, **settings: Any) -> GraphFilter:
    model = GraphFilter(GraphFilterConfig.parse({"neighbors": 4, **settings}), data)
    model.fit(data)
    return model


def scores(data: TrainData, catalog: Catalog | None = None, **settings: Any) -> np.ndarray:
    return fitted(data, **settings).scorer(catalog or data.catalog)(EVERYONE).numpy()


def dense(
    data: TrainData, catalog: Catalog, shares: dict[str, float], k: int = 4, both_ways: bool = True
) -> np.ndarray:
    """The docstring's formulas: exponents .35, .5, .15, hops 1.5, .5."""
    met, warm, n_items = data.interactions.csr.toarray().astype(np.float64), data.warm, data.n_items
    by_user = met.sum(axis=1) ** -0.5
    degree = np.where(warm, met.sum(axis=0), np.inf)
    weights = (degree**-0.35)[:, None] * (met.T @ (by_user[:, None] * met)) * degree**-0.15
    graph = np.zeros((len(catalog), n_items))
    for name, share in shares.items():
        listed = item_graph(catalog, name, k, training_items=n_items).toarray()
        near = listed.copy()
        if both_ways:
            near[:n_items] += listed[:n_items].T
        total = near.sum(axis=1, keepdims=True)
        graph += share * near / np.where(total > 0, total, 1.0)
    known = graph[:n_items]
    expected = met @ (np.eye(n_items) + 1.5 * known + 0.5 * known @ known) @ weights
    from_warm = graph * warm
    total = from_warm.sum(axis=1, keepdims=True)
    everything = expected @ (from_warm / np.where(total > 0, total, 1.0)).T
    everything[:, :n_items][:, warm] = expected[:, warm]
    return everything


@pytest.mark.parametrize(
    ("given", "shares"),
    [
        ({"image": 1.0, "text": 1.0}, {"image": 0.5, "text": 0.5}),
        ({"image": 0.6, "text": 1.4}, {"image": 0.3, "text": 0.7}),
    ],
)
def test_scores_equal_the_formulas(
    content_shop: Shop, given: dict[str, float] | None, shares: dict[str, float]
) -> None:
    data = content_shop(absent=ABSENT)
    np.testing.assert_allclose(
        scores(data, graph_weights=given), dense(data, data.catalog, shares), rtol=1e-4, atol=1e-6
    )


def test_neighbours_may_be_those_that_are_listed_alone(content_shop: Shop) -> None:
    """The ablation `listed`; both ways, items that many list hear of all of these."""
    data = content_shop(absent=ABSENT)
    listed = scores(data, graph_weights=EVEN, **GraphFilterConfig.ablations["listed"])
    expected = dense(data, data.catalog, {"image": 0.5, "text": 0.5}, both_ways=False)
    np.testing.assert_allclose(listed, expected, rtol=1e-4, atol=1e-6)
    assert np.abs(listed - scores(data, graph_weights=EVEN)).max() > 0.01


def test_without_weights_a_graph_counts_by_what_it_foretells(content_shop: Shop) -> None:
    data = content_shop(absent=ABSENT)
    graphs = {name: item_graph(data.catalog, name, 4) for name in data.catalog.modalities}
    found = modality_weights(None, tuple(graphs), list(graphs.values()), data.interactions.csr)
    worth = dict(zip(graphs, found, strict=True))
    assert worth["image"] != worth["text"]
    assert 0 < sum(worth.values()) < 1
    np.testing.assert_allclose(scores(data), dense(data, data.catalog, worth), rtol=1e-4, atol=1e-6)


def test_without_content_it_is_the_item_filter(content_shop: Shop) -> None:
    data = content_shop()
    result = scores(data, modalities=())
    np.testing.assert_allclose(result, dense(data, data.catalog, {}), rtol=1e-5, atol=1e-6)
    assert not result[:, 24:].any()  # cold items: nothing is known about them
    bare = TrainData(data.users, data.catalog.select(()), data.interactions)
    np.testing.assert_array_equal(scores(bare, modalities=()), result)
    with pytest.raises(ModelError, match="no modality"):
        scores(bare)


def test_only_the_largest_entries_are_kept(content_shop: Shop) -> None:
    data = content_shop()
    model = fitted(data, entries=3)
    assert model.offsets.diff().max() == 3
    assert np.diff(model.scorer(data.catalog).filter.weights.indptr).max() == 3


def test_a_dropped_modality_leaves_what_the_other_says(content_shop: Shop) -> None:
    data = content_shop(absent={"image": [1, 2]})
    without = drop_modality(data.catalog, "image", 1.0, np.random.default_rng(0))
    expected = dense(data, data.catalog.select(["text"]), {"text": 0.5})  # half of the evidence is gone
    found = scores(data, without, graph_weights=EVEN)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_cold_items_follow_content(content_shop: Shop, content_correlation: Correlation) -> None:
    data = content_shop()
    cold_items_follow_content(fitted(data), data, content_correlation, 0.3)


def test_added_items_take_the_scores_of_their_neighbours(content_shop: Shop) -> None:
    data = content_shop()
    twin = {name: modality.matrix([2]) for name, modality in data.catalog.modalities.items()}
    bigger = data.catalog.extend(pl.DataFrame({"item": [500]}), twin)
    result = scores(data, bigger, graph_weights=EVEN)
    np.testing.assert_allclose(result, dense(data, bigger, {"image": 0.5, "text": 0.5}), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(result[:, :30], scores(data, graph_weights=EVEN), rtol=1e-5, atol=1e-6)
    nothing = data.catalog.extend(pl.DataFrame({"item": [501]}), {})
    assert not scores(data, nothing)[:, 30].any()


def test_a_history_is_scored_like_the_user_who_has_it(content_shop: Shop) -> None:
    data = content_shop(absent=ABSENT)
    scorer = fitted(data).scorer(data.catalog)
    scores_a_history_like_its_user(scorer, data)
    with pytest.raises(QueryError, match="a history is empty"):
        scorer(Query(history=torch.tensor([[0], [-1]])))


def test_an_added_item_in_a_history_counts_by_its_content(content_shop: Shop) -> None:
    data = content_shop()
    twin = {name: modality.matrix([2]) for name, modality in data.catalog.modalities.items()}
    bigger = data.catalog.extend(pl.DataFrame({"item": [500]}), twin)
    scorer = fitted(data).scorer(bigger)
    of_twin, of_both = scorer(Query(history=torch.tensor([[30]]))), scorer(Query(history=torch.tensor([[30, 2]])))
    assert of_twin.any()
    torch.testing.assert_close(of_both, of_twin + scorer(Query(history=torch.tensor([[2]]))))


def test_users_and_items_without_anything_score_zero(content_shop: Shop) -> None:
    data = content_shop(users=41, absent={"image": [28], "text": [28]})
    data = TrainData(data.users, data.catalog, data.interactions.take(data.interactions.user != 40))
    result = fitted(data).scorer(data.catalog)(Query(users=torch.tensor([40, 0])))
    assert not result[0].any()
    assert result[1, 28] == 0.0
    assert result[1, 29] > 0.0


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"image": 1.0, "texts": 1.0}, "Did you mean 'text'"),
        ({"image": 1.0}, "no weight for 'text'"),
        ({"image": -1.0, "text": 2.0}, "no negative weight"),
        ({"image": 0.0, "text": 0.0}, "one above 0"),
    ],
)
def test_weights_that_do_not_fit(content_shop: Shop, weights: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fitted(content_shop(), graph_weights=weights)


def test_more_neighbours_than_items(content_shop: Shop) -> None:
    data = content_shop()
    with pytest.raises(ConfigError, match="at most the 30 items"):
        fitted(data, neighbors=31).scorer(data.catalog)


@pytest.mark.realdata
def test_validation_of_amazon_baby(real_data: Any) -> None:
    from modalmix.evaluation import validation_score
    from modalmix.pipeline import load_data, split_data

    split = split_data(load_data(real_data("amazon-baby")), "as-given")
    data = split.train_data()
    score = validation_score(fitted(data, neighbors=10).scorer(data.catalog), split.validation(), mask="train")
    assert score == pytest.approx(0.1006, abs=0.0005)
