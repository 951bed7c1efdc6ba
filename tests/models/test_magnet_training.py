"""MAGNET's training: the stages, what is recorded, the published ablations, and bad input."""

import itertools
import json
import sys
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modalmix.data.catalog import Catalog
from modalmix.data.interactions import Interactions
from modalmix.data.modality import Modality
from modalmix.data.shop import ShopConfig, plant
from modalmix.data.split import Split, TrainData
from modalmix.data.splitters import SplitConfig, make_split
from modalmix.errors import ConfigError, ModelError
from modalmix.evaluation import retrieval_curve
from modalmix.models.contract import Query, Triples, find_model
from modalmix.models.magnet import Magnet, MagnetConfig
from modalmix.train import Fitted, TrainConfig, fit
from modalmix.train.ablation import ablate
from tests.models.conftest import Shop
from tests.models.training import cold_items_follow_content

EVERYBODY = Query(users=torch.arange(40))
QUIET = TrainConfig(device="cpu", progress=False)
SMALL: dict[str, Any] = {
    "dim": 8,
    "layers": 1,
    "dropout": 0.3,
    "dual_view": True,
    "neighbors": 5,
    "cue": "leave-out",
    "base": "fused",
    "prior": "filter",
    "experts": "roles",
    "expert_hidden": 4,
    "router": "bilinear",
    "cues": "signals",
    "mixture_gradient": "all",
    "top_k": 2,
    "noise": 0.5,
    "cover": 0.1,
    "specialise": 0.05,
    "trigger": "coverage",
    "trigger_threshold": 0.9,
    "trigger_latest": 30,
    "ramp": 2,
    "contrast": 0.0,
    "reg": 0.0,
    "lr": 0.02,
    "batch_size": 256,
    "epochs": 4,
    "patience": 50,
    "eval_every": 1,
    "seed": 3,
}


@pytest.fixture(scope="module")
def split() -> Split:
    shop = plant(ShopConfig.parse({"users": 60, "items": 50, "events_per_user": 8, "seed": 1}))
    return make_split(shop.dataset_with_features(), SplitConfig.parse({"kind": "random", "seed": 0}))


@pytest.fixture
def scores_fall_after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """scores_fall_after(n): validation scores rise up to the n-th validation and fall after it."""

    def script(best: int) -> None:
        scores = (-abs(best - one) for one in itertools.count(1))
        monkeypatch.setattr(sys.modules["modalmix.train.fit"], "validation", lambda *_: lambda model: next(scores))

    return script


def settings(**changes: Any) -> MagnetConfig:
    return MagnetConfig.parse({**SMALL, **changes})


def built(data: TrainData, **changes: Any) -> Magnet:
    torch.manual_seed(0)
    return Magnet(settings(**changes), data)


def learnt(data: TrainData, epochs: int = 3, **changes: Any) -> Magnet:
    """Some epochs of the bare model, as the loop does them."""
    model = built(data, **changes)
    model.prepare(data)
    optimizer = model.optimizer()
    for epoch in range(1, epochs + 1):
        rng = np.random.default_rng(epoch)
        model.train()
        model.start_epoch(epoch)
        for batch in model.batches(data, 256, rng):
            optimizer.zero_grad()
            torch.stack(list(model.loss(batch).values())).sum().backward()
            optimizer.step()
        model.end_epoch(epoch, {name: float(value) for name, value in model.monitored().items()})
    return model.eval()


def stages(fitted: Fitted) -> list[float]:
    return [row["report"]["stage"] for row in fitted.result.history]


