"""Item graphs of a catalogue, and what the models over them start from."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor

import modalmix.models.contract.graphs as module
from modalmix.data.catalog import Catalog
from modalmix.data.drop import drop_modality
from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.data.modality import Modality
from modalmix.data.neighbors import Neighbors
from modalmix.data.split import TrainData
from modalmix.errors import ConfigError, ModelError
from modalmix.models.contract import ItemGraphConfig, ItemGraphRecommender, Query, Triples, item_graph
from modalmix.models.contract.graphs import modality_weights
from modalmix.nn.graph import Graph, bipartite, row_normalize, symmetric_normalize
from modalmix.nn.losses import bpr_loss
from tests.models.conftest import Shop

USERS = Query(users=torch.arange(40))


class Averaged(ItemGraphRecommender[ItemGraphConfig]):
    """A user is the mean of its items; an item is its id vector and its features, averaged over its neighbours."""

    def __init__(self, config: ItemGraphConfig, data: TrainData) -> None:
        super().__init__(config, data)
        self.projections = torch.nn.ModuleList(torch.nn.Linear(dim, config.dim) for dim in self.dims)

    def vectors(self, catalog: Catalog) -> tuple[Tensor, Tensor]:
        content, items = self.content(catalog), self.id_vectors(catalog)
        for name, x, projection in zip(self.modalities, content.features, self.projections, strict=True):
            known = items[: self.n_items] + projection(x)[: self.n_items]
            items = items + Graph(row_normalize(self.item_graph(name, catalog)))(known)
        users = self.graph(torch.cat([self.users.weight, items[: self.n_items]]))[: self.n_users]
        return users, items

    def loss(self, batch: Triples) -> Mapping[str, Tensor]:
        users, items = self.vectors(self.train_catalog)
        user = users[batch.user]
        return {"bpr": bpr_loss((user * items[batch.positive]).sum(1), (user * items[batch.negative]).sum(1))}


def averaged(data: TrainData, **settings: object) -> Averaged:
    torch.manual_seed(0)
    return Averaged(ItemGraphConfig.parse({"dim": 8, "neighbors": 5, **settings}), data)


def with_graph(data: TrainData, name: str, rows: np.ndarray, weights: np.ndarray) -> TrainData:
    graph = Neighbors(rows.astype(np.int32), weights.astype(np.float32))
    modality = replace(data.catalog.modality(name), neighbors=graph)
    catalog = Catalog(data.catalog.items, {**data.catalog.modalities, name: modality}, data.catalog.table)
    return TrainData(data.users, catalog, data.interactions)


def extended(data: TrainData, new: int = 3, without: tuple[str, ...] = ()) -> Catalog:
    rng = np.random.default_rng(5)
    features = {
        name: (rng.standard_normal((new, one.dim)) + 1).astype(np.float32)
        for name, one in data.catalog.modalities.items()
        if name not in without
    }
    return data.catalog.extend(pl.DataFrame({"item": np.arange(1000, 1000 + new)}), features)


def cosines(x: np.ndarray, others: np.ndarray) -> np.ndarray:
    return (x @ others.T) / np.linalg.norm(x, axis=1)[:, None] / np.linalg.norm(others, axis=1)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry a computation of neighbours."""
    made: list[int] = []
    compute = module.cosine_neighbors

    def counted(*arguments: object, **settings: object) -> tuple[Tensor, Tensor]:
        made.append(1)
        return compute(*arguments, **settings)

    monkeypatch.setattr(module, "cosine_neighbors", counted)
    return made


def test_the_graph_of_features_against_brute_force(content_shop: Shop) -> None:
    data = content_shop(absent={"image": [4, 11]})
    graph = item_graph(data.catalog, "image", 6)
    assert graph.shape == (30, 30)
    assert graph[[4, 11]].nnz == graph[:, [4, 11]].nnz == 0  # isolated
    there = np.setdiff1d(np.arange(30), [4, 11])
    x = data.catalog.modality("image").matrix(there).astype(np.float64)
    expected = np.zeros((30, 30))
    for row, similarity in zip(there, cosines(x, x), strict=True):
        nearest = np.argsort(-similarity)[:6]
        expected[row, there[nearest]] = similarity[nearest]
    np.testing.assert_allclose(graph.toarray(), expected, atol=2e-6)
    np.testing.assert_array_equal(graph.diagonal()[there], 1)


