"""MAMEX taught by a collaborative teacher: what reaches what, any number of modalities, missing ones, bad input."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from modalmix.data.catalog import Catalog
from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.data.modality import Modality
from modalmix.data.split import TrainData
from modalmix.errors import ModelError, TrainError
from modalmix.models.contract import Calibration, Query, calibrate, find_model, teach
from modalmix.models.contract.teacher import draw_folds
from modalmix.models.mamex import Mamex, MamexConfig
from modalmix.nn.als import fold_in_users
from modalmix.train.loop import train
from modalmix.train.run import RunFolder
from modalmix.train.settings import TrainConfig
from tests.models.conftest import Shop

USERS = Query(users=torch.arange(40))
SMALL: dict[str, Any] = {
    "modality_dropout": 0.0,
    "teacher": {"dim": 6},
    "teacher_regs": (),
    "experts": 4,
    "top_k": 2,
    "batch_size": 16,
    "dropout": 0.0,
}
ABSENT = {"image": [0, 1, 2, 29], "text": [2, 3, 29]}  # items 2 (warm) and 29 (cold) have nothing
QUIET = TrainConfig(device="cpu", progress=False)


def prepared(data: TrainData, **settings: Any) -> Mamex:
    torch.manual_seed(0)
    of = Mamex(MamexConfig.parse({**SMALL, **settings}), data)
    of.prepare(data)
    return of.eval()


def learnt(data: TrainData, epochs: int = 5, **settings: Any) -> Mamex:
    """Every term of every batch is checked on the way."""
    of = prepared(data, **settings).train()
    optimizer = of.optimizer()
    for epoch in range(epochs):
        for batch in of.batches(data, of.config.batch_size, np.random.default_rng(epoch)):
            optimizer.zero_grad()
            terms = of.loss(batch)
            assert all(bool(term.isfinite()) for term in terms.values())
            torch.stack(list(terms.values())).sum().backward()
            assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in of.parameters())
            optimizer.step()
    return of.eval()


def everything(of: Mamex, data: TrainData) -> torch.Tensor:
    return of.scorer(data.catalog)(Query(users=torch.arange(data.n_users)))


def reordered(data: TrainData, order: np.ndarray) -> TrainData:
    """The same data; `order[k]` is the item that stands in row k."""
    catalog = Catalog(
        IdMap(data.catalog.items.ids(order)),
        {name: Modality.from_matrix(name, _matrix(m)[order]) for name, m in data.catalog.modalities.items()},
    )
    events = data.interactions
    return TrainData(
        data.users,
        catalog,
        Interactions(events.user, np.argsort(order)[events.item].astype(np.int32), data.n_users, data.n_items),
    )


def _matrix(modality: Modality) -> np.ndarray:
    return np.where(modality.present[:, None], modality.matrix(), np.nan).astype(np.float32)


class TestWhatReachesWhat:
    def test_the_target_of_an_item_does_not_reach_what_is_said_of_it_unseen(
        self, content_shop: Shop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """One strength: the choice among several sees all items. The teacher is the same but for one item."""
        data = content_shop()

        def changed(*arguments: Any) -> tuple[torch.Tensor, torch.Tensor]:
            users, items = teach(*arguments)
            items[5] += 30.0
            return users, items

        before = prepared(data, strengths=(1.0,)).unseen
        monkeypatch.setattr("modalmix.models.contract.teacher.teach", changed)
        after = prepared(data, strengths=(1.0,)).unseen
        fold = draw_folds(data.catalog.items, 5, MamexConfig().seed)
        torch.testing.assert_close(after[fold == fold[5]], before[fold == fold[5]], atol=5e-3, rtol=0)
        assert float((after - before)[fold != fold[5]].abs().max()) > 1.0

    @pytest.mark.parametrize("settings", [{}, {"align": 0.3, "balance": 0.1, "load": 0.1, "fusion_balance": 0.1}])
    def test_permuting_items_permutes_vectors_and_scores(self, content_shop: Shop, settings: dict[str, Any]) -> None:
        """Folds go by id; a batch of all items has no order. Landmarks are all items: a draw among them has one."""
        data = content_shop(absent={"image": [1, 4, 29]})
        order = np.random.default_rng(0).permutation(data.n_items)
        permuted = reordered(data, order)
        ours, theirs = (learnt(one, 3, batch_size=100, **settings) for one in (data, permuted))
        rows = torch.from_numpy(order)
        torch.testing.assert_close(theirs.unseen, ours.unseen[rows], atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(
            theirs.encode(theirs.train_content).vectors,
            ours.encode(ours.train_content).vectors[rows],
            atol=1e-3,
            rtol=1e-3,
        )
        torch.testing.assert_close(everything(theirs, permuted), everything(ours, data)[:, rows], atol=2e-3, rtol=2e-3)

    def test_a_cold_vector_depends_on_no_id(self, content_shop: Shop) -> None:
        """A new item with the content of a cold one has its vector and its scores; the others keep theirs."""
        data = content_shop(absent={"image": [27]})
        of = learnt(data)
        for row in (25, 27):
            twin = {name: m.matrix([row]) for name, m in data.catalog.modalities.items() if m.present[row]}
            scorer = of.scorer(data.catalog.extend(pl.DataFrame({"item": [999]}), twin))
            torch.testing.assert_close(scorer.items[-1], scorer.items[row])
            torch.testing.assert_close(scorer(USERS)[:, -1], scorer(USERS)[:, row])
            torch.testing.assert_close(scorer(USERS)[:, :-1], everything(of, data))

    def test_a_warm_item_is_its_factor_and_a_part_of_its_content(self, content_shop: Shop) -> None:
        data = content_shop()
        of = learnt(data, content_of_warm=0.25)
        scorer, vectors = of.scorer(data.catalog), of.encode(of.train_content).vectors.detach()
        warm, dim = torch.from_numpy(data.warm), 6
        torch.testing.assert_close(scorer.items[warm, :dim], of.teacher_items[warm] + 0.25 * vectors[warm])
        assert not bool(scorer.items[warm, dim:].any()), "profiles are for cold items"
        torch.testing.assert_close(scorer.items[~warm, :dim], vectors[~warm])

    def test_a_cold_item_has_the_same_vector_whatever_became_of_it(self, content_shop: Shop) -> None:
        """Popularity and factor rows of cold items are ignored: they are nobody's."""
        data = content_shop()
        of = learnt(data)
        before = everything(of, data)
        cold = torch.from_numpy(~data.warm)
        of.teacher_items[cold] = 7.0
        of.popularity[cold] = 7.0
        torch.testing.assert_close(everything(of, data), before)

    def test_scores_are_those_of_the_buffers_by_hand(self, content_shop: Shop) -> None:
        data = content_shop()
        of = learnt(data)
        of.profile_weight.fill_(0.7)
        of.popularity.uniform_()
        scores, cold = everything(of, data), torch.from_numpy(~data.warm)
        vectors = of.encode(of.train_content).vectors.detach()
        places = []
        for profile, x in zip(of.profiles, of.train_content.features, strict=True):
            y = (x - x[~cold].mean(dim=0)) @ profile.basis
            places.append(y / y.norm(dim=1, keepdim=True))
        y = torch.cat(places, dim=1)
        csr = data.interactions.csr.toarray() > 0
        means = torch.stack([y[torch.from_numpy(met)].mean(dim=0) for met in csr])
        expected = of.teacher_users @ vectors.T + 0.7 * means @ y.T
        torch.testing.assert_close(scores[:, cold], expected[:, cold], atol=1e-4, rtol=1e-4)
        warm = of.teacher_users @ (of.teacher_items + 0.3 * vectors).T + of.popularity
        torch.testing.assert_close(scores[:, ~cold], warm[:, ~cold], atol=1e-4, rtol=1e-4)

    def test_the_loss_by_hand(self, content_shop: Shop) -> None:
        """sqrt(n_i) |h_i - V_i|^2 over its mean for h = 0. Before any step h is the mean of experts and modalities."""
        data = content_shop()
        of = prepared(data, top_k=4)
        (batch,) = of.batches(data, 100, np.random.default_rng(0))
        rows = torch.from_numpy(np.flatnonzero(data.warm))
        assert torch.equal(batch.sort().values, rows)
        n = torch.from_numpy(np.sqrt(data.interactions.item_degree)).float()[rows]
        targets = of.teacher_items[rows]
        errors = n * (of.unseen[rows].mean(dim=(1, 2)) - targets).square().sum(dim=1)
        expected = errors.mean() / (n * targets.square().sum(dim=1)).mean()
        torch.testing.assert_close(of.loss(batch)["teacher"], expected)
        assert float(expected.detach()) < 1.0, "better than nothing"

    def test_learning_lowers_the_loss_on_items_the_experts_have_not_seen(self, content_shop: Shop) -> None:
        data = content_shop()
        start, end = prepared(data), learnt(data, 40)
        assert len(start.learnable) == 24
        before, after = (of.loss(of.learnable)["teacher"].item() for of in (start, end))
        assert after < 0.97 * before

    def test_batches_are_warm_items_with_content_each_once(self, content_shop: Shop) -> None:
        data = content_shop(absent={"image": [2, 3], "text": [2]})
        of = prepared(data)
        batches = list(of.batches(data, 10, np.random.default_rng(0)))
        assert of.n_batches(data, 10) == len(batches) == 3
        assert sorted(torch.cat(batches).tolist()) == [row for row in range(24) if row != 2]


