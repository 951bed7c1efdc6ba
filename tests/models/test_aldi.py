"""ALDI against its equations."""

import numpy as np
import pytest
import torch

from modalmix.data.interactions import Interactions
from modalmix.data.split import TrainData
from modalmix.errors import ConfigError
from modalmix.models.aldi import ALDI, ALDIConfig, identity_margin, soft_cross_entropy, trust
from modalmix.models.contract import Query, Triples, teach
from tests.models.conftest import Correlation, Shop
from tests.models.training import (
    cold_items_are_content_alone,
    cold_items_follow_content,
    refuses_bad_catalogues,
    train,
    users_without_events_get_zeros,
)

EVERYONE = Query(users=torch.arange(40))


def model(data: TrainData, **settings: object) -> ALDI:
    torch.manual_seed(0)
    built = ALDI(ALDIConfig.parse({"dim": 6, "hidden": 10, "teacher": {"dim": 5, "reg": 1.0}, **settings}), data)
    built.prepare(data)
    return built


def batch(data: TrainData, of: ALDI, size: int = 64) -> Triples:
    return next(iter(of.batches(data, size, np.random.default_rng(0))))


def cross_entropy(t: np.ndarray, s: np.ndarray) -> np.ndarray:
    p, q = 1 / (1 + np.exp(-t)), 1 / (1 + np.exp(-s))
    return -(p * np.log(q) + (1 - p) * np.log(1 - q))


@pytest.mark.parametrize("loss", ["bpr", "softmax"])
def test_every_term_is_its_equation(content_shop: Shop, loss: str) -> None:
    data = content_shop(absent={"image": [2]})
    of = model(data, rating=0.3, ranking=0.7, identification=0.2, reg=0.01, loss=loss)
    triples = batch(data, of)
    terms = {name: term.item() for name, term in of.loss(triples).items()}
    user, i, j = (rows.numpy() for rows in triples)
    with torch.no_grad():  # in training mode, as the loss: the batch is normalised by itself, each row once
        rows = np.flatnonzero(data.warm) if loss == "softmax" else np.unique(np.append(i, j))
        h = np.zeros((30, 6))
        h[rows] = of.item_map(of.train_content.features, torch.from_numpy(rows)).double().numpy()
        f_u = np.zeros((40, 6))
        f_u[np.unique(user)] = of.user_map(of.teacher_users[np.unique(user)]).double().numpy()
    U, V = of.teacher_users.double().numpy(), of.teacher_items.double().numpy()
    s_ui, s_uj = (f_u[user] * h[i]).sum(axis=1), (f_u[user] * h[j]).sum(axis=1)
    t_ui, t_uj = (U[user] * V[i]).sum(axis=1), (U[user] * V[j]).sum(axis=1)
    scores = f_u[user] @ h[rows].T
    expected = {
        "bpr": -np.log(1 / (1 + np.exp(s_uj - s_ui))).mean(),
        "softmax": (np.log(np.exp(scores).sum(axis=1)) - s_ui).mean(),
    }
    assert terms[loss] == pytest.approx(expected[loss], rel=1e-4)
    assert terms["rating"] == pytest.approx(0.3 * (abs(t_ui - s_ui) + abs(t_uj - s_uj)).mean(), rel=1e-4)
    w = of.trust.double().numpy()[i]
    assert terms["ranking"] == pytest.approx(0.7 * (w * cross_entropy(t_ui - t_uj, s_ui - s_uj)).mean(), rel=1e-4)
    t_iden = (V[i] ** 2).sum(axis=1) - (V[i] @ V[j].T).mean(axis=1)
    s_iden = (h[i] ** 2).sum(axis=1) - (h[i] @ h[j].T).mean(axis=1)
    assert terms["identification"] == pytest.approx(0.2 * (w * cross_entropy(t_iden, s_iden)).mean(), rel=1e-4)
    assert terms["reg"] == pytest.approx(0.01 * (f_u[user] ** 2 + h[i] ** 2 + h[j] ** 2).sum() / len(user), rel=1e-4)
    assert terms.keys() == {loss, "rating", "ranking", "identification", "reg"}