class TestSchedule:
    @pytest.mark.parametrize(
        ("changes", "last"),
        [
            ({"trigger": "epoch:3"}, 3),
            ({"trigger": "coverage", "trigger_latest": 6}, 6),
            ({"trigger": "coverage", "trigger_threshold": 0.3, "lr": 1e-3}, 5),
            ({"trigger": "plateau", "lr": 1e-3}, 5),
            ({"trigger": "plateau", "lr": 1e-3, "trigger_first": 2}, 3),
            ({"trigger": "plateau", "lr": 1e-3, "trigger_first": 2, "trigger_window": 2}, 2),
            ({"trigger": "plateau", "lr": 1e-3, "trigger_window": 7}, 7),
            ({"trigger": "plateau", "lr": 1e-3, "trigger_still": 0.0, "trigger_latest": 6}, 6),
            ({"trigger": "never"}, 8),
        ],
    )
    def test_stage_2_begins_once_after_the_epoch_the_rule_says(
        self, split: Split, changes: dict[str, Any], last: int
    ) -> None:
        if "trigger_latest" in changes:  # H_use cannot be 1: the rule by itself never holds
            changes = {**changes, "trigger_threshold": 1.0}
        fitted = fit("magnet", split, settings(**changes, epochs=8), QUIET)
        assert stages(fitted) == [1.0] * last + [2.0] * (8 - last)
        forced = [row["report"]["forced"] for row in fitted.result.history]
        assert forced == [float("trigger_latest" in changes and epoch == 6) for epoch in range(1, 9)]
        weights = [(row["report"]["w_cov"], row["report"]["w_spec"]) for row in fitted.result.history]
        cosine = [(0.1 * (1 - 0.7 * r), 0.05 * r) for r in (0.5, 1.0, *[1.0] * 8)]  # a ramp of two epochs
        np.testing.assert_allclose(weights, ([(0.1, 0.0)] * last + cosine)[:8])
        for row in fitted.result.history:
            assert ("specialise" in row["loss"]) == (row["report"]["w_spec"] > 0)

    def test_the_epoch_follows_from_what_was_recorded(self, split: Split) -> None:
        """The rule restated on the recorded entropies: its own epoch, neither the first possible nor forced."""
        changes = {"trigger": "coverage", "trigger_threshold": 0.3, "lr": 0.05, "batch_size": 64, "epochs": 16}
        fitted = fit("magnet", split, settings(**changes, trigger_latest=15), QUIET)
        use, route = (np.array([row["report"][name] for row in fitted.result.history]) for name in ("H_use", "H_route"))
        holds = [e for e in range(5, 17) if use[e - 3 : e].min() >= 0.3 and np.ptp(route[e - 3 : e]) <= 0.02]
        fires = min([*holds, 15])
        assert 5 < fires < 15
        assert stages(fitted) == [1.0] * fires + [2.0] * (16 - fires)

    @pytest.mark.parametrize(("killed", "kept"), [(5, 3), (8, 6)], ids=["before", "in the ramp"])
    def test_killed_inside_an_epoch_and_resumed_it_fires_at_the_same_one(
        self, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed: int, kept: int
    ) -> None:
        """It fires at the end of epoch 5, the first that may; the window began in 3. The ramp: 6 to 9."""
        config = settings(trigger="coverage", trigger_threshold=0.3, lr=1e-3, ramp=4, epochs=10)
        train = QUIET.replace(checkpoint_every=3)
        whole = fit("magnet", split, config, train, tmp_path / "whole")
        loss, steps = Magnet.loss, []

        def interrupt(self: Magnet, batch: Triples) -> Mapping[str, torch.Tensor]:
            steps.append(self.schedule.epoch)
            if steps.count(killed) == 2:
                raise KeyboardInterrupt
            return loss(self, batch)

        with monkeypatch.context() as patched:
            patched.setattr(Magnet, "loss", interrupt)
            with pytest.raises(KeyboardInterrupt, match=f"stopped in epoch {killed}. The state after epoch {kept} is"):
                fit("magnet", split, config, train, tmp_path / "killed")
        resumed = fit("magnet", split, config, train, tmp_path / "killed")
        assert stages(resumed) == stages(whole) == [1.0] * 5 + [2.0] * 5
        reports = [[row["report"] for row in fitted.result.history] for fitted in (whole, resumed)]
        assert reports[0] == reports[1]
        ours, theirs = resumed.model.state_dict(), whole.model.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert {"schedule.stage", "schedule.triggered", "mean_gate"} <= ours.keys()
        everybody = Query(users=torch.arange(60))
        assert torch.equal(resumed.scorer()(everybody), whole.scorer()(everybody))

    def test_early_stopping_waits_for_the_ramp(self, split: Split) -> None:
        """Triggered after 3 epochs, a ramp of 4: epoch 7 is the first that may count as one without a gain."""
        model = built(split.train_data(), trigger="epoch:3", ramp=4)
        settled = []
        for epoch in range(1, 9):
            model.start_epoch(epoch)
            gates = {f"gate/{k}": 1 / 9 for k in range(9)}
            model.end_epoch(epoch, {**gates, "H_route": 0.99})
            settled.append(model.settled)
        assert settled == [False] * 6 + [True] * 2
        assert built(split.train_data(), trigger="never").settled
        assert built(split.train_data(), experts="none").settled

    @pytest.mark.parametrize(("ramp", "stops"), [(4, 12), (5, 15)])
    def test_where_a_falling_score_stops_training(
        self, split: Split, scores_fall_after: Callable[[int], None], ramp: int, stops: int
    ) -> None:
        """Validated every 3 epochs, patience 6: two without a gain, from epoch 5 + ramp on."""
        scores_fall_after(1)
        config = settings(trigger="epoch:5", ramp=ramp, lr=1e-3, epochs=30, patience=6, eval_every=3)
        result = fit("magnet", split, config, QUIET).result
        assert (result.stopped, result.epochs, result.best_epoch) == ("patience", stops, 3)

    @pytest.mark.parametrize("folder", [None, "run"])
    def test_best_weights_of_stage_1_are_served_as_stage_1(
        self, split: Split, scores_fall_after: Callable[[int], None], tmp_path: Path, folder: str | None
    ) -> None:
        """All experts where the best epoch came before the trigger: as they were when validation judged them."""
        scores_fall_after(2)
        run = None if folder is None else tmp_path / folder
        fitted = fit("magnet", split, settings(trigger="epoch:3", epochs=5), QUIET, run)
        assert stages(fitted) == [1.0] * 3 + [2.0] * 2
        assert fitted.result.best_epoch == 2
        models = [fitted.model]
        if run is not None:
            models.append(fit("magnet", split, fitted.model.config, QUIET, run).model)  # it is finished: only loaded
        warm = torch.from_numpy(np.flatnonzero(split.train_data().warm))
        for model in models:
            assert isinstance(model, Magnet)
            assert int(model.schedule.stage) == 1
            gates = model.routing(Query(users=torch.arange(60)), warm)
            assert gates is not None
            assert (gates["experts"] > 0).all()

    def test_collapse_drill(self, split: Split) -> None:
        """Nothing asks for coverage and much for sure gates: use falls, and the guard says so, once."""
        changes = {"trigger": "epoch:1", "ramp": 1, "lr": 0.05, "epochs": 14, "batch_size": 128, "prior": "none"}
        config = settings(**changes, cover=0.0, specialise=20.0, noise=0.0)
        with pytest.warns(UserWarning, match="few experts do all the work") as caught:
            fitted = fit("magnet", split, config, QUIET)
        assert len([one for one in caught if "few experts" in str(one.message)]) == 1
        use = [row["report"]["H_use"] for row in fitted.result.history]
        assert use[0] > use[-1] + 0.2
        assert use[-1] < 0.5
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            covered = fit("magnet", split, config.replace(cover=20.0, specialise=0.05), QUIET)
        assert covered.result.history[-1]["report"]["H_use"] > 0.9