class TestMissing:
    @pytest.mark.parametrize(
        ("learn", "missing", "p"),
        [
            combination
            for combination in itertools.product(("taught", "jointly"), ("mask", "zero", "mean", "learned"), (0.0, 0.4))
            if combination != ("jointly", "zero", 0.4)  # refused, and tested so
        ],
    )
    def test_losses_and_scores_are_finite(self, content_shop: Shop, learn: str, missing: str, p: float) -> None:
        data = content_shop(absent=ABSENT)
        every = {"align": 0.1, "balance": 0.1, "load": 0.1, "fusion_balance": 0.1}
        of = learnt(data, 3, learn=learn, missing=missing, modality_dropout=p, dropout=0.1, dim=8, **every)
        assert bool(everything(of, data).isfinite().all())
        scorer = of.scorer(data.catalog)
        assert scorer.without_content is not None
        assert scorer.without_content.nonzero().flatten().tolist() == [2, 29]
        assert bool(scorer.items[29].any()), "an item without content gets the typical vector"

    def test_a_masked_modality_has_a_weight_of_zero(self, content_shop: Shop) -> None:
        of = learnt(content_shop(absent=ABSENT), missing="mask")
        routing = of.routing(USERS, torch.tensor([0, 3, 2, 29, 5]))
        assert routing["modality"][:4].tolist() == [[0.0, 1.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0]]
        assert bool((routing["modality"][4] > 0).all())
        assert routing["experts/image"].count_nonzero(dim=1).tolist() == [0, 2, 0, 0, 2]

    @pytest.mark.parametrize("missing", ["mask", "zero", "mean", "learned"])
    def test_rows_of_the_gates_sum_to_one(self, content_shop: Shop, missing: str) -> None:
        of = learnt(content_shop(absent=ABSENT), missing=missing)
        routing = of.routing(USERS, torch.arange(30))
        empty = torch.tensor([row in (2, 29) for row in range(30)])
        torch.testing.assert_close(routing["modality"].sum(dim=1), 1.0 - empty.float())
        assert bool((routing["modality"] >= 0).all())
        for m, name in enumerate(of.modalities):
            here = of.train_content.present[:, m] if missing == "mask" else ~empty
            torch.testing.assert_close(routing[f"experts/{name}"].sum(dim=1), here.float())

    def test_zero_leaves_a_missing_modality_out_of_the_sum(self, content_shop: Shop) -> None:
        of = learnt(content_shop(absent=ABSENT), missing="zero")
        encoding = of.encode(of.train_content)
        assert 0 < float(encoding.weights[0, 0].detach()) < 1
        torch.testing.assert_close(encoding.vectors[0], encoding.weights[0, 1] * encoding.mixtures[1].vectors[0])

    def test_mean_is_the_running_mean_of_those_that_have_it(self, content_shop: Shop) -> None:
        data = content_shop(absent=ABSENT)
        of = prepared(data, missing="mean").train()
        assert of.typical is not None
        of.loss(of.learnable)
        said, has = of.unseen[of.learnable], of.train_content.present[of.learnable]
        mixtures, _ = of.mixture(said, has, torch.ones_like(has))
        for m, mixture in enumerate(mixtures):
            torch.testing.assert_close(of.typical[m], 0.1 * mixture.vectors[has[:, m]].mean(dim=0).detach())
        encoding = of.eval().encode(of.train_content)
        expected = encoding.weights[0, 0] * of.typical[0] + encoding.weights[0, 1] * encoding.mixtures[1].vectors[0]
        torch.testing.assert_close(encoding.vectors[0], expected)
        assert "typical" in of.state_dict()
        assert "typical" not in dict(of.named_parameters())

    def test_learned_gets_gradient_where_something_is_missing(self, content_shop: Shop) -> None:
        of = prepared(content_shop(absent={"image": [0, 1]}), missing="learned")
        assert of.typical is not None
        of.loss(of.learnable)["teacher"].backward()
        assert bool(of.typical.grad[0].any())
        assert not bool(of.typical.grad[1].any()), "no item lacks a text"

    def test_what_lies_in_the_place_of_a_missing_modality_reaches_nothing(self, content_shop: Shop) -> None:
        data = content_shop(absent=ABSENT)
        of = learnt(data)
        content = of.train_content
        image = content.features[0].clone()
        image[[0, 2]] = 1e3
        changed = content._replace(features=(image, content.features[1]))
        of.said = torch.zeros(0)
        torch.testing.assert_close(of.encode(changed).vectors, of.encode(content).vectors)
        torch.testing.assert_close(of.profiles.places(changed), of.profiles.places(content))

    def test_an_even_gate_weighs_alike_what_is_there(self, content_shop: Shop) -> None:
        of = learnt(content_shop(absent={"image": [0]}), gate="mean", missing="mask")
        assert of.routing(USERS, torch.tensor([0, 1]))["modality"].tolist() == [[0.0, 1.0], [0.5, 0.5]]