def test_a_given_graph_is_taken_as_it_is(content_shop: Shop) -> None:
    rows = np.stack([np.arange(30), (np.arange(30) + 1) % 30, (np.arange(30) + 2) % 30], axis=1)
    rows[8] = [9, -1, -1]
    data = with_graph(content_shop(absent={"image": [3, 29]}), "image", rows, np.tile([0.5, 0.25, 0.125], (30, 1)))
    graph = item_graph(data.catalog, "image", 3).toarray()
    assert np.flatnonzero(graph[0]).tolist() == [0, 1, 2]
    assert graph[0, :3].tolist() == [0.5, 0.25, 0.125]
    assert graph[8].nonzero()[0].tolist() == [9]
    assert graph[2].nonzero()[0].tolist() == [2, 4]  # 3 has no image
    assert not graph[[3, 29]].any()
    assert not graph[:, [3, 29]].any()
    two = item_graph(data.catalog, "image", 2)
    assert two[0].toarray().ravel()[:3].tolist() == [0.5, 0.25, 0]
    computed = item_graph(data.catalog, "image", 3, given=False)
    bare = content_shop(absent={"image": [3, 29]})
    assert (computed != item_graph(bare.catalog, "image", 3)).nnz == 0
    assert (sp.csr_matrix(graph) != computed).nnz > 0
    assert data.catalog.modality("image").neighbors.rows.tolist() == rows.tolist()


def test_k_too_large(content_shop: Shop) -> None:
    data = content_shop()
    with pytest.raises(ConfigError, match=r"neighbors: got 31, expected at most the 30 items. Lower it"):
        item_graph(data.catalog, "image", 31)
    with pytest.raises(ConfigError, match="at most the 30 items"):
        item_graph(extended(data), "image", 31, training_items=30)
    assert item_graph(data.catalog, "image", 30).nnz > 30
    given = with_graph(data, "image", np.arange(30)[:, None], np.ones((30, 1)))
    with pytest.raises(ConfigError, match=r"neighbors of 'image': got 2, expected at most 1, .* given_graphs=False"):
        item_graph(given.catalog, "image", 2)
    with pytest.raises(ModelError, match="no modality 'imag'"):
        item_graph(data.catalog, "imag", 2)


def test_the_rows_of_known_items_stay_and_new_ones_look_among_them(content_shop: Shop) -> None:
    data = content_shop(absent={"image": [4]})
    bigger = extended(data, without=("text",))
    before = item_graph(data.catalog, "image", 6)
    graph = item_graph(bigger, "image", 6, training_items=30)
    assert graph.shape == (33, 30)
    assert (graph[:30] != before).nnz == 0
    there = np.setdiff1d(np.arange(30), [4])
    image = bigger.modality("image").matrix().astype(np.float64)
    for row, similarity in enumerate(cosines(image[30:], image[there]), start=30):
        nearest = there[np.argsort(-similarity)[:6]]
        positive = [i for i in nearest if similarity[np.searchsorted(there, i)] > 0]
        assert graph[row].indices.tolist() == sorted(positive)
        np.testing.assert_allclose(graph[row].data, similarity[np.searchsorted(there, sorted(positive))], atol=2e-6)
    text = item_graph(bigger, "text", 6, training_items=30)
    assert text[30:].nnz == 0  # absent for the new items
    assert (text[:30] != item_graph(data.catalog, "text", 6)).nnz == 0