class TestReport:
    def test_names_read_well(self, split: Split) -> None:
        fitted = fit("magnet", split, settings(epochs=2), QUIET)
        report = fitted.result.history[-1]["report"]
        loads = [name for name in report if name.startswith("load/")]
        assert loads == [
            "load/dominant behaviour",
            "load/dominant image",
            "load/dominant text",
            "load/balanced behaviour+image",
            "load/balanced behaviour+text",
            "load/balanced image+text",
            "load/complementary behaviour",
            "load/complementary image",
            "load/complementary text",
        ]
        assert sum(report[name] for name in loads) == pytest.approx(1.0)
        others = {"H_use", "H_route", "stage", "w_cov", "w_spec", "forced", "trust", "trust_by_degree"}
        assert report.keys() - set(loads) == others
        mean = torch.tensor([report[name] for name in loads])
        assert report["H_use"] == pytest.approx(float(-(mean * mean.log()).sum() / np.log(9)), abs=1e-5)
        assert 0 < report["H_route"] <= report["H_use"] + 1e-6, "pair and expert share information: never negative"

    def test_what_is_retrieved_by_has_the_mean_gates_of_the_epoch_that_is_served(self, split: Split) -> None:
        fitted = fit("magnet", split, settings(epochs=3), QUIET)
        served = fitted.result.history[fitted.result.best_epoch - 1]["report"]
        loads = torch.tensor([value for name, value in served.items() if name.startswith("load/")])
        torch.testing.assert_close(fitted.model.mean_gate, loads)
        assert loads.std() > 1e-3, "not all alike, as before training"

    def test_a_run_folder_keeps_it_of_every_epoch(self, split: Split, tmp_path: Path) -> None:
        """What decides the stage stands first, in the file too."""
        fit("magnet", split, settings(epochs=3, trigger="epoch:2"), QUIET, tmp_path / "run")
        rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
        assert [row["report"]["stage"] for row in rows] == [1, 1, 2]
        for row in rows:
            assert list(row["report"])[:3] == ["H_use", "H_route", "stage"]
            loads = [value for name, value in row["report"].items() if name.startswith("load/")]
            assert len(loads) == 9
            assert sum(loads) == pytest.approx(1.0)

    def test_of_what_there_is(self, split: Split) -> None:
        without = fit("magnet", split, settings(epochs=1, prior="none", experts="none"), QUIET)
        assert without.result.history[-1]["report"] == {}
        prior = fit("magnet", split, settings(epochs=1, experts="none"), QUIET)
        assert prior.result.history[-1]["report"].keys() == {"trust", "trust_by_degree"}

    def test_the_trust_in_the_filter_is_learnt(self, split: Split) -> None:
        report = fit("magnet", split, settings(epochs=3), QUIET).result.history[-1]["report"]
        assert abs(report["trust"]) > 1e-3
        assert report["trust_by_degree"] != 0.0