class TestShapes:
    @pytest.mark.parametrize("count", [1, 4, 6])
    def test_any_number_of_modalities(self, content_shop: Shop, count: int) -> None:
        names = ("audio", "image", "lyrics", "price", "text", "video")[:count]
        data = content_shop({name: 5 + 2 * k for k, name in enumerate(names)}, absent={"audio": [0, 29]})
        of = learnt(data, 3)
        routing = of.routing(USERS, torch.arange(5))
        assert list(routing) == ["modality", *(f"experts/{name}" for name in names)]
        assert routing["modality"].shape == (5, count)
        assert bool(everything(of, data).isfinite().all())

    @pytest.mark.parametrize("settings", [{"experts": 1, "top_k": 1}, {"experts": 3, "top_k": 3}, {"landmarks": 5}])
    def test_other_numbers_of_experts_and_landmarks(self, content_shop: Shop, settings: dict[str, int]) -> None:
        data = content_shop()
        of = learnt(data, **settings)
        assert bool(everything(of, data).isfinite().all())
        assert of.routing(USERS, torch.arange(3))["experts/text"].shape == (3, settings.get("experts", 4))

    def test_one_modality_by_name(self, content_shop: Shop) -> None:
        of = prepared(content_shop(), modalities=("text",))
        assert of.routing(USERS, torch.arange(3))["modality"].tolist() == [[1.0]] * 3

    def test_no_parameter_is_as_long_as_the_catalogue(self, content_shop: Shop) -> None:
        of = prepared(content_shop(users=41, items=31))
        assert not [name for name, p in of.named_parameters() if {31, 41} & set(p.shape)]

    @pytest.mark.parametrize("folds", [0, 2, 5])
    @pytest.mark.parametrize("profiles", [True, False])
    def test_folds_and_profiles(self, content_shop: Shop, folds: int, profiles: bool) -> None:
        data = content_shop()
        of = learnt(data, folds=folds, profiles=profiles)
        assert bool(everything(of, data).isfinite().all())
        if not profiles:
            assert not bool(of.user_profiles.any())
            assert of.profile_weight.item() == 0.0
        if folds == 0:
            torch.testing.assert_close(of.unseen[of.learnable], of.said[of.learnable])

    def test_without_folds_strengths_and_profiles_are_chosen_on_five_even_so(self, content_shop: Shop) -> None:
        data = content_shop(users=80, items=60)
        with_folds, without = prepared(data), prepared(data, folds=0)
        assert with_folds.profile_weight.item() > 0
        assert without.profile_weight.item() == with_folds.profile_weight.item()
        for one, other in zip(with_folds.mixture.kernels, without.mixture.kernels, strict=True):
            torch.testing.assert_close(one.weights, other.weights)
        assert not torch.equal(without.mixture.gate.mean, with_folds.mixture.gate.mean)

    def test_a_teacher_of_zeros_is_an_error(self, content_shop: Shop) -> None:
        with pytest.raises(TrainError, match=r"factors are all zero: got teacher.reg 1e\+09. Lower teacher.reg"):
            prepared(content_shop(), teacher={"reg": 1e9}, teacher_regs=())


