"""MAGNET against its equations, restated with dense float64 matrices, pair by pair."""

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from modalmix.data.catalog import Catalog
from modalmix.data.modality import Modality
from modalmix.data.neighbors import Neighbors
from modalmix.data.split import TrainData
from modalmix.models.contract import Query, Triples
from modalmix.models.magnet import Magnet
from modalmix.nn.graph import thin
from tests.models.conftest import Shop
from tests.models.plain_magnet import EVERYBODY, ITEMS, USERS, Plain
from tests.models.small_magnet import TRIALS, model, shop_with_gaps


@pytest.fixture
def data(content_shop: Shop) -> TrainData:
    return shop_with_gaps(content_shop)


def with_a_given_graph(content_shop: Shop) -> TrainData:
    """Images have a graph that is not one of features: every third item does not list itself, the weights are of any
    size; item 4 lists itself alone, item 7 nobody. Those without an image (3, 9, 25) list others and are listed."""
    shop, rng = shop_with_gaps(content_shop), np.random.default_rng(4)
    rows = np.stack([rng.permutation(np.delete(np.arange(ITEMS, dtype=np.int32), i))[:6] for i in range(ITEMS)])
    oneself = np.flatnonzero(np.arange(ITEMS) % 3)
    rows[oneself, 1] = oneself
    rows[4, [0, 2, 3, 4, 5]], rows[7] = -1, -1
    assert np.isin([3, 9, 25], rows[:, :4]).all()
    image = replace(shop.catalog.modality("image"), neighbors=Neighbors(rows, rng.uniform(0.1, 3.0, rows.shape)))
    return replace(shop, catalog=Catalog(shop.catalog.items, {**shop.catalog.modalities, "image": image}))


def of_three_modalities(content_shop: Shop) -> TrainData:
    dims, silent = {"image": 12, "text": 8, "audio": 5}, [9, 12, 20]
    return shop_with_gaps(lambda absent: content_shop(dims, absent={**absent, "audio": silent}))


def triples(data: TrainData) -> Triples:
    """Users 0 and 1 with their every item, a user with items that lack something, a positive that another draws."""
    events = data.interactions
    rows = [*np.flatnonzero(events.user < 2), *np.flatnonzero(np.isin(events.item, [3, 9, 12]))[:4], 60, 61, 62]
    user, positive = (torch.from_numpy(part[rows].astype(np.int64)) for part in (events.user, events.item))
    met = data.interactions.csr.toarray()[user]
    negative = [int(np.flatnonzero(row[:24] == 0)[(5 * k) % 11]) for k, row in enumerate(met)]
    return Triples(user, positive, torch.tensor(negative))


FORMS: dict[str, dict[str, Any]] = {
    "nine experts": {},
    "weights found": {"graph_weights": None, "neighbors": 6},
    "one view": {"dual_view": False, "layers": 3},
    "neighbours both ways": {"both_ways": True, "prior": "filter", "filter": {**TRIALS["filter"], "both_ways": True}},
    "item edges": {"edges": {**TRIALS["edges"], "augment": "ii"}, "edge_weight": 2.0},
    "both kinds of edges": {"edges": {**TRIALS["edges"], "augment": "both"}, "layers": 1},
    "edges of what both list": {"edges": {**TRIALS["edges"], "agree": 2, "augment": "both"}, "neighbors": 10},
    "base behaviour": {"base": "behaviour"},
    "purified": {"purify": True, "contrast": 0.0, "reg": 0.0},
    "experts with perceptrons": {"expert_hidden": 5},
    "plain experts": {"experts": "plain", "expert_hidden": 4, "base": "behaviour"},
    "no experts": {"experts": "none", "base": "behaviour"},
    "no experts but the filter": {"experts": "none", "prior": "filter", "graph_weights": None},
    "mlp": {"router": "mlp", "mixture_gradient": "experts"},
    "user": {"router": "user", "cues": "evidence"},
    "item": {"router": "item"},
    "uniform": {"router": "uniform", "top_k": 1},
    "evidence": {"cues": "evidence", "mixture_gradient": "none"},
    "the filter": {"prior": "filter", "mixture_gradient": "experts", "cues": "evidence", "top_k": 3},
    "full cue": {"cue": "full", "top_k": 9},
    "a given graph": {"prior": "filter"},
    "three modalities": {"graph_weights": {"image": 0.3, "text": 0.5, "audio": 0.2}, "expert_hidden": 3},
    "one modality": {"modalities": ("text",), "graph_weights": {"text": 2.0}, "top_k": 1},
}
SHOPS = {"a given graph": with_a_given_graph, "three modalities": of_three_modalities}


def shop_of(form: str, content_shop: Shop) -> TrainData:
    return SHOPS.get(form, shop_with_gaps)(content_shop)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stage", [1, 2])
