"""What every model promises. Runs on each file of modalmix/models by itself and knows none of them by name."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from modalmix.data.catalog import Catalog
from modalmix.data.drop import drop_modality
from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.data.modality import Modality
from modalmix.data.split import TrainData
from modalmix.errors import ConfigError, ModelError, QueryError
from modalmix.models import describe, names
from modalmix.models.contract import (
    ClosedFormRecommender,
    GradientConfig,
    GradientRecommender,
    ModelType,
    Query,
    Recommender,
    Scorer,
    find_model,
)
from modalmix.models.contract.calibrated import Calibration, calibrate
from modalmix.models.contract.histories import FollowingScorer
from modalmix.models.contract.sequential import SequentialConfig
from modalmix.train.loop import set_learning_rates

USERS, ITEMS, GROUPS, COLD = 61, 41, 4, 40  # primes: a tensor of users x items is recognised by its size
EPOCHS = 60


@dataclass(frozen=True)
class Planted:
    """Users like the items of their group, the first ones most; the last item is cold; two events a user held out."""

    train: TrainData
    held_out: Interactions


def plant(order: np.ndarray | None = None, modalities: bool = True) -> Planted:
    """`order[k]` is the item that stands in row k."""
    rng = np.random.default_rng(0)
    group, met, kept = np.arange(ITEMS) % GROUPS, [], []
    for user in range(USERS):
        weight = (1.0 + np.arange(ITEMS) // GROUPS) ** -1.5 * np.where(group == user % GROUPS, 1.0, 0.1)
        weight[COLD] = 0.0
        chosen = rng.choice(ITEMS, 8, replace=False, p=weight / weight.sum())
        met += [(user, item) for item in chosen[:6]]
        kept += [(user, item) for item in chosen[6:]]
    features = {}
    for name, dim in (("look", 12), ("words", 9)):
        x = np.eye(GROUPS)[group] @ rng.standard_normal((GROUPS, dim)) + 0.3 * rng.standard_normal((ITEMS, dim))
        features[name] = x.astype(np.float32)
    features["look"][[3, 9]] = np.nan
    features["words"][[9, 12]] = np.nan  # item 9 has nothing at all
    order = np.arange(ITEMS) if order is None else order
    ids = IdMap([f"item-{k}" for k in order])
    categories = [None if k == 9 else ["even", f"group {group[k]}"][k % 2 :] for k in order]
    catalog = Catalog(
        ids,
        {name: Modality.from_matrix(name, x[order]) for name, x in features.items()} if modalities else {},
        pl.DataFrame({"item": ids.series, "categories": categories}),
    )
    row_of = np.argsort(order)

    def events(pairs: list[tuple[int, int]]) -> Interactions:
        user, item = np.array(pairs, dtype=np.int32).T
        time = 1_500_000_000 + 86_400 * np.arange(len(pairs), dtype=np.int64) ** 2  # the order given
        return Interactions(user, row_of[item].astype(np.int32), USERS, ITEMS, time)

    return Planted(TrainData(IdMap(list(range(USERS)), "user"), catalog, events(met)), events(kept))


def settings(model: ModelType, **changes: Any) -> Any:
    small = {"dim": 8, "lr": 0.01, "batch_size": 128} if issubclass(model.config, GradientConfig) else {}
    if issubclass(model.config, SequentialConfig):
        small["epochs"] = EPOCHS  # over which the learning rate falls
    return model.config.preset("default", **small, **changes)


def build(model: ModelType, data: TrainData, seed: int = 0) -> Recommender[Any]:
    torch.manual_seed(seed)
    return model.recommender(settings(model), data)


def steps(recommender: GradientRecommender[Any], data: TrainData, epochs: int) -> Iterator[float]:
    """Train, and give the sum of the loss terms after each step."""
    optimizer, rng = recommender.optimizer(), np.random.default_rng(0)
    recommender.prepare(data)
    recommender.train()
    for epoch in range(1, epochs + 1):
        torch.manual_seed(epoch)
        recommender.start_epoch(epoch)
        set_learning_rates(optimizer, recommender.lr_scale(epoch))
        for batch in recommender.batches(data, recommender.config.batch_size, rng):
            optimizer.zero_grad()
            loss = torch.stack(list(recommender.loss(batch).values())).sum()
            loss.backward()
            optimizer.step()
            yield loss.item()
        recommender.end_epoch(epoch, {})
    recommender.eval()


def learn(model: ModelType, data: TrainData, epochs: int = EPOCHS) -> Recommender[Any]:
    recommender = build(model, data)
    if isinstance(recommender, ClosedFormRecommender):
        recommender.fit(data)
    else:
        assert isinstance(recommender, GradientRecommender)
        list(steps(recommender, data, epochs))
    return recommender.eval()


def everyone(scorer: Scorer) -> torch.Tensor:
    return scorer(Query(users=torch.arange(USERS)))


@pytest.fixture(scope="module")
def planted() -> Planted:
    return plant()


@pytest.fixture(scope="module", params=names())
def model(request: pytest.FixtureRequest) -> ModelType:
    return find_model(request.param)


@pytest.fixture(scope="module")
def learnt(model: ModelType, planted: Planted) -> Recommender[Any]:
    return learn(model, planted.train)


def test_the_file_says_what_it_is(model: ModelType) -> None:
    assert len(describe()[model.name]) > 20
    assert all(field.description for field in model.config.model_fields.values()), "a setting has no docstring"


def test_settings_and_presets_are_valid(model: ModelType) -> None:
    assert model.config.preset("default") == model.config()
    for preset in model.config.presets:
        assert model.config.preset(preset) == model.config.parse(model.config.preset(preset).model_dump())
    with pytest.raises(ModelError, match="no preset"):
        model.config.preset("no such preset")
    with pytest.raises(ConfigError, match="no setting"):
        model.config.parse({"no_such_setting": 1})


@pytest.mark.parametrize("preset", ["default", "of the model"])
def test_every_preset_builds(model: ModelType, planted: Planted, preset: str) -> None:
    for name in ["default"] if preset == "default" else model.config.presets:
        built = model.recommender(model.config.preset(name), planted.train)
        assert built.config == model.config.preset(name)
        assert all(torch.isfinite(one).all() for one in built.parameters()), (
            f"preset {name} starts with NaN or infinity"
        )


def test_loss_terms_are_finite_scalars_and_reach_every_parameter(model: ModelType, planted: Planted) -> None:
    recommender = build(model, planted.train)
    if not isinstance(recommender, GradientRecommender):
        pytest.skip("learnt in closed form")
    recommender.prepare(planted.train)
    batches = list(recommender.batches(planted.train, 128, np.random.default_rng(0)))
    assert len(batches) == recommender.n_batches(planted.train, 128)
    for batch in batches:
        terms = recommender.loss(batch)
        assert terms
        assert all(term.ndim == 0 and torch.isfinite(term) for term in terms.values())
        torch.stack(list(terms.values())).sum().backward()
    for name, parameter in recommender.named_parameters():
        assert parameter.grad is not None, f"{name} has no gradient"
        assert torch.isfinite(parameter.grad).all(), f"the gradient of {name} is not finite"


def test_a_few_steps_reduce_the_loss(model: ModelType, planted: Planted) -> None:
    recommender = build(model, planted.train)
    if not isinstance(recommender, GradientRecommender):
        pytest.skip("learnt in closed form")
    losses = list(steps(recommender, planted.train, 15))
    assert np.mean(losses[-6:]) < np.mean(losses[:6])


def test_cold_items_are_no_negatives_by_default(model: ModelType, planted: Planted) -> None:
    recommender = build(model, planted.train)
    if isinstance(recommender, GradientRecommender):
        np.testing.assert_array_equal(recommender.negative_pool(planted.train), planted.train.warm)


def test_the_same_seed_gives_the_same_bits(model: ModelType, planted: Planted) -> None:
    first, second = (learn(model, planted.train, epochs=2).state_dict() for _ in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_scores_are_finite_for_every_user_and_item(learnt: Recommender[Any], planted: Planted) -> None:
    scores = everyone(learnt.scorer(planted.train.catalog))
    assert scores.shape == (USERS, ITEMS)
    assert scores.dtype == torch.float32
    assert torch.isfinite(scores).all()
    assert not scores.requires_grad


def test_scores_belong_to_the_caller(learnt: Recommender[Any], planted: Planted) -> None:
    scorer = learnt.scorer(planted.train.catalog)
    before = everyone(scorer).clone()
    everyone(scorer).fill_(-torch.inf)  # as masking does
    torch.testing.assert_close(everyone(scorer), before)


def test_scores_do_not_depend_on_who_else_is_asked_for(learnt: Recommender[Any], planted: Planted) -> None:
    scorer = learnt.scorer(planted.train.catalog)
    together, some = everyone(scorer), torch.tensor([7, 3, 7])
    torch.testing.assert_close(scorer(Query(users=some)), together[some], atol=1e-5, rtol=1e-5)


def test_making_a_scorer_changes_nothing(model: ModelType, planted: Planted) -> None:
    recommender = learn(model, planted.train, epochs=1)
    recommender.train()
    before = {name: value.clone() for name, value in recommender.state_dict().items()}
    everyone(recommender.scorer(planted.train.catalog))
    assert recommender.training, "scorer() must leave the mode as it was"
    assert all(torch.equal(value, before[name]) for name, value in recommender.state_dict().items())


def test_an_extended_catalogue_keeps_the_known_scores(learnt: Recommender[Any], planted: Planted) -> None:
    catalog = planted.train.catalog
    look = np.random.default_rng(1).standard_normal((2, 12)).astype(np.float32)
    bigger = catalog.extend(pl.DataFrame({"item": ["new-a", "new-b"]}), {"look": look})
    scores, known = everyone(learnt.scorer(bigger)), everyone(learnt.scorer(catalog))
    assert scores.shape == (USERS, ITEMS + 2)
    assert torch.isfinite(scores).all()
    torch.testing.assert_close(scores[:, :ITEMS], known, atol=1e-5, rtol=1e-5)


def test_another_catalogue_is_an_error(learnt: Recommender[Any]) -> None:
    with pytest.raises(ModelError, match="training items first"):
        learnt.scorer(plant(order=np.roll(np.arange(ITEMS), 1)).train.catalog)


def test_save_and_restore_give_equal_scores(
    model: ModelType, learnt: Recommender[Any], planted: Planted, tmp_path: Path
) -> None:
    save_file({name: value.contiguous() for name, value in learnt.state_dict().items()}, tmp_path / "model.safetensors")
    saved, fresh = load_file(tmp_path / "model.safetensors"), build(model, planted.train, seed=99)
    if isinstance(fresh, ClosedFormRecommender):
        fresh.restore(saved)
    else:
        fresh.load_state_dict(saved)
    catalog = planted.train.catalog
    torch.testing.assert_close(everyone(fresh.eval().scorer(catalog)), everyone(learnt.scorer(catalog)), atol=0, rtol=0)


def test_scores_depend_on_the_modalities_it_names_and_on_no_other(learnt: Recommender[Any], planted: Planted) -> None:
    catalog, rng = planted.train.catalog, np.random.default_rng(0)
    scores = everyone(learnt.scorer(catalog))
    for name in catalog.modalities:
        same, without = (everyone(learnt.scorer(drop_modality(catalog, name, share, rng))) for share in (0, 1))
        assert torch.equal(same, scores)
        assert torch.isfinite(without).all()
        assert torch.equal(without, scores) == (name not in learnt.modalities)


@pytest.mark.parametrize(
    ("modalities", "message"),
    [(("look", "no-such"), "no modality 'no-such'"), (("look", "look"), "named twice"), ((), "an empty list")],
)
def test_modalities_are_those_of_the_catalogue_each_once(
    model: ModelType, planted: Planted, modalities: tuple[str, ...], message: str
) -> None:
    if "modalities" not in model.config.model_fields:
        pytest.skip("has no setting `modalities`")
    if modalities == () and model.name == "graphfilter":
        pytest.skip("does without content: the filter over users alone")
    with pytest.raises(ModelError, match=message):
        model.recommender(settings(model, modalities=modalities), planted.train)
    with pytest.raises(ModelError, match="no modality"):
        model.recommender(settings(model), plant(modalities=False).train)


def test_histories_are_answered_or_refused(learnt: Recommender[Any], planted: Planted) -> None:
    scorer = learnt.scorer(planted.train.catalog)
    try:
        scores = scorer(Query(history=torch.tensor([[0, 4, 8], [1, -1, -1]])))
        alone = scorer(Query(history=torch.tensor([[1]])))
    except QueryError:
        return
    assert scores.shape == (2, ITEMS)
    assert torch.isfinite(scores).all()
    torch.testing.assert_close(scores[1:], alone, atol=1e-5, rtol=1e-5)  # padding says nothing


def test_who_follows_new_events_scores_them_like_a_history(learnt: Recommender[Any], planted: Planted) -> None:
    catalog = planted.train.catalog
    more = catalog.extend(pl.DataFrame({"item": ["new"]}), {"look": np.ones((1, 12), dtype=np.float32)})
    warm = torch.from_numpy(planted.train.warm)
    known = (planted.train.interactions + planted.held_out).csr
    for over, calibration in ((catalog, Calibration()), (more, Calibration()), (catalog, Calibration(0.5, 2.0))):
        scorer = calibrate(learnt.scorer(over), warm, calibration)
        if not isinstance(scorer, FollowingScorer) or not isinstance(learnt.scorer(over), FollowingScorer):
            pytest.skip("does not follow events")
        users = Query(users=torch.tensor([0, 7]))
        before = scorer(users)
        history = torch.tensor(np.stack([known[user].indices for user in (0, 7)]).astype(np.int64))
        assert history.shape == (2, 8)  # six train events, two held out
        torch.testing.assert_close(scorer.following(known)(users), scorer(Query(history=history)))
        torch.testing.assert_close(scorer.following(planted.train.interactions.csr)(users), before)
        torch.testing.assert_close(scorer(users), before)  # the scorer itself stays as it is
        assert not torch.allclose(scorer.following(known)(users), before)


def test_nothing_of_size_users_times_items_is_kept(learnt: Recommender[Any]) -> None:
    for name, value in [*learnt.named_parameters(), *learnt.named_buffers()]:
        assert value.numel() == 0 or value.numel() % (USERS * ITEMS), f"{name} has shape {tuple(value.shape)}"


def test_permuting_items_permutes_a_closed_form(model: ModelType, planted: Planted) -> None:
    if not issubclass(model.recommender, ClosedFormRecommender):
        pytest.skip("the initial values of a trained model belong to rows")
    order = np.random.default_rng(3).permutation(ITEMS)
    permuted = plant(order)
    scores = everyone(learn(model, planted.train).scorer(planted.train.catalog))
    permuted_scores = everyone(learn(model, permuted.train).scorer(permuted.train.catalog))
    torch.testing.assert_close(permuted_scores, scores[:, order], atol=1e-5, rtol=1e-5)


def test_a_catalogue_without_content_is_used_or_refused(model: ModelType) -> None:
    bare = plant(modalities=False).train
    try:
        recommender = learn(model, bare, epochs=1)
    except ModelError:
        return
    assert torch.isfinite(everyone(recommender.scorer(bare.catalog))).all()


def test_what_was_learnt_beats_a_constant_score(learnt: Recommender[Any], planted: Planted) -> None:
    scores = everyone(learnt.scorer(planted.train.catalog)).numpy()
    train, held_out = planted.train.interactions.csr.toarray() > 0, planted.held_out.csr.toarray() > 0
    others = ~train & ~held_out & planted.train.warm
    areas = []
    for user in range(USERS):
        difference = scores[user, held_out[user]][:, None] - scores[user, others[user]][None, :]
        areas.append((np.sign(difference) / 2 + 0.5).mean())
    assert np.mean(areas) > 0.6  # area under the ROC curve; 0.5 is a constant score
