"""BM3 against a plain implementation; what gets no gradient; items without a train event."""

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F

from modalmix.data.split import TrainData
from modalmix.errors import ConfigError, DataError
from modalmix.models.bm3 import BM3, BM3Config, Pairs, distance
from modalmix.models.contract import Query
from tests.models.conftest import Correlation, Shop
from tests.models.training import cold_items_follow_content, train

USERS, ITEMS, COLD = 40, 30, 6
BATCH = Pairs(torch.tensor([0, 1, 1, 7]), torch.tensor([3, 4, 9, 3]))


@pytest.fixture
def data(content_shop: Shop) -> TrainData:
    return content_shop(absent={"image": [9, 27], "text": [27]})


def model(data: TrainData, **settings: Any) -> BM3:
    torch.manual_seed(0)
    return BM3(BM3Config.parse({"dim": 6, **settings}), data)


def plain_vectors(data: TrainData, users: torch.Tensor, items: torch.Tensor, layers: int) -> tuple[torch.Tensor, ...]:
    """LightGCN, matrix by matrix, and the item's embedding once more."""
    r = torch.from_numpy(data.interactions.csr.toarray())
    a = torch.cat([torch.cat([torch.zeros(USERS, USERS), r], 1), torch.cat([r.T, torch.zeros(ITEMS, ITEMS)], 1)])
    root = a.sum(dim=1).clamp(min=1e-12).rsqrt() * (a.sum(dim=1) > 0)
    step, nodes = root[:, None] * a * root[None, :], torch.cat([users, items])
    steps = [torch.linalg.matrix_power(step, k) @ nodes for k in range(layers + 1)]
    user_vectors, item_vectors = torch.stack(steps).mean(dim=0).split([USERS, ITEMS])
    return user_vectors, item_vectors + items


def cosine_loss(online: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return 1 - (online * target.detach()).sum(1) / (online.norm(dim=1) * target.detach().norm(dim=1))


@pytest.mark.parametrize("layers", [0, 2])
def test_loss_and_gradient_equal_a_plain_implementation(data: TrainData, layers: int) -> None:
    built = model(data, layers=layers, dropout=0.0, align=1.5, reg=0.1)
    ids = [table.weight.detach().clone().requires_grad_() for table in (built.users, built.items)]
    users, items = plain_vectors(data, *ids, layers)
    user, item = users[BATCH.user], items[BATCH.item]
    weight, bias = built.predictor.weight.detach(), built.predictor.bias.detach()

    def predict(h: torch.Tensor) -> torch.Tensor:
        return h @ weight.T + bias

    expected = {
        "bootstrap": cosine_loss(predict(user), item).mean() + cosine_loss(predict(item), user).mean(),
        "reg": 0.1 * (users.pow(2).sum().sqrt() + items.pow(2).sum().sqrt()) / ITEMS,
    }
    for name, projection in zip(("image", "text"), built.projections, strict=True):
        x = F.normalize(torch.from_numpy(data.catalog.modality(name).matrix()), dim=1)[BATCH.item]
        h = x @ projection.weight.detach().T + projection.bias.detach()
        has = torch.tensor([1.0, 1.0, float(name == "text"), 1.0])  # item 9 has no image
        expected[f"align/{name}"] = 1.5 * (cosine_loss(predict(h), item) * has).sum() / 4
        expected[f"mask/{name}"] = 1.5 * (cosine_loss(predict(h), h) * has).sum() / 4
    terms = built.loss(BATCH)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, atol=1e-6, rtol=1e-5)
    torch.stack(list(terms.values())).sum().backward()
    torch.stack([expected["bootstrap"], expected["reg"]]).sum().backward()  # the alignments move the modalities alone
    for table, plain in zip((built.users, built.items), ids, strict=True):
        torch.testing.assert_close(table.weight.grad, plain.grad, atol=1e-6, rtol=1e-5)


def test_distance_by_hand() -> None:
    a = torch.tensor([[2.0, 0.0], [1.0, 0.0], [3.0, 4.0]])
    b = torch.tensor([[5.0, 0.0], [0.0, 1.0], [-3.0, -4.0]])
    torch.testing.assert_close(distance(a, b), torch.tensor([0.0, 1.0, 2.0]))