def test_scores_of_all_pairs(content_shop: Shop, form: str, stage: int) -> None:
    """Chunked full ranking against brute force: all experts in stage 1, the top k in stage 2."""
    data = shop_of(form, content_shop)
    built = model(data, **FORMS[form])
    built.schedule.stage.fill_(stage)
    expected = Plain(built, data).scores(None if stage == 1 else built.config.top_k)
    found = built.scorer(data.catalog)(EVERYBODY)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    assert expected.std() > 0.01
    pairs = built.scorer(data.catalog).pairs(Query(users=torch.tensor([7, 2])), torch.tensor([[9, 25], [3, 0]]))
    torch.testing.assert_close(pairs.double(), expected[[[7, 7], [2, 2]], [[9, 25], [3, 0]]], atol=1e-5, rtol=1e-5)


def compare(built: Magnet, plain: Plain, found: Any, expected: dict[str, Tensor]) -> None:
    """Terms, and the gradient of every weight."""
    assert found.keys() == expected.keys()
    for name, term in found.items():
        torch.testing.assert_close(
            term.double(), expected[name], atol=1e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}"
        )
    torch.stack(list(found.values())).sum().backward()
    torch.stack(list(expected.values())).sum().backward()
    for name, weight in built.named_parameters():
        wanted = plain.p[name].grad
        wanted = torch.zeros_like(plain.p[name]) if wanted is None else wanted
        gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
        torch.testing.assert_close(gradient.double(), wanted, atol=2e-6, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("form", FORMS)
def test_terms_and_gradients_in_stage_1(content_shop: Shop, form: str) -> None:
    """With noise on the gates, and every epoch its own thinned graph."""
    data = shop_of(form, content_shop)
    built = model(data, **{**FORMS[form], "noise": 0.7, "dropout": 0.4})
    plain, batch = Plain(built, data), triples(data)
    built.train()
    built.start_epoch(3)
    torch.manual_seed(5)
    found = built.loss(batch)
    torch.manual_seed(5)
    noise: Any = 0.0
    if built.experts is not None:
        noise = 0.7 * torch.randn(2 * len(batch.user), len(built.roles)).double()
    kept = thin(data.interactions.csr, 0.4, np.random.default_rng([built.config.seed, 3])).toarray()
    compare(built, plain, found, plain.terms(batch, torch.from_numpy(kept).double(), noise))


@pytest.mark.parametrize("form", FORMS)
def test_terms_and_gradients_in_stage_2(content_shop: Shop, form: str) -> None:
    """Four of ten epochs into it: w_cov = .1 (1 - .7 r), w_spec = .05 r, r = (1 - cos .4 pi) / 2; k experts."""
    data = shop_of(form, content_shop)
    built = model(data, **{**FORMS[form], "noise": 0.7})
    plain, batch = Plain(built, data), triples(data)
    built.schedule.stage.fill_(2)
    built.schedule.triggered.fill_(6)
    built.train()
    built.start_epoch(10)
    rise = 0.5 - 0.5 * np.cos(0.4 * np.pi)
    stage = (0.1 * (1 - 0.7 * rise), 0.05 * rise, built.config.top_k)
    compare(built, plain, built.loss(batch), plain.terms(batch, plain.r, stage=stage))


@pytest.mark.parametrize("changes", [{"cover": 0.0}, {"reg": 0.0}, {"contrast": 0.0}, {"experts": "none"}])
def test_terms_of_weight_zero_are_left_out(data: TrainData, changes: dict[str, Any]) -> None:
    gone = {"cover"} if "experts" in changes else set(changes)
    found = model(data, **changes).loss(triples(data))
    assert found.keys() == {"bpr", "cover", "contrast", "reg"} - gone


class TestServing:
    def test_vectors_give_the_score_with_the_mean_gate(self, data: TrainData) -> None:
        built = model(data, prior="filter")
        built.mean_gate.copy_(torch.rand(9).softmax(dim=0))
        users, items = built.vectors(data.catalog)
        nodes = built.encode(data.catalog)
        expected = nodes[0].own @ nodes[1].own.T
        for e, gate in enumerate(built.mean_gate):
            expected = expected + gate * (built.experts(nodes[0].z)[e] @ built.experts(nodes[1].z)[e].T)
        torch.testing.assert_close(users @ items.T, expected.detach(), atol=1e-5, rtol=1e-5)
        bare = model(data, experts="none")
        plain = Plain(bare, data).scores(None)
        users, items = bare.vectors(data.catalog)
        torch.testing.assert_close((users @ items.T).double(), plain, atol=1e-5, rtol=1e-5)

    def test_routing_says_which_experts_a_pair_has(self, data: TrainData) -> None:
        built = model(data, top_k=2)
        assert built.routing(EVERYBODY, torch.arange(ITEMS))["experts"].count_nonzero(dim=2)[5, 0] == 9
        built.schedule.stage.fill_(2)
        gates = built.routing(EVERYBODY, torch.tensor([0, 9, 25]))["experts"]
        assert gates.shape == (USERS, 3, 9)
        torch.testing.assert_close(gates.sum(dim=2), torch.ones(USERS, 3))
        assert gates.count_nonzero(dim=2)[:, 0].tolist() == [2] * USERS
        dominant = [role.name(built.signals) for role in built.roles].index("dominant behaviour")
        assert gates[:, 1, dominant].tolist() == [1.0] * USERS, "item 9 has behaviour alone"
        assert gates[:, 2].count_nonzero(dim=0).nonzero().flatten().tolist() == [
            [role.name(built.signals) for role in built.roles].index("dominant text")
        ], "item 25 is cold and has text alone"
        assert model(data, experts="none").routing(EVERYBODY, torch.arange(2)) is None

    @pytest.mark.parametrize("form", ["one view", "evidence", "purified", "mlp", "user", "experts with perceptrons"])
    def test_content_that_is_lost_or_found_after_training(self, data: TrainData, form: str) -> None:
        """As with `evaluate --drop`: signals, presence and the experts of a pair are those of the catalogue at hand.
        The user with one item has texts alone then; item 9, that had nothing, has a picture."""
        rng = np.random.default_rng(8)
        image, text = data.catalog.modality("image"), data.catalog.modality("text")
        only = int(data.interactions.item[data.interactions.user == 0][0])
        x, y = image.matrix(), text.matrix()
        x[[only, 4, 11]], y[[7, 16, 21]] = 0.0, 0.0
        x[9] = rng.standard_normal(x.shape[1])
        changed = {"image": Modality.from_matrix("image", x), "text": Modality.from_matrix("text", y)}
        catalog = Catalog(data.catalog.items, changed)
        built = model(data, **{**FORMS[form], "dual_view": False})
        built.schedule.stage.fill_(2)
        plain = Plain(built, replace(data, catalog=catalog))
        assert plain.history(0)[1].tolist() == [False, True]
        expected, before = plain.scores(built.config.top_k), built.scorer(data.catalog)(EVERYBODY)
        found = built.scorer(catalog)(EVERYBODY)
        torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
        assert not torch.allclose(found, before, atol=1e-2)

    def test_both_ways_an_added_item_is_what_it_lists(self, data: TrainData) -> None:
        """It is listed by nobody, so that each of its own listings counts twice."""
        twin = {name: one.matrix([5]) for name, one in data.catalog.modalities.items()}
        bigger, built = data.catalog.extend(pl.DataFrame({"item": [999]}), twin), model(data, both_ways=True)
        after, before = built.scorer(bigger)(EVERYBODY), built.scorer(data.catalog)(EVERYBODY)
        torch.testing.assert_close(after[:, :ITEMS], before, atol=1e-5, rtol=1e-5)
        ids = built.items.weight.detach() * built.warm_items.unsqueeze(1)
        for z, graph in zip(built.encode(bigger)[1].z[1:], built.item_graphs(bigger), strict=True):
            listed = torch.from_numpy((graph.toarray() > 0).astype(np.float32))
            degree = listed[:ITEMS].sum(dim=0) + listed[:ITEMS].sum(dim=1)
            weights = 2 * listed[ITEMS] / (2 * listed[ITEMS].sum() * degree.clamp(min=1)).sqrt()
            assert weights.count_nonzero() == built.config.neighbors
            torch.testing.assert_close(z[ITEMS], weights @ ids, atol=1e-6, rtol=1e-4)

    def test_an_added_twin_scores_by_its_neighbours_and_the_others_keep_theirs(self, data: TrainData) -> None:
        twin = {name: one.matrix([5]) for name, one in data.catalog.modalities.items()}
        bigger = data.catalog.extend(pl.DataFrame({"item": [999]}), twin)
        for changes in ({"prior": "filter"}, {"purify": True, "experts": "none"}):
            built = model(data, **changes)
            before, after = built.scorer(data.catalog)(EVERYBODY), built.scorer(bigger)(EVERYBODY)
            torch.testing.assert_close(after[:, :ITEMS], before, atol=1e-5, rtol=1e-5)
            _, items = built.encode(bigger)
            torch.testing.assert_close(items.z[1:, ITEMS], items.z[1:, 5], atol=1e-5, rtol=1e-4)
            assert not items.z[0, ITEMS].any()
            assert after[:, ITEMS].std() > 0.01

    def test_a_history_of_what_a_user_met_has_that_users_cue(self, data: TrainData) -> None:
        built = model(data, prior="filter")
        scorer = built.scorer(data.catalog)
        met = data.interactions.csr[7].indices
        asked, known = scorer.asked(Query(history=torch.from_numpy(met[None].astype(np.int64)))), scorer.users.rows([7])
        torch.testing.assert_close(asked.z[1:], known.z[1:], atol=1e-6, rtol=1e-5)
        assert torch.equal(asked.present, known.present)
        assert torch.equal(asked.degree, known.degree)