def test_cross_entropy_and_margin_by_hand() -> None:
    zero, one = torch.zeros(2), torch.ones(2)
    assert soft_cross_entropy(zero, zero, one).item() == pytest.approx(np.log(2))
    weighted = soft_cross_entropy(zero, zero, torch.tensor([1.0, 0.0]))
    assert weighted.item() == pytest.approx(np.log(2) / 2)  # the mean is over the batch, not over the weights
    items, others = torch.tensor([[1.0, 2.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [3.0, 2.0]])
    # |(1,2)|^2 - mean(1, 7) and |(0,1)|^2 - mean(0, 2)
    assert identity_margin(items, others).tolist() == [1.0, 0.0]


def test_trust_by_hand() -> None:
    """User 0 met items 0 and 1, user 1 met item 0 (twice); item 2 is cold. n = (1.5, .5), their mean is 1."""
    events = Interactions(np.array([0, 0, 1, 1], np.int32), np.array([0, 1, 0, 0], np.int32), 3, 3)
    np.testing.assert_allclose(trust(events, 4.0), [np.tanh(4.0), np.tanh(2.0), 0.0], rtol=1e-6)


def test_prepare_scales_the_teachers_scores(content_shop: Shop) -> None:
    data = content_shop()
    of = model(data, temperature=0.25, weight_cap=0.0)
    users, items = teach(data.interactions, of.config.teacher, of.config.seed)
    torch.testing.assert_close(of.teacher_users @ of.teacher_items.T, users @ items.T * 4)
    torch.testing.assert_close(of.teacher_items.square().sum(dim=1), items.square().sum(dim=1) * 4)
    assert of.trust.tolist() == [1.0] * 30
    assert model(data, weight_cap=4.0).trust[:24].min() > 0


def test_warm_items_are_scored_by_the_teacher_and_cold_ones_by_the_student(content_shop: Shop) -> None:
    data = content_shop(absent={"image": [3, 29], "text": [3, 29]})
    of = model(data)
    scorer = of.scorer(data.catalog)
    scores = scorer(EVERYONE)
    torch.testing.assert_close(scores[:, :24], of.teacher_users @ of.teacher_items[:24].T)
    of.eval()
    with torch.no_grad():
        h, f_u = of.item_map(of.train_content.features, None), of.user_map(of.teacher_users)
        torch.testing.assert_close(scores[:, 24:29], f_u @ h[24:29].T)
        warm = [row for row in range(24) if row != 3]
        torch.testing.assert_close(scores[:, 29], f_u @ h[warm].mean(dim=0))
    assert scorer.without_content is not None
    assert scorer.without_content.nonzero().flatten().tolist() == [29]  # item 3 has its teacher


def test_a_cold_vector_depends_on_content_alone(content_shop: Shop) -> None:
    data = content_shop()
    cold_items_are_content_alone(model(data), data)


def test_a_user_without_events_gets_zeros(content_shop: Shop) -> None:
    users_without_events_get_zeros(model, content_shop)


def test_gradients_reach_the_student_only(content_shop: Shop) -> None:
    data = content_shop()
    of = model(data)
    for name, term in of.loss(batch(data, of)).items():
        gradients = torch.autograd.grad(term, list(of.parameters()), allow_unused=True, retain_graph=True)
        reached = {name for (name, _), g in zip(of.named_parameters(), gradients, strict=True) if g is not None}
        assert any(key.startswith("item_map") for key in reached), name
        assert any(key.startswith("user_map") for key in reached) == (name != "identification"), name
    assert not of.teacher_users.requires_grad
    assert not of.teacher_items.requires_grad


def test_a_batch_of_one_event_is_a_batch(content_shop: Shop) -> None:
    data = content_shop()
    of = model(data)
    assert all(torch.isfinite(term) for term in of.loss(Triples(*(rows[:1] for rows in batch(data, of)))).values())


@pytest.mark.parametrize("loss", ["bpr", "softmax"])
def test_it_learns_and_cold_items_follow_content(
    content_shop: Shop, loss: str, content_correlation: Correlation
) -> None:
    data = content_shop(users=80, items=60, cold=20)
    of = model(data, dim=8, hidden=20, lr=0.01, loss=loss)
    train(of, data, 40)
    cold_items_follow_content(of, data, content_correlation, 0.5)


def test_bad_settings_and_catalogues(content_shop: Shop) -> None:
    with pytest.raises(ConfigError, match="temperature"):
        ALDIConfig.parse({"temperature": 0.0})
    refuses_bad_catalogues(model, content_shop)