class TestModalityDropout:
    @pytest.mark.parametrize("missing", ["zero", "mask"])
    def test_what_is_hidden_says_nothing(
        self, content_shop: Shop, missing: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Hiding the first modality in training is an item that lacks it."""
        of = prepared(content_shop(), missing=missing, modality_dropout=0.5)
        has = of.train_content.present[:5]
        without = has & torch.tensor([False, True])
        lacking = of.weigh(of.said[:5] * without[:, :, None, None], without)
        monkeypatch.setattr("modalmix.models.mamex.drop_modalities", lambda has, share: without)
        hidden = of.train().weigh(of.said[:5], has)
        torch.testing.assert_close(hidden.vectors, lacking.vectors)
        assert not torch.allclose(of.eval().weigh(of.said[:5], has).vectors, hidden.vectors)


class TestHistories:
    def test_somebody_new_is_what_a_known_user_with_these_items_is(self, content_shop: Shop) -> None:
        """A half step of ALS beside the mean place."""
        data = content_shop(users=80, items=60)
        of, met = learnt(data), data.interactions.csr[3]
        scorer, dim = of.scorer(data.catalog), of.config.teacher.dim
        found = scorer.vectors(Query(history=torch.from_numpy(met.indices[None].astype(np.int64))))
        exact = fold_in_users(met, of.teacher_items, float(of.teacher_reg), of.config.teacher.alpha)
        torch.testing.assert_close(found[:, :dim], exact, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(found[0, dim:], of.user_profiles[3])

    def test_a_history_of_cold_items_is_what_content_says_of_them(self, content_shop: Shop) -> None:
        data = content_shop(users=80, items=60)
        of = learnt(data)
        scorer, dim = of.scorer(data.catalog), of.config.teacher.dim
        found = scorer.vectors(Query(history=torch.tensor([[59, -1]])))[0, :dim]
        h, v, alpha = scorer.items[59, :dim], of.teacher_items, of.config.teacher.alpha
        left = v.T @ v + alpha * torch.outer(h, h) + of.teacher_reg * torch.eye(dim)
        torch.testing.assert_close(left @ found, alpha * h, atol=1e-4, rtol=1e-4)

    def test_calibrated_cold_items_leave_it_as_it_is(self, content_shop: Shop) -> None:
        data = content_shop()
        of = learnt(data)
        scorer, asked = of.scorer(data.catalog), Query(history=torch.tensor([[1, 29]]))
        calibrated = calibrate(scorer, of.warm, Calibration(scale=0.5, offset=1.0))
        torch.testing.assert_close(calibrated(asked)[:, of.warm], scorer(asked)[:, of.warm])

    def test_a_loaded_model_folds_in_with_the_strength_that_was_chosen(self, content_shop: Shop) -> None:
        data = content_shop()
        of = learnt(data)
        other = Mamex(of.config, data)
        other.load_state_dict(of.state_dict())
        asked = Query(history=torch.tensor([[1, 2, 3]]))
        torch.testing.assert_close(other.scorer(data.catalog)(asked), of.scorer(data.catalog)(asked))


class TestKept:
    def test_what_is_kept_equals_what_is_worked_out_afresh(self, content_shop: Shop) -> None:
        data = content_shop(absent=ABSENT)
        of = learnt(data)
        kept, scores = of.said.clone(), everything(of, data)
        rows = torch.tensor([29, 0, 5])
        torch.testing.assert_close(of.say(of.train_content, rows), kept[rows])
        of.said = torch.zeros(0)
        torch.testing.assert_close(of.say(of.train_content, None), kept)
        torch.testing.assert_close(of.say(of.train_content, rows), kept[rows])
        torch.testing.assert_close(everything(of, data), scores)

    def test_a_loaded_model_scores_equal_without_being_prepared(self, content_shop: Shop) -> None:
        data = content_shop(absent=ABSENT)
        of = learnt(data)
        fresh = Mamex(of.config, data)
        fresh.load_state_dict(of.state_dict())
        torch.testing.assert_close(everything(fresh.eval(), data), everything(of, data))

    @pytest.mark.parametrize("missing", ["zero", "mean", "learned"])
    def test_a_run_that_was_stopped_goes_on_to_the_same_bits(
        self, content_shop: Shop, missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data, kind = content_shop(absent=ABSENT), find_model("mamex")
        config = MamexConfig.parse({**SMALL, "epochs": 4, "missing": missing, "dropout": 0.1, "modality_dropout": 0.2})

        def run(name: str) -> Mamex:
            torch.manual_seed(7)
            of = kind.recommender(config, data)
            (tmp_path / name).mkdir(exist_ok=True)
            train(of, data, QUIET, None, RunFolder(tmp_path / name, "run-1"))
            assert isinstance(of, Mamex)
            return of

        def interrupt(self: Mamex, epoch: int) -> None:
            if epoch == 3:
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(Mamex, "start_epoch", interrupt)
            with pytest.raises(KeyboardInterrupt):
                run("stopped")
        resumed, whole = run("stopped").state_dict(), run("whole").state_dict()
        assert resumed.keys() == whole.keys()
        assert all(torch.equal(resumed[name], whole[name]) for name in whole)


class TestBadInput:
    @staticmethod
    def data(events: list[tuple[int, int]], users: int = 6, items: int = 8, **features: np.ndarray) -> TrainData:
        """These events; features of one modality unless given."""
        rng = np.random.default_rng(0)
        matrices = features or {"text": rng.standard_normal((items, 4))}
        modalities = {name: Modality.from_matrix(name, x.astype(np.float32)) for name, x in matrices.items()}
        user, item = np.array(events, dtype=np.int32).reshape(-1, 2).T
        return TrainData(
            IdMap(np.arange(users), "user"),
            Catalog(IdMap(np.arange(items)), modalities),
            Interactions(user.copy(), item.copy(), users, items),
        )

    @pytest.mark.parametrize("learn", ["taught", "jointly"])
    def test_all_features_missing_is_an_error_that_names_the_modality(self, learn: str) -> None:
        nothing = np.full((8, 4), np.nan)
        with pytest.raises(ModelError, match="text"):
            prepared(self.data([(0, 0), (1, 1)], text=nothing), learn=learn)

    @pytest.mark.parametrize("learn", ["taught", "jointly"])
    def test_no_train_event_at_all_is_an_error(self, learn: str) -> None:
        """A cold split without a warm item."""
        with pytest.raises(ModelError, match="no item with a train interaction"):
            prepared(self.data([]), learn=learn)

    @pytest.mark.parametrize("standardize", [True, False])
    @pytest.mark.parametrize("alone", [True, False])
    def test_identical_features_for_all_items(self, content_shop: Shop, standardize: bool, alone: bool) -> None:
        data = content_shop()
        same = Modality.from_matrix("same", np.full((data.n_items, 3), 0.7, dtype=np.float32))
        modalities = {"same": same} if alone else {**data.catalog.modalities, "same": same}
        data = TrainData(data.users, Catalog(data.catalog.items, modalities), data.interactions)
        of = learnt(data, 3, standardize=standardize)
        scores = everything(of, data)
        assert bool(scores.isfinite().all())
        if alone:
            torch.testing.assert_close(scores[:, 24:], scores[:, 24:25].expand(-1, 6))  # nothing tells them apart

    @pytest.mark.parametrize("regs", [(), (1.0, 10.0)])
    @pytest.mark.parametrize(
        "events",
        [
            [(0, 3)],  # one event, one warm item
            [(user, 3) for user in range(5)],  # a single warm item; user 5 has nothing
            [(0, item) for item in range(6)],  # a single warm user
            [(user, item) for user in range(5) for item in (1, 2, 5)],  # fewer warm items than folds
            [(user, (user + k) % 6) for user in range(6) for k in range(5)],  # about one item in a fold
        ],
    )
    @pytest.mark.parametrize("folds", [0, 2, 5])
    def test_hardly_any_data(self, events: list[tuple[int, int]], regs: tuple[float, ...], folds: int) -> None:
        data = self.data(events)
        of = learnt(data, 2, teacher_regs=regs, folds=folds, batch_size=2)
        assert bool(everything(of, data).isfinite().all())
        assert all(bool(value.isfinite().all()) for value in of.state_dict().values())

    def test_a_fold_of_a_single_item(self, content_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
        alone = torch.ones(30, dtype=torch.long)
        alone[4] = 0
        monkeypatch.setattr("modalmix.models.mamex.draw_folds", lambda *_: alone)
        data = content_shop()
        of = learnt(data, 2)
        assert bool(everything(of, data).isfinite().all())
        assert bool(of.unseen[4].any())

    def test_a_user_without_events_has_no_taste_but_popularity(self) -> None:
        data = self.data([(user, (user + k) % 6) for user in range(5) for k in range(4)])
        of = learnt(data, 2)
        assert not bool(of.teacher_users[5].any())
        torch.testing.assert_close(everything(of, data)[5], of.popularity)