def test_a_given_graph_of_a_bigger_catalogue_is_completed_by_features(content_shop: Shop) -> None:
    data = with_graph(
        content_shop(), "image", np.stack([np.arange(30), np.arange(30)[::-1]], 1), np.full((30, 2), 0.25)
    )
    graph = item_graph(extended(data), "image", 2, training_items=30)
    assert graph.shape == (33, 30)
    assert (graph[:30] != item_graph(data.catalog, "image", 2)).nnz == 0
    of_features = item_graph(extended(data), "image", 2, training_items=30, given=False)
    assert of_features[30:].nnz == 6
    scaled = of_features[30:] * (0.25 / of_features[30:].data.mean())
    np.testing.assert_allclose(graph[30:].toarray(), scaled.toarray(), rtol=1e-5)
    within = item_graph(data.catalog, "image", 2, training_items=20)
    assert within.shape == (30, 20)
    assert within[25].indices.tolist() == [4]  # itself is beyond


def test_the_cache_is_hit_and_a_torn_entry_is_made_again(content_shop: Shop, own_cache: Path, calls: list[int]) -> None:
    first = item_graph(content_shop().catalog, "image", 6)
    assert (item_graph(content_shop().catalog, "image", 6) != first).nnz == 0
    assert len(calls) == 1
    (entry,) = own_cache.glob("graphs/knn-*.npz")
    entry.write_bytes(entry.read_bytes()[:200])
    assert (item_graph(content_shop().catalog, "image", 6) != first).nnz == 0
    assert len(calls) == 2
    assert (item_graph(content_shop().catalog, "image", 6) != first).nnz == 0
    assert len(calls) == 2
    item_graph(content_shop().catalog, "image", 5)
    item_graph(content_shop(absent={"image": [1]}).catalog, "image", 6)
    item_graph(content_shop(seed=1).catalog, "image", 6)
    assert len(calls) == 5
    assert len(list(own_cache.glob("graphs/*"))) == 4


def test_the_user_item_graph_and_who_is_warm(content_shop: Shop) -> None:
    data = content_shop()
    model = averaged(data)
    x = torch.randn(70, 3)
    expected = symmetric_normalize(bipartite(data.interactions.csr)).toarray()
    torch.testing.assert_close(model.graph(x), torch.from_numpy(expected) @ x, atol=1e-6, rtol=1e-5)
    assert model.warm_items.tolist() == [True] * 24 + [False] * 6
    assert model.warm_users.all()
    assert model.modalities == ("image", "text")
    assert averaged(data, modalities=("text",)).modalities == ("text",)


def test_a_user_without_events_scores_zero(content_shop: Shop) -> None:
    shop = content_shop()
    events = shop.interactions.take(shop.interactions.user != 7)
    scores = averaged(TrainData(shop.users, shop.catalog, events)).scorer(shop.catalog)(USERS)
    assert not scores[7].any()
    assert scores[[6, 8]].any(dim=1).all()


def test_scores_are_inner_products_and_scoring_leaves_the_mode(content_shop: Shop) -> None:
    data = content_shop()
    model = averaged(data)
    model.train()
    scores = model.scorer(data.catalog)(USERS)
    assert model.training
    assert not scores.requires_grad
    users, items = model.vectors(data.catalog)
    torch.testing.assert_close(scores, (users @ items.T).detach())


def test_an_equal_catalogue_scores_the_same(content_shop: Shop) -> None:
    data = content_shop(absent={"image": [2]})
    for settings in ({}, {"standardize": True}, {"trainable_features": True}):
        model = averaged(data, **settings)
        same = Catalog(data.catalog.items, data.catalog.modalities)
        torch.testing.assert_close(model.scorer(same)(USERS), model.scorer(data.catalog)(USERS))


def test_added_items_get_scores_and_the_others_keep_theirs(content_shop: Shop) -> None:
    data = content_shop()
    model = averaged(data)
    before, after = model.scorer(data.catalog)(USERS), model.scorer(extended(data))(USERS)
    assert after.shape == (40, 33)
    torch.testing.assert_close(after[:, :30], before)
    assert after[:, 30:].any(dim=0).all()
    assert not model.id_vectors(extended(data))[30:].any()
    torch.testing.assert_close(model.id_vectors(data.catalog), model.items.weight)
    with pytest.raises(ModelError, match="training items first"):
        model.scorer(Catalog(IdMap(np.arange(100, 130)), data.catalog.modalities))


