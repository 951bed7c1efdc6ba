"""Heater by hand."""

import numpy as np
import pytest
import torch

from modalmix.data.interactions import Interactions
from modalmix.data.split import TrainData
from modalmix.errors import ConfigError, DataError
from modalmix.models.contract import Query, Triples
from modalmix.models.heater import Heater, HeaterConfig, Transformation, draw, squared_loss
from tests.models.conftest import Correlation, Shop
from tests.models.plain_towers import perceptron
from tests.models.training import cold_items_follow_content, refuses_bad_catalogues, train

BATCH = Triples(torch.tensor([0, 1, 1, 7]), torch.tensor([3, 4, 5, 3]), torch.tensor([9, 3, 9, 0]))


def model(data: TrainData, **settings: object) -> Heater:
    torch.manual_seed(0)
    small = {"dim": 6, "hidden": 9, "experts": 3, "teacher": {"dim": 5}}
    built = Heater(HeaterConfig.parse({**small, **settings}), data)
    built.prepare(data)
    return built


def transformed(built: Heater) -> np.ndarray:
    """T(c) of every training item in numpy."""
    p = {name: value.detach().double().numpy() for name, value in built.transformation.state_dict().items()}
    c = np.concatenate([x.numpy() for x in built.train_content.features], axis=1)
    w = np.tanh(c @ p["gate.weight"].T + p["gate.bias"])
    total = np.zeros((len(c), built.config.teacher.dim))
    for e in range(built.config.experts):
        said = np.tanh(c @ p[f"experts.{e}.first.weight"].T + p[f"experts.{e}.first.bias"])
        if built.config.expert_hidden:
            said = np.tanh(said @ p[f"experts.{e}.out.weight"].T + p[f"experts.{e}.out.bias"])
        total += w[:, e : e + 1] * said
    return np.tanh(total)


@pytest.mark.parametrize("expert_hidden", [0, 4])
def test_the_transformation_is_the_gated_sum_of_experts(content_shop: Shop, expert_hidden: int) -> None:
    built = model(content_shop(absent={"image": [2]}), expert_hidden=expert_hidden)
    said = built.transformation(built.train_content.features)
    np.testing.assert_allclose(said.detach().numpy(), transformed(built), atol=1e-5)