class TestPaper:
    """The preset `paper`."""

    def test_it_has_the_constants_of_our_reading(self) -> None:
        paper = MagnetConfig.preset("paper").model_dump()
        ours: dict[str, Any] = {"cover": 0.1, "specialise": 0.05, "ramp": 10, "top_k": 2, "trigger": "coverage"}
        ours |= {"dual_view": True, "edge_weight": 0.5, "dim": 64, "layers": 2, "lr": 1e-3, "reg": 1e-4}
        ours |= {"contrast": 0.01, "temperature": 0.2, "expert_hidden": 64, "prior": "none", "base": "behaviour"}
        assert paper | ours == paper
        edges = {"user_edges": 5, "item_edges": 5, "rho": 1.0}
        assert paper["edges"] | edges == paper["edges"]

    def test_it_trains(self, split: Split) -> None:
        fitted = fit("magnet", split, MagnetConfig.preset("paper", epochs=3, neighbors=5), QUIET)
        for row in fitted.result.history:
            assert row["loss"].keys() == {"bpr", "cover", "contrast", "reg"}
            assert np.isfinite(list(row["loss"].values())).all()
        assert fitted.scorer()(Query(users=torch.arange(60))).isfinite().all()


def test_twenty_candidates_by_each_have_nearly_all_of_the_first_ten() -> None:
    """As many drawn at random would have scored / 300 of them. The index alone has three quarters, the prior half."""
    shop = plant(ShopConfig.parse({"users": 150, "items": 300, "events_per_user": 8, "seed": 1}))
    split = make_split(shop.dataset_with_features(), SplitConfig.parse({"kind": "random", "seed": 0}))
    model = fit("magnet", split, settings(trigger="epoch:2", epochs=6, eval_every=6), QUIET).model
    assert isinstance(model, Magnet)
    assert model.schedule.specialising
    (point,) = retrieval_curve(model.scorer(split.dataset.catalog), split.validation(), (20,), (10,)).points
    assert point.recall[10] > point.scored / 300 + 0.75