def test_an_item_that_lost_its_content_is_isolated(content_shop: Shop) -> None:
    data = content_shop()
    model = averaged(data)
    bare = data.catalog
    for name in data.catalog.modalities:
        bare = drop_modality(bare, name, 1, np.random.default_rng(0))
    assert model.item_graph("image", bare).nnz == 0
    _, items = model.vectors(bare)
    torch.testing.assert_close(items, model.items.weight)
    assert not torch.cat(model.content(bare).features, dim=1).any()
    assert not model.content(bare).present.any()


def test_content_is_unit_rows_and_absent_rows_are_zero(content_shop: Shop) -> None:
    data = content_shop(absent={"image": [2, 25]})
    content = averaged(data).content(data.catalog)
    lengths = content.features[0].norm(dim=1)
    assert np.flatnonzero(lengths == 0).tolist() == [2, 25]
    torch.testing.assert_close(lengths[content.present[:, 0]], torch.ones(28))
    assert content.present.sum(dim=0).tolist() == [28, 30]


@pytest.mark.parametrize("trainable", [False, True])
def test_features_are_trained_and_saved_only_where_asked(content_shop: Shop, trainable: bool) -> None:
    data = content_shop(absent={"image": [2]})
    model = averaged(data, trainable_features=trainable)
    assert ("features.0.x" in model.state_dict()) == trainable
    before = model.features[0].x.detach().clone()
    rng = np.random.default_rng(0)
    optimizer = model.optimizer()
    for batch in model.batches(data, 64, rng):
        optimizer.zero_grad()
        sum(model.loss(batch).values()).backward()
        optimizer.step()
    assert torch.equal(model.features[0].x, before) != trainable
    if trainable:
        model.features[0].x.data[2] = 1.0  # as a model would that does not mask absent rows
    content = model.content(data.catalog)
    assert not content.features[0][2].any()  # absent stays absent, also where features are trained
    torch.testing.assert_close(
        model.content(Catalog(data.catalog.items, data.catalog.modalities)).features[0], content.features[0]
    )
    new = model.content(extended(data)).features[0]
    torch.testing.assert_close(new[:30], content.features[0])
    torch.testing.assert_close(new[30:].norm(dim=1), torch.ones(3))
    restored = averaged(data, trainable_features=trainable)
    restored.load_state_dict(model.state_dict())
    torch.testing.assert_close(restored.scorer(data.catalog)(USERS), model.scorer(data.catalog)(USERS))


def test_the_learning_rate_falls_by_its_factor_in_fifty_epochs(content_shop: Shop) -> None:
    model = averaged(content_shop(), lr_factor=0.96)
    assert [model.lr_scale(epoch) for epoch in (1, 26, 51, 101)] == pytest.approx([1, 0.96**0.5, 0.96, 0.96**2])
    assert averaged(content_shop()).lr_scale(400) == 1


def test_given_graphs_may_be_left_aside(content_shop: Shop) -> None:
    bare = content_shop()
    data = with_graph(bare, "image", np.arange(30)[:, None], np.ones((30, 1)))
    assert averaged(data, neighbors=1).item_graph("image", data.catalog).nnz == 30
    with pytest.raises(ConfigError, match="neighbors of 'image'"):
        averaged(data).item_graph("image", data.catalog)
    aside = averaged(data, given_graphs=False).item_graph("image", data.catalog)
    assert (aside != averaged(bare).item_graph("image", bare.catalog)).nnz == 0


def test_a_step_lowers_the_loss(content_shop: Shop) -> None:
    data = content_shop()
    model = averaged(data, lr=0.05)
    batch = next(iter(model.batches(data, 500, np.random.default_rng(0))))
    optimizer, losses = model.optimizer(), []
    for _ in range(20):
        optimizer.zero_grad()
        loss = sum(model.loss(batch).values())
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_it_is_abstract(content_shop: Shop) -> None:
    with pytest.raises(TypeError, match="abstract"):
        ItemGraphRecommender(ItemGraphConfig(), content_shop())