def test_each_expert_is_its_own_network(content_shop: Shop) -> None:
    """No weight is shared: changing one expert changes the sum by its own part alone, and their words differ."""
    mixture = Transformation([4, 2], 3, experts=3, hidden=0)
    xs = (torch.randn(5, 4), torch.randn(5, 2))
    words = [expert(xs) for expert in mixture.experts]
    assert not torch.allclose(words[0], words[1])
    weights = [parameter.data_ptr() for parameter in mixture.parameters()]
    assert len(set(weights)) == len(weights) == 2 + 3 * 2
    before = mixture(xs).atanh()
    with torch.no_grad():
        mixture.experts[1].first.bias += 1.0
    change = mixture.weights(xs)[:, 1:2] * (mixture.experts[1](xs) - words[1])
    torch.testing.assert_close(mixture(xs).atanh() - before, change, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dropout", [0.0, 1.0])
@pytest.mark.parametrize("loss", ["squared", "bpr"])
def test_the_loss_by_hand(content_shop: Shop, loss: str, dropout: float) -> None:
    """dropout 0: every z is the collaborative vector; 1: every z is transformed content."""
    built = model(content_shop(), loss=loss, dropout=dropout, drawn=2, align=3.0, reg=0.5)
    u, i, j = (rows.numpy() for rows in BATCH)
    said, collaborative = transformed(built), built.item_inputs.numpy()
    z = said if dropout else collaborative
    rows, places = np.unique(np.concatenate([i, j]), return_inverse=True)
    vectors = perceptron(built.item_network, z[rows], train=True)[places]
    users, of = np.unique(u, return_inverse=True)
    user = perceptron(built.user_network, built.user_inputs.numpy()[users], train=True)[of]
    liked, drawn = (user * vectors[:4]).sum(axis=1), (user * vectors[4:]).sum(axis=1)
    if loss == "bpr":
        expected = np.log1p(np.exp(drawn - liked)).mean()
    else:
        expected = (((1 - liked) ** 2).mean() + 2 * (drawn**2).mean()) / 3
    terms = built.loss(BATCH)
    assert terms[loss].item() == pytest.approx(expected, rel=1e-4)
    distance = ((said - collaborative)[rows] ** 2).sum(axis=1).mean()
    assert terms["align"].item() == pytest.approx(3.0 * distance, rel=1e-4)
    length = sum((v**2).sum(axis=1).mean() for v in (user, vectors[:4], vectors[4:]))
    assert terms["reg"].item() == pytest.approx(0.5 * length, rel=1e-4)


def test_squared_loss_counts_an_event_once() -> None:
    """One event (.5) with two drawn items (.2, .4): (.25 + .04 + .16) / 3 = .15."""
    loss = squared_loss(torch.tensor([0.5, 0.5]), torch.tensor([0.2, 0.4]), 2)
    torch.testing.assert_close(loss, torch.tensor(0.15))


def test_training_replaces_vectors_at_the_given_rate_but_never_without_content(content_shop: Shop) -> None:
    """An item that is replaced depends on its content, others do not: seen in the gradient of z by item."""
    data = content_shop(items=306, users=60, absent={"image": [0, 2], "text": [0]})
    built = model(data, dropout=0.3)
    torch.manual_seed(1)
    seen: list[torch.Tensor] = []
    hook = built.item_network.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    built.encode(built.train_content, torch.arange(300))
    hook.remove()
    replaced = (seen[0] != built.item_inputs[:300]).any(dim=1)
    assert not replaced[0]
    assert replaced.float().mean().item() == pytest.approx(0.3, abs=0.08)
    said = built.transformation(built.train_content.features)[:300].detach()
    torch.testing.assert_close(seen[0][replaced], said[replaced], atol=1e-5, rtol=1e-4)


def test_warm_items_are_scored_by_their_vector_and_cold_ones_by_content(content_shop: Shop) -> None:
    data = content_shop()
    built = model(data)
    for _ in range(3):
        built.loss(BATCH)  # moves the running statistics
    z = np.where(np.arange(30)[:, None] < 24, built.item_inputs.numpy(), transformed(built))
    expected = perceptron(built.item_network, z, train=False)
    np.testing.assert_allclose(built.scorer(data.catalog).items.numpy(), expected, atol=1e-5)


def test_each_event_comes_once_an_epoch_with_its_block(content_shop: Shop) -> None:
    data = content_shop()
    built = model(data, drawn=3)
    batches = list(built.batches(data, 9, np.random.default_rng(0)))
    assert len(batches) == built.n_batches(data, 9) == 3
    pairs = torch.cat([torch.stack([batch.user, batch.positive]) for batch in batches], dim=1)[:, ::3]
    expected = sorted(zip(data.interactions.user.tolist(), data.interactions.item.tolist(), strict=True))
    assert sorted(map(tuple, pairs.T.tolist())) == expected
    blocks = [set(batch.positive.tolist()) for batch in batches]
    assert not blocks[0] & blocks[1]
    for batch in batches:
        assert not data.interactions.contains(batch.user.numpy(), batch.negative.numpy()).any()
        assert set(batch.negative.tolist()) <= set(range(24))


def test_cold_items_are_drawn_only_where_asked_for_and_then_read_their_content(content_shop: Shop) -> None:
    data = content_shop()
    built = model(data, negatives="all", dropout=0.0, align=1.0)
    batches = list(built.batches(data, 9, np.random.default_rng(0)))
    assert set(torch.cat([batch.negative for batch in batches]).tolist()) == set(range(30))
    assert torch.cat([batch.positive for batch in batches]).max() < 24
    rows = torch.tensor([3, 24, 29])
    _, _, distance = built.encode(built.train_content, rows)
    said = transformed(built)[3] - built.item_inputs[3].numpy()
    assert distance.item() == pytest.approx((said**2).sum(), rel=1e-4)  # cold items have no vector to be close to


def test_a_user_with_the_whole_block_draws_from_the_pool() -> None:
    events = Interactions(np.array([0, 0], dtype=np.int32), np.array([1, 2], dtype=np.int32), 1, 5)
    user, rng = np.zeros(50, dtype=np.int32), np.random.default_rng(0)
    pool = np.array([False, True, True, True, True])
    assert set(draw(np.array([1, 2]), user, events, rng, pool)) == {3, 4}
    assert set(draw(np.array([1, 4]), user, events, rng, pool)) <= {3, 4}
    with pytest.raises(DataError, match="all 2 items"):
        draw(np.array([1, 2]), user, events, rng, np.array([False, True, True, False, False]))


def test_gradients_reach_every_expert_and_no_vector_of_the_teacher(content_shop: Shop) -> None:
    built = model(content_shop(), align=0.0, dropout=1.0)
    torch.stack(list(built.loss(BATCH).values())).sum().backward()
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0 or name.endswith("network.first.bias"), name  # BatchNorm takes that away
    assert {name.split(".")[0] for name, _ in built.named_parameters()} == {
        "user_network",
        "item_network",
        "transformation",
    }


@pytest.mark.parametrize("loss", ["squared", "bpr"])
def test_it_learns_and_cold_items_follow_content(
    content_shop: Shop, loss: str, content_correlation: Correlation
) -> None:
    data = content_shop(users=80, items=60, cold=20)
    built = model(data, dim=16, hidden=32, lr=0.01, loss=loss, teacher={"dim": 8})
    train(built, data, 100, size=64)
    scores = built.scorer(data.catalog)(Query(users=torch.arange(80)))
    met = torch.from_numpy(data.interactions.csr.toarray()[:, :40] > 0)
    assert scores[:, :40][met].mean() > scores[:, :40][~met].mean() + 0.3
    cold_items_follow_content(built, data, content_correlation, 0.5)


def test_routing_gives_the_gate(content_shop: Shop) -> None:
    built = model(content_shop())
    items = torch.tensor([4, 29])
    weights = built.routing(Query(users=torch.tensor([0])), items)["experts"]
    gate = built.transformation.gate
    c = torch.cat(built.train_content.features, dim=1)[items]
    torch.testing.assert_close(weights, torch.tanh(c @ gate.weight.T + gate.bias).detach())


def test_bad_settings_and_catalogues(content_shop: Shop) -> None:
    for bad in ({"dropout": -0.1}, {"experts": 0}, {"loss": "softmax"}, {"drawn": 0}, {"expert_hidden": -1}):
        with pytest.raises(ConfigError):
            HeaterConfig.parse(bad)
    refuses_bad_catalogues(model, content_shop)