class TestAblations:
    NAMES = ("no-routing-regularisation", "no-experts", "no-templates", "no-two-stages")

    def test_the_four_published_ones_are_switches_that_train(self, split: Split) -> None:
        assert set(self.NAMES) <= set(MagnetConfig.ablations)
        result = ablate(
            find_model("magnet"),
            split,
            settings(epochs=2),
            names=self.NAMES,
            seeds=1,
            train=QUIET,
            metrics=("recall@20",),
        )
        assert [variant.name for variant in result.variants] == ["full", *self.NAMES]
        found = {one["system"]: one for one in result.to_dict()["findings"]}
        assert found.keys() == {"full", *self.NAMES}

    def test_what_each_takes_out(self, split: Split) -> None:
        data = split.train_data()
        full, *models = (
            Magnet(settings().replace(**MagnetConfig.ablations.get(name, {})), data) for name in ("full", *self.NAMES)
        )
        batch = next(iter(full.batches(data, 64, np.random.default_rng(0))))
        regularised, experts, templates, stages = models
        assert regularised.loss(batch).keys() == {"bpr"}
        assert experts.experts is None
        assert experts.loss(batch).keys() == {"bpr"}
        assert not any("router" in name or "experts" in name for name, _ in experts.named_parameters())
        assert not any("theta" in name for name, _ in templates.named_parameters())
        assert len(templates.roles) == len(full.roles)
        assert stages.settled
        assert not full.settled


def test_it_learns(content_shop: Shop) -> None:
    """Content and behaviour alike say what users like: the loss falls, and cold items that are liked rank higher."""
    data = content_shop(users=80, items=60, cold=20)
    first, last = (learnt(data, epochs, prior="none", trigger="epoch:10") for epochs in (1, 25))
    batch = next(iter(first.batches(data, 400, np.random.default_rng(0))))
    with torch.no_grad():
        assert last.loss(batch)["bpr"] < 0.6 * first.loss(batch)["bpr"]
    assert last.schedule.specialising


DEFAULT_FORM = {"dual_view": False, "expert_hidden": 0, "cues": "evidence", "mixture_gradient": "none"}


@pytest.mark.parametrize(("form", "at_least"), [(DEFAULT_FORM, 0.5), ({}, 0.35)])
def test_cold_items_follow_content(
    content_shop: Shop, content_correlation: Any, form: dict[str, Any], at_least: float
) -> None:
    data = content_shop(users=80, items=60, cold=20)
    model = learnt(data, 25, prior="none", trigger="epoch:10", **form)
    cold_items_follow_content(model, data, content_correlation, at_least)


@pytest.mark.parametrize("form", [DEFAULT_FORM, {}, {"purify": True}, {"edges": {"augment": "both"}}])
def test_the_id_of_a_cold_item_moves_nothing(content_shop: Shop, form: dict[str, Any]) -> None:
    """Not in training, not in scores, not through the neighbours; what content-induced edges bring it has."""
    data = content_shop(users=80, items=60, cold=20)
    model = learnt(data, 1, prior="none", **form)
    cold, everybody = torch.from_numpy(~data.warm), Query(users=torch.arange(80))
    batch = next(iter(model.batches(data, 400, np.random.default_rng(0))))
    model.zero_grad()
    torch.stack(list(model.train().loss(batch).values())).sum().backward()
    gradient = model.items.weight.grad
    assert gradient is not None
    assert not gradient[cold].any()
    assert gradient[~cold].any()
    with torch.no_grad():
        before = model.eval().scorer(data.catalog)(everybody)
        model.items.weight[cold] += 5.0
        assert torch.equal(model.scorer(data.catalog)(everybody), before)
        _, items = model.encode(data.catalog)
    assert bool(items.z[0, cold].any()) == model.config.dual_view