def test_bad_settings(content_shop: Shop) -> None:
    with pytest.raises(ConfigError, match="neighbors"):
        ItemGraphConfig.parse({"neighbors": 0})
    with pytest.raises(ModelError, match="named twice"):
        averaged(content_shop(), modalities=("image", "image"))
    empty = Interactions(np.zeros(0, np.int32), np.zeros(0, np.int32), 40, 30)
    with pytest.raises(ModelError, match="no item with a train interaction"):
        averaged(TrainData(content_shop().users, content_shop().catalog, empty))


NAMES = ("image", "text")
MET = sp.csr_matrix(np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1]], dtype=np.float32))  # items 0-1 by two users, 1-2 by one
PAIR = sp.csr_matrix(np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float32))  # the edge 0-1
OTHER = sp.csr_matrix(np.array([[1, 0, 0], [0, 1, 1], [0, 0, 1]], dtype=np.float32))  # the edge 1-2


class TestModalityWeights:
    def test_given_ones_sum_to_one_in_the_order_of_the_modalities(self) -> None:
        assert modality_weights({"text": 3.0, "image": 1.0}, NAMES, (PAIR, OTHER), MET) == [0.25, 0.75]
        assert modality_weights({"text": 0.0, "image": 2.0}, NAMES, (PAIR, OTHER), MET) == [1.0, 0.0]

    def test_without_them_by_what_is_not_chance(self) -> None:
        """Edges 0-1, 2-3 of items that are met together: chance is half of that, for the pairs 0-3 and 2-1 never are.
        Edges 0-3, 2-1: worse than chance."""
        met = np.zeros((8, 4), dtype=np.float32)
        met[:5, 0], met[:4, 1], met[5:7, 2], met[6:, 3] = 1, 1, 1, 1
        good = sp.csr_matrix((np.ones(2), ([0, 2], [1, 3])), shape=(4, 4))
        bad = sp.csr_matrix((np.ones(2), ([0, 2], [3, 1])), shape=(4, 4))
        assert modality_weights(None, NAMES, (good, bad), sp.csr_matrix(met)) == pytest.approx([0.5, 0.0])
        both = modality_weights(None, NAMES, (good, good), sp.csr_matrix(met))
        assert both == pytest.approx([0.25, 0.25])

    def test_none_where_content_says_nothing(self) -> None:
        alone = sp.identity(3, format="csr", dtype=np.float32)
        assert modality_weights(None, NAMES, (PAIR, OTHER), alone) == [0.0, 0.0]
        assert modality_weights(None, NAMES, (alone, PAIR), MET) == [0.0, 0.0]  # one edge: there is no other to compare

    @pytest.mark.parametrize(
        ("given", "message"),
        [
            ({"image": 1.0, "texts": 1.0}, r"no modality 'texts' to weigh.*Did you mean 'text'"),
            ({"image": 1.0}, r"no weight for 'text'.*0 to leave its graph out"),
            ({}, r"no weight for 'image'"),
            ({"image": 1.0, "text": -0.5}, r"graph_weights: got .*expected no negative weight, and one above 0"),
            ({"image": 0.0, "text": 0.0}, r"one above 0"),
        ],
    )
    def test_bad_ones(self, given: dict[str, float], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            modality_weights(given, NAMES, (PAIR, OTHER), MET)

    def test_content_that_tastes_follow_weighs_more_than_noise(self, content_shop: Shop) -> None:
        data, rng = content_shop(), np.random.default_rng(0)
        noise = Modality.from_matrix("noise", rng.standard_normal((30, 8)).astype(np.float32))
        catalog = Catalog(data.catalog.items, {**data.catalog.modalities, "noise": noise})
        graphs = [item_graph(catalog, name, 5) for name in ("image", "noise")]
        image, other = modality_weights(None, ("image", "noise"), graphs, data.interactions.csr)
        assert image > 0.5
        assert other < 0.1 * image
