"""DropoutNet by hand."""

import numpy as np
import pytest
import torch

from modalmix.data.split import TrainData
from modalmix.errors import ConfigError
from modalmix.models.contract import Query, TeacherConfig
from modalmix.models.dropoutnet import DropoutNet, DropoutNetConfig, Pairs, hide
from tests.models.conftest import Correlation, Shop
from tests.models.plain_towers import perceptron
from tests.models.training import cold_items_follow_content, refuses_bad_catalogues, train

BATCH = Pairs(torch.tensor([0, 7, 3]), torch.tensor([4, 1, 9, 2, 20]))


def model(data: TrainData, **settings: object) -> DropoutNet:
    torch.manual_seed(0)
    built = DropoutNet(DropoutNetConfig.parse({"dim": 6, "hidden": 9, "teacher": {"dim": 5}, **settings}), data)
    built.prepare(data)
    return built


def inputs(built: DropoutNet, preference: np.ndarray) -> np.ndarray:
    return np.concatenate([preference, *(x.numpy() for x in built.train_content.features)], axis=1)


def test_the_loss_is_the_squared_error_of_the_teachers_scores(content_shop: Shop) -> None:
    """2 of the 5 items (40 %) are a user's top; with dropout 0 nothing is hidden."""
    built = model(content_shop(), dropout=0.0, top=0.4, reg=0.5)
    u, i = BATCH.user.numpy(), BATCH.item.numpy()
    user = perceptron(built.user_network, built.user_inputs.numpy()[u], train=True)
    item = perceptron(built.item_network, inputs(built, built.item_inputs.numpy())[i], train=True)
    target = built.teacher_users.numpy()[u] @ built.teacher_items.numpy()[i].T
    error = (user @ item.T - target) ** 2
    top = np.mean([error[row][np.argsort(-target[row])[:2]] for row in range(3)])
    terms = built.loss(BATCH)
    assert terms["random"].item() == pytest.approx(error.mean() / 2, rel=1e-4)
    assert terms["top"].item() == pytest.approx(top / 2, rel=1e-4)
    length = (user**2).sum(axis=1).mean() + (item**2).sum(axis=1).mean()
    assert terms["reg"].item() == pytest.approx(0.5 * length, rel=1e-4)
    whole = model(content_shop(), dropout=0.0, top=0.0).loss(BATCH)
    assert set(whole) == {"random", "reg"}
    assert whole["random"].item() == pytest.approx(error.mean(), rel=1e-4)


def test_warm_items_are_scored_with_and_cold_ones_without_a_preference_vector(content_shop: Shop) -> None:
    data = content_shop()
    built = model(data)
    for _ in range(3):
        built.loss(BATCH)  # moves the running statistics
    preference = built.item_inputs.numpy().copy()
    assert np.abs(preference[:24]).sum(axis=1).min() > 0
    assert np.abs(preference[24:]).max() == 0
    scorer = built.scorer(data.catalog)
    np.testing.assert_allclose(
        scorer.items.numpy(), perceptron(built.item_network, inputs(built, preference), train=False), atol=1e-5
    )
    np.testing.assert_allclose(
        scorer.users.numpy(), perceptron(built.user_network, built.user_inputs.numpy(), train=False), atol=1e-5
    )


def test_a_hidden_item_is_a_cold_one(content_shop: Shop) -> None:
    """With dropout 1 the teacher's item vectors are not read in training; they are in scoring."""
    data = content_shop()
    always = model(data, dropout=1.0)
    before, scores = always.loss(BATCH)["random"].item(), always.scorer(data.catalog).items
    built = model(data, dropout=1.0)
    built.item_inputs.mul_(5.0)
    assert built.loss(BATCH)["random"].item() == before
    changed = (built.scorer(data.catalog).items - scores).abs().amax(dim=1)
    assert changed[:24].min() > 0
    assert changed[24:].max() == 0


def test_hide_spares_rows_without_content() -> None:
    torch.manual_seed(0)
    vectors, has_content = torch.ones(4000, 3), torch.arange(4000) % 2 == 0
    hidden = hide(vectors, has_content, 0.3).sum(dim=1) == 0
    assert not hidden[~has_content].any()
    assert hidden[has_content].float().mean().item() == pytest.approx(0.3, abs=0.04)


def test_batches_take_each_warm_item_once_with_users_who_have_events(content_shop: Shop) -> None:
    data = content_shop()
    events = data.interactions.take(data.interactions.user != 11)
    data = TrainData(data.users, data.catalog, events)
    warm = int(data.warm.sum())
    built = model(data)
    batches = list(built.batches(data, 10, np.random.default_rng(0)))
    assert len(batches) == built.n_batches(data, 10)
    assert sorted(torch.cat([batch.item for batch in batches]).tolist()) == np.flatnonzero(data.warm).tolist()
    assert warm == sum(len(batch.item) for batch in batches)
    assert all(len(batch.user.unique()) == 10 for batch in batches)
    assert all(11 not in batch.user for batch in batches)


def test_gradients_reach_every_weight_and_no_vector_of_the_teacher(content_shop: Shop) -> None:
    built = model(content_shop())
    torch.stack(list(built.loss(BATCH).values())).sum().backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for n, p in built.named_parameters() if "first.bias" not in n
    )
    assert not built.teacher_items.requires_grad
    assert {name.split(".")[0] for name, _ in built.named_parameters()} == {"user_network", "item_network"}


def test_it_reproduces_the_teacher_and_cold_items_follow_content(
    content_shop: Shop, content_correlation: Correlation
) -> None:
    data = content_shop(users=80, items=60, cold=20)
    built = model(data, dim=16, hidden=32, lr=0.01, teacher=TeacherConfig(dim=8), dropout=0.5)
    train(built, data, 150, size=64)
    scores = built.scorer(data.catalog)(Query(users=torch.arange(80)))
    teacher = built.teacher_users @ built.teacher_items.T
    assert np.corrcoef(scores[:, :40].flatten(), teacher[:, :40].flatten())[0, 1] > 0.8
    cold_items_follow_content(built, data, content_correlation, 0.5)


def test_bad_settings_and_catalogues(content_shop: Shop) -> None:
    for bad in ({"dropout": 1.5}, {"top": -0.1}, {"loss": "bpr"}, {"hidden": 0}):
        with pytest.raises(ConfigError):
            DropoutNetConfig.parse(bad)
    refuses_bad_catalogues(model, content_shop)