class TestOtherWorlds:
    """Each is trained a little and scored: no number is lost, and who has nothing keeps what is known."""

    def finite(self, data: TrainData, **changes: Any) -> torch.Tensor:
        model = learnt(data, 2, **{"trigger": "epoch:1", "trigger_latest": 1, **changes})
        assert all(bool(weight.isfinite().all()) for weight in model.parameters())
        scores = model.scorer(data.catalog)(Query(users=torch.arange(data.n_users)))
        assert scores.isfinite().all()
        assert all(np.isfinite(value) for value in model.report().values())
        return scores

    def test_items_without_any_feature(self, content_shop: Shop) -> None:
        """Of warm ones behaviour is left; a cold one scores the same for everybody, zero."""
        scores = self.finite(content_shop(absent={"image": [2, 5, 27], "text": [2, 27]}))
        assert scores[:, 2].std() > 1e-3
        assert not scores[:, 27].any()

    def test_no_modality_for_anybody(self, content_shop: Shop) -> None:
        with pytest.raises(ModelError, match="no item with a train interaction"):
            built(content_shop(absent={"image": range(24)}))

    def test_users_with_one_event_and_none(self, content_shop: Shop) -> None:
        shop = content_shop()
        events = shop.interactions
        first = np.unique(events.user, return_index=True)[1]
        one_each = events.take(np.isin(np.arange(len(events)), first))
        scores = self.finite(replace(shop, interactions=one_each))
        assert scores.std(dim=1).min() > 1e-4
        without = replace(shop, interactions=events.take(events.user != 7))
        assert not self.finite(without, base="fused")[7].any()

    def test_a_modality_whose_rows_are_all_alike(self, content_shop: Shop) -> None:
        shop = content_shop()
        alike = Modality.from_matrix("image", np.ones((30, 4), dtype=np.float32))
        catalog = Catalog(shop.catalog.items, {"image": alike, "text": shop.catalog.modality("text")})
        for purify in (False, True):
            assert self.finite(replace(shop, catalog=catalog), purify=purify).std() > 1e-3

    def test_more_neighbours_than_items(self, content_shop: Shop) -> None:
        with pytest.raises(ConfigError, match=r"neighbors: got 31, expected at most the 30 items"):
            built(content_shop(), neighbors=31)
        assert self.finite(content_shop(), neighbors=30).std() > 1e-3

    @pytest.mark.parametrize("number", [1, 4])
    def test_one_modality_and_four(self, content_shop: Shop, number: int) -> None:
        dims = dict(list({"text": 8, "image": 12, "audio": 5, "video": 7}.items())[:number])
        data = content_shop(dims)
        assert self.finite(data, contrast=0.1, reg=0.01, purify=True).std() > 1e-3
        model = built(data)
        assert len(model.roles) == {1: 5, 4: 20}[number]
        assert all(modality in "".join(model.signals) for modality in dims)

    def test_a_user_who_met_everything(self, content_shop: Shop) -> None:
        """There is nothing to add, and no negative to train on: the others train, and it is scored all the same."""
        shop = content_shop(cold=0)
        events, everything = shop.interactions, np.arange(30, dtype=np.int32)
        kept = events.user != 4
        user = np.concatenate([events.user[kept], np.full(30, 4, dtype=np.int32)])
        data = replace(shop, interactions=Interactions(user, np.concatenate([events.item[kept], everything]), 40, 30))
        model = built(data)
        assert model.added is not None
        assert model.added[0][4].nnz == 0
        assert model.scorer(data.catalog)(EVERYBODY).isfinite().all()
        users = torch.cat([batch.user for batch in model.batches(data, 256, np.random.default_rng(0))])
        assert users.sort().values.tolist() == sorted(events.user[kept])
        trained = learnt(data).scorer(data.catalog)(EVERYBODY)
        assert trained.isfinite().all()
        assert trained[4].std() > 1e-3

    def test_settings_that_cannot_be(self, content_shop: Shop) -> None:
        bad: list[dict[str, Any]] = [
            {"trigger": "sometimes"},
            {"trigger": "epoch:"},
            {"trigger_window": 0},
            {"trigger_first": 0},
            {"trigger_still": -0.1},
            {"dropout": 1.0},
            {"top_k": 0},
            {"temperature": 0.0},
            {"edge_weight": -1.0},
            {"router": "pair"},
            {"edges": {"tail": 2.0}},
            {"filter": {"entries": 0}},
            {"trigger_threshold": 1.5},
        ]
        for changes in bad:
            with pytest.raises(ConfigError):
                settings(**changes)
        with pytest.raises(ConfigError, match="no modality 'texts'"):
            built(content_shop(), graph_weights={"image": 1.0, "texts": 1.0})
        with pytest.raises(ConfigError, match="agree"):
            built(content_shop(), edges={"agree": 3})
        with pytest.raises(ModelError, match="texts"):
            built(content_shop(), modalities=("texts",))

    def test_more_experts_than_there_are_may_be_asked_for(self, content_shop: Shop) -> None:
        assert built(content_shop(), top_k=50).top_k == 9
        assert built(content_shop(), top_k=2, router="uniform").top_k == 9
