"""MAGNET against its equations, restated with dense float64 matrices, pair by pair."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from modalmix.data.dataset import Dataset
from modalmix.data.interactions import Interactions
from modalmix.data.split import Split, TrainData
from modalmix.models.contract import Query, Triples
from modalmix.models.magnet import Magnet, MagnetConfig
from modalmix.nn.graph import thin
from tests.models.plain_magnet import EVERYBODY, ITEMS, USERS, Plain

Shop = Callable[..., TrainData]
TRIALS: dict[str, Any] = {  # every setting that the formulas know: a test never leans on a default
    "dim": 6,
    "layers": 2,
    "dropout": 0.0,
    "dual_view": True,
    "edges": {"agree": 1, "user_edges": 2, "item_edges": 2, "tail": 0.4, "rho": 9.0, "augment": "ui"},
    "edge_weight": 0.5,
    "graph_weights": {"image": 0.3, "text": 0.7},
    "neighbors": 4,
    "purify": False,
    "cue": "leave-out",
    "base": "fused",
    "prior": "none",
    "filter": {"exponents": (0.35, 0.5, 0.15), "hops": (1.5, 0.5), "entries": 1000},
    "experts": "roles",
    "expert_hidden": 0,
    "router": "bilinear",
    "cues": "signals",
    "mixture_gradient": "all",
    "top_k": 2,
    "noise": 0.0,
    "cover": 0.1,
    "specialise": 0.05,
    "trigger": "coverage",
    "trigger_latest": 30,
    "ramp": 10,
    "contrast": 0.02,
    "temperature": 0.3,
    "reg": 0.01,
}


@pytest.fixture
def data(content_shop: Shop) -> TrainData:
    """Item 9 has nothing at all; 25 is cold and lacks its image; user 0 met one item, user 1 two, user 2 none."""
    shop = content_shop(absent={"image": [3, 9, 25], "text": [9, 12]})
    events, kept = shop.interactions, np.ones(len(shop.interactions), dtype=bool)
    for user, most in ((0, 1), (1, 2), (2, 0)):
        kept[np.flatnonzero(events.user == user)[most:]] = False
    return replace(shop, interactions=events.take(kept))


def model(data: TrainData, moved: bool = True, **settings: Any) -> Magnet:
    """A model whose every weight has moved from where it starts."""
    torch.manual_seed(0)
    built = Magnet(MagnetConfig.parse({**TRIALS, **settings}), data)
    for weight in built.parameters() if moved else ():
        torch.nn.init.normal_(weight, std=0.4)
    return built


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
    "item edges": {"edges": {**TRIALS["edges"], "augment": "ii"}, "edge_weight": 2.0},
    "both kinds of edges": {"edges": {**TRIALS["edges"], "augment": "both"}, "layers": 1},
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
    "one modality": {"modalities": ("text",), "graph_weights": {"text": 2.0}, "top_k": 1},
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("stage", [1, 2])
def test_scores_of_all_pairs(data: TrainData, form: str, stage: int) -> None:
    """Chunked full ranking against brute force: all experts in stage 1, the top k in stage 2."""
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
def test_terms_and_gradients_in_stage_1(data: TrainData, form: str) -> None:
    """With noise on the gates, and every epoch its own thinned graph."""
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
def test_terms_and_gradients_in_stage_2(data: TrainData, form: str) -> None:
    """Four of ten epochs into it: w_cov = .1 (1 - .7 r), w_spec = .05 r, r = (1 - cos .4 pi) / 2; k experts."""
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


class TestLeavePositiveOut:
    def cue(self, built: Magnet, user: int, positive: int) -> tuple[Tensor, Tensor, Tensor]:
        """Cue and presence of a training pair, and z of all items."""
        z, present = built.content_signals(built.train_catalog)
        cue, left = built.cue(z, present, Triples(*(torch.tensor([one]) for one in (user, positive, 0))))
        return cue[:, 0], left[0], z

    def met(self, data: TrainData, user: int) -> list[int]:
        return data.interactions.csr[user].indices.tolist()

    def test_of_a_user_with_one_event_nothing_is_left(self, data: TrainData) -> None:
        (item,) = self.met(data, 0)
        cue, left, z = self.cue(model(data), 0, item)
        assert z[:, item].any()
        assert not cue.any()
        assert left.tolist() == [False, False]

    def test_of_two_the_other_is_left(self, data: TrainData) -> None:
        one, other = self.met(data, 1)
        for positive, rest in ((one, other), (other, one)):
            cue, left, z = self.cue(model(data), 1, positive)
            torch.testing.assert_close(cue, z[:, rest], atol=1e-6, rtol=1e-5)
            assert left.tolist() == [bool(one.present[rest]) for one in data.catalog.modalities.values()]

    def test_presence_is_counted(self, content_shop: Shop) -> None:
        """What is left of a user whose only other item has text alone, or nothing."""
        shop = content_shop(absent={"image": [1, 2], "text": [2]})
        pairs = [(0, 0), (0, 1), (1, 0), (1, 2), (2, 1), (2, 2)] + [
            (u, 3 + (u + k) % 20) for u in range(3, 40) for k in (0, 3)
        ]
        user, item = np.array(pairs, dtype=np.int32).T
        built = model(replace(shop, interactions=Interactions(user, item, 40, 30)))
        expected = {(0, 0): [False, True], (0, 1): [True, True], (1, 0): [False, False], (1, 2): [True, True]}
        for (u, positive), present in {**expected, (2, 1): [False, False], (2, 2): [False, True]}.items():
            cue, left, _ = self.cue(built, u, positive)
            assert left.tolist() == present
            assert cue.any(dim=1).tolist() == present, "exactly zero where nothing is left"

    def test_the_content_of_the_positive_changes_nothing(self, data: TrainData) -> None:
        """Exactly z_i is taken out: whatever it is, the cue stays."""
        built, user = model(data), 7
        z, present = built.content_signals(built.train_catalog)
        positive = self.met(data, user)[2]
        batch = Triples(*(torch.tensor([one]) for one in (user, positive, 0)))
        before, _ = built.cue(z, present, batch)
        other = z.detach().clone()
        other[:, positive] += 10 * torch.randn(2, 6)
        after, _ = built.cue(other, present, batch)
        torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
        full = model(data, cue="full")
        assert (full.cue(other, present, batch)[0] - full.cue(z, present, batch)[0]).abs().max() > 0.1

    def test_every_pair_against_the_items_left(self, data: TrainData) -> None:
        built, plain = model(data), Plain(model(data), data)
        for user in (0, 1, 7, 12, 39):
            for positive in self.met(data, user):
                cue, left, _ = self.cue(built, user, positive)
                expected, present = plain.history(user, positive)
                torch.testing.assert_close(cue.double(), expected, atol=1e-6, rtol=1e-5)
                assert left.tolist() == present.tolist()


class TestViews:
    def test_without_content_induced_edges_view_b_is_view_a_bit_for_bit(self, data: TrainData) -> None:
        none = {**TRIALS["edges"], "user_edges": 0, "item_edges": 0}
        built = model(data, edges=none, dropout=0.5)
        for epoch in (None, 1):
            if epoch:
                built.start_epoch(epoch)
            views = built.behaviour(built.views if epoch is None else built.thinned)
            assert torch.equal(*views)
            assert torch.equal(built.fused(views), views[0])
        with_edges = model(data)
        assert not torch.equal(*with_edges.behaviour(with_edges.views))

    def test_no_edge_is_a_train_event(self, data: TrainData) -> None:
        pseudo, _ = model(data, edges={**TRIALS["edges"], "user_edges": 8, "item_edges": 8}).added
        assert pseudo.nnz > 200
        assert pseudo.multiply(data.interactions.csr).nnz == 0
        assert pseudo[2].nnz == 0, "by rows a user without an event has none"

    def test_edges_know_train_events_alone(self, content_shop: Shop) -> None:
        """Two splits of the same train part; what is held out is a fifth of the events, or events of nobody's taste."""
        shop, rng = content_shop(), np.random.default_rng(0)
        held_out = rng.random(len(shop.interactions)) < 0.2
        train, rest = shop.interactions.take(~held_out), shop.interactions.take(held_out)
        other = replace(rest, item=rng.permutation(rest.item))
        found = []
        for part in (rest, other):
            dataset = Dataset("shop", shop.users, shop.catalog, part)
            found.append(model(Split(dataset, train, part.take(slice(0)), part, kind="given").train_data()).added[0])
        assert (found[0] != found[1]).nnz == 0
        assert (found[0] != model(shop).added[0]).nnz > 0, "held-out events, were they seen, would change edges"
        assert found[0].multiply(rest.csr).nnz > 0, "an edge may foretell a held-out event: nobody told it"

    def test_the_fusion_starts_near_view_a(self, data: TrainData) -> None:
        built = model(data, moved=False)
        real, added = built.behaviour(built.views)
        beta = torch.sigmoid(-0.85 - 0.1 * built.degree.log1p()).unsqueeze(1)
        torch.testing.assert_close(built.fused([real, added]), (1 - beta) * real + beta * added)

    def test_scores_take_the_whole_graph_after_an_epoch(self, data: TrainData) -> None:
        built = model(data, dropout=0.8)
        before = built.scorer(data.catalog)(EVERYBODY)
        built.start_epoch(1)
        assert built.thinned[0].columns.numel() < 0.3 * built.views[0].columns.numel()
        torch.testing.assert_close(built.scorer(data.catalog)(EVERYBODY), before, atol=0, rtol=0)


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