def test_targets_are_dropped_out_in_training_only_and_get_no_gradient(data: TrainData) -> None:
    built, h = model(data, dropout=0.4), torch.ones(5000, 2, requires_grad=True)
    torch.manual_seed(0)
    target = built.target(h)
    assert not target.requires_grad
    torch.testing.assert_close(target.unique(), torch.tensor([0.0, 1 / 0.6]))
    assert (target == 0).float().mean() == pytest.approx(0.4, abs=0.02)
    assert torch.equal(built.eval().target(h), h)


def test_batches_take_each_event_once_without_negatives(data: TrainData) -> None:
    batches = list(model(data).batches(data, 64, np.random.default_rng(0)))
    assert [len(batch.user) for batch in batches] == [64, 64, 64, len(data.interactions) - 192]
    met = {(int(u), int(i)) for batch in batches for u, i in zip(*batch, strict=True)}
    assert met == set(zip(data.interactions.user.tolist(), data.interactions.item.tolist(), strict=True))
    other = next(iter(model(data).batches(data, 64, np.random.default_rng(1))))
    assert not torch.equal(batches[0].item, other.item)


def test_no_events_are_an_error(data: TrainData) -> None:
    none = TrainData(data.users, data.catalog, data.interactions.take(np.zeros(len(data.interactions), dtype=bool)))
    with pytest.raises(DataError, match="no interactions"):
        next(iter(model(data).batches(none, 64, np.random.default_rng(0))))


def test_warm_items_are_scored_by_predicted_vectors(data: TrainData) -> None:
    built = model(data, layers=2)
    users, items = plain_vectors(data, built.users.weight.detach(), built.items.weight.detach(), 2)
    with torch.no_grad():
        expected = built.predictor(users) @ built.predictor(items).T
    scores = built.scorer(data.catalog)(Query(users=torch.arange(USERS)))
    torch.testing.assert_close(scores[:, :-COLD], expected[:, :-COLD], atol=1e-6, rtol=1e-5)


def test_cold_and_added_items_are_their_content_at_the_length_of_warm_ones(data: TrainData) -> None:
    x = {name: data.catalog.modality(name).matrix([28]) for name in ("image", "text")}
    bigger = data.catalog.extend(
        pl.DataFrame({"item": [ITEMS, ITEMS + 1]}), {k: np.repeat(v, 2, 0) for k, v in x.items()}
    )
    built = model(data)
    with torch.no_grad():
        _, warm = plain_vectors(data, built.users.weight, built.items.weight, 1)
        directions = [
            F.normalize(built.predictor(projection(F.normalize(torch.from_numpy(one), dim=1))), dim=1)
            for projection, one in zip(built.projections, x.values(), strict=True)
        ]
        h = F.normalize(directions[0] + directions[1], dim=1) * warm[:-COLD].norm(dim=1).mean()
        _, items = built.vectors(bigger)
        for row in (28, ITEMS, ITEMS + 1):
            torch.testing.assert_close(items[row], built.predictor(h)[0], atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(items[27], built.predictor.bias, atol=1e-6, rtol=0)  # it has no content at all


@pytest.mark.parametrize("trainable", [False, True])
def test_training_gives_cold_items_to_users_who_like_their_content(
    content_shop: Shop, content_correlation: Correlation, trainable: bool
) -> None:
    data = content_shop(users=80)
    built = model(data, dim=16, lr=0.01, trainable_features=trainable)
    train(built, data, 60, size=64, rng=np.random.default_rng(0))
    cold_items_follow_content(built.eval(), data, content_correlation, 0.5)


@pytest.mark.parametrize("trainable", [False, True])
def test_features_are_trained_where_asked(data: TrainData, trainable: bool) -> None:
    built = model(data, trainable_features=trainable)
    built.loss(BATCH)["align/image"].backward()
    x = built.features[0].x
    assert isinstance(x, torch.Tensor)
    assert x.requires_grad == trainable
    if trainable:
        assert x.grad is not None
        assert set(x.grad.abs().sum(dim=1).nonzero().flatten().tolist()) == {3, 4}  # item 9 has no image


@pytest.mark.parametrize("settings", [{"dropout": 1.0}, {"layers": -1}, {"align": -1.0}])
def test_impossible_settings_are_an_error(data: TrainData, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        model(data, **settings)
