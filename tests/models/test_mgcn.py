"""MGCN against its equations, restated with dense matrices."""

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from modalmix.data.catalog import Catalog
from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.data.modality import Modality
from modalmix.data.neighbors import Neighbors
from modalmix.data.split import TrainData
from modalmix.errors import ConfigError
from modalmix.models.contract import Query, Triples
from modalmix.models.mgcn import MGCN, MGCNConfig
from tests.models.conftest import Shop
from tests.models.training import cold_items_follow_content, refuses_bad_modalities, train

USERS, ITEMS, WARM = 40, 30, 24
BATCH = Triples(torch.tensor([0, 1, 1, 7, 0]), torch.tensor([3, 4, 5, 3, 6]), torch.tensor([9, 3, 9, 0, 8]))
SIX = {"image": 12, "text": 8, "audio": 5, "video": 7, "sketch": 4, "smell": 6}


def model(data: TrainData, **settings: Any) -> MGCN:
    torch.manual_seed(0)
    return MGCN(MGCNConfig.parse({"dim": 6, "neighbors": 5, "contrast": 0.1, "reg": 0.01, **settings}), data)


def normalized(a: torch.Tensor) -> torch.Tensor:
    """D^-1/2 A D^-1/2, D the row sums."""
    root = a.sum(dim=1).pow(-0.5)
    root[root.isinf()] = 0.0
    return root[:, None] * a * root[None, :]


def nearest(x: torch.Tensor, k: int) -> torch.Tensor:
    """The dense matrix of cosines, each row's k largest kept; a row of zeros is isolated."""
    unit = torch.nn.functional.normalize(x, dim=1)
    cosine = unit @ unit.T
    cosine[:, x.abs().sum(dim=1) == 0] = 0.0
    best, found = cosine.topk(k, dim=1)
    return torch.zeros_like(cosine).scatter(1, found, best.clamp(min=0.0))


def adjacency(data: TrainData) -> torch.Tensor:
    r = torch.from_numpy(data.interactions.csr.toarray())
    a = torch.zeros(USERS + ITEMS, USERS + ITEMS)
    a[:USERS, USERS:], a[USERS:, :USERS] = r, r.T
    return normalized(a)


def plain(built: MGCN, data: TrainData) -> tuple[torch.Tensor, torch.Tensor]:
    """Behaviour and side vectors of all nodes, node by node where the model works on all at once."""
    config, a = built.config, adjacency(data)
    ids = torch.cat([built.items.weight[:WARM], torch.zeros(ITEMS - WARM, config.dim)])
    layers = [torch.cat([built.users.weight, ids])]
    for _ in range(config.layers):
        layers.append(a @ layers[-1])
    behaviour = torch.stack(layers).mean(dim=0)
    views = []
    for k, modality in enumerate(data.catalog.modalities.values()):
        x = torch.nn.functional.normalize(torch.from_numpy(modality.matrix()), dim=1)
        w, v = built.project[k], built.purify[k]
        z = ids * torch.sigmoid((x @ w.weight.T + w.bias) @ v.weight.T + v.bias)
        for _ in range(config.item_layers):
            z = normalized(nearest(x, config.neighbors)) @ z
        views.append(torch.cat([a[:USERS, USERS:] @ z, z]))
    first, last = built.query[0], built.query[2]
    side = []
    for node in range(USERS + ITEMS):
        has = [k for k, view in enumerate(views) if bool(view[node].detach().any())]
        z = [views[k][node] for k in has]
        if not has:
            side.append(torch.zeros(config.dim))
            continue
        logits = torch.stack([last.weight[0] @ torch.tanh(first.weight @ part + first.bias) for part in z])
        common = sum(share * part for share, part in zip(logits.softmax(dim=0), z, strict=True))
        total = common
        for k, part in zip(has, z, strict=True):
            total = total + torch.sigmoid(built.prefer[k](behaviour[node])) * (part - common)
        side.append(total / (len(views) + 1))
    return behaviour, torch.stack(side)


def contrast(a: torch.Tensor, b: torch.Tensor, temperature: float) -> torch.Tensor:
    rows = []
    for k in range(len(a)):
        scores = torch.stack([torch.cosine_similarity(a[k], other, dim=0) for other in b]) / temperature
        rows.append(-(scores[k].exp() / scores.exp().sum()).log())
    return torch.stack(rows).mean()


@pytest.mark.parametrize(
    ("dims", "absent", "settings"),
    [
        (None, None, {}),
        ({"text": 8}, None, {"layers": 0}),
        (None, {"image": [3, 9, 25], "text": [9, 12]}, {"item_layers": 2, "layers": 3}),
        (SIX, {"smell": range(0, 20)}, {"temperature": 0.7}),
    ],
)
def test_terms_and_gradients_equal_the_equations(content_shop: Shop, dims: Any, absent: Any, settings: Any) -> None:
    data = content_shop(dims, absent=absent)
    built, other = model(data, **settings), model(data, **settings)
    behaviour, side = plain(other, data)
    u, i, j = BATCH.user, USERS + BATCH.positive, USERS + BATCH.negative
    h, t = behaviour + side, built.config.temperature
    expected = {
        "bpr": -torch.sigmoid((h[u] * (h[i] - h[j])).sum(dim=1)).log().mean(),
        "reg": 0.01 * (h[u].pow(2).sum() + h[i].pow(2).sum() + h[j].pow(2).sum()) / 5,
        "contrast": 0.1 * (contrast(side[i], behaviour[i], t) + contrast(side[u], behaviour[u], t)),
    }
    terms = built.loss(BATCH)
    assert terms.keys() == expected.keys()
    for name, term in terms.items():
        torch.testing.assert_close(term, expected[name], atol=1e-6, rtol=1e-4)
    torch.stack(list(terms.values())).sum().backward()
    torch.stack(list(expected.values())).sum().backward()
    wanted = dict(other.named_parameters())
    for name, parameter in built.named_parameters():
        gradient = torch.zeros_like(parameter) if wanted[name].grad is None else wanted[name].grad
        torch.testing.assert_close(parameter.grad, gradient, atol=1e-6, rtol=1e-3, msg=lambda m, n=name: f"{n}: {m}")


def test_scores_are_inner_products_of_behaviour_plus_side(content_shop: Shop) -> None:
    data = content_shop(absent={"image": [3, 25]})
    built = model(data)
    behaviour, side = plain(built, data)
    users, items = (behaviour + side).detach().split([USERS, ITEMS])
    scores = built.scorer(data.catalog)(Query(users=torch.arange(USERS)))
    torch.testing.assert_close(scores, users @ items.T, atol=1e-6, rtol=1e-4)


def test_side_by_hand() -> None:
    """Even attention, gates of 1/2: common = mean, specific = half of what differs, which adds up to nothing."""
    data = _shop_of_two()
    built = model(data, dim=2)
    with torch.no_grad():
        for parameter in [*built.query.parameters(), *built.prefer.parameters()]:
            parameter.zero_()
    views = torch.tensor([[[2.0, 0.0], [0.0, 4.0]], [[2.0, 6.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]])
    side = built.side(torch.ones(3, 2), views)
    torch.testing.assert_close(side, torch.tensor([[1.0, 2.0], [2.0, 6.0], [0.0, 0.0]]) / 3)
    with torch.no_grad():
        built.prefer[0].bias.fill_(100.0)  # the first modality's own part whole, the second's by half
    side = built.side(torch.ones(3, 2), views)
    torch.testing.assert_close(side[0], (torch.tensor([1.0, 2.0]) + torch.tensor([1.0, -2.0]) * 0.5) / 3)


def _shop_of_two() -> TrainData:
    rng = np.random.default_rng(0)
    features = {name: Modality.from_matrix(name, rng.random((8, 3)).astype(np.float32)) for name in ("image", "text")}
    events = Interactions(np.arange(8, dtype=np.int32), np.arange(8, dtype=np.int32), 8, 8)
    return TrainData(IdMap(np.arange(8), "user"), Catalog(IdMap(np.arange(8)), features), events)


def test_the_given_graph_is_used_and_can_be_refused(content_shop: Shop) -> None:
    shop = content_shop()
    rows = np.stack([np.arange(ITEMS), np.roll(np.arange(ITEMS), 1)], axis=1).astype(np.int32)
    text = shop.catalog.modality("text")
    given = Modality("text", text.features, text.present, {}, Neighbors(rows, np.ones(rows.shape, dtype=np.float32)))
    data = TrainData(shop.users, Catalog(shop.catalog.items, {"text": given}), shop.interactions)
    built = model(data, neighbors=2)
    view = built.item_views(data.catalog)[:, 0]
    purified = built.purified(data.catalog)[0]
    torch.testing.assert_close(view, (purified + purified.roll(1, dims=0)) / 2)
    other = model(data, neighbors=2, given_graphs=False).item_views(data.catalog)[:, 0]
    assert not torch.allclose(view, other)


def test_a_cold_item_and_an_added_twin(content_shop: Shop) -> None:
    """Cold items have no behaviour; an added item is what its training neighbours are, whatever the initial values."""
    data = content_shop()
    built = model(data)
    twin = {name: modality.matrix([3]) for name, modality in data.catalog.modalities.items()}
    bigger = data.catalog.extend(pl.DataFrame({"item": [999]}), twin)
    assert not built.behaviour()[USERS + WARM :].any()
    assert built.behaviour()[: USERS + WARM].any(dim=1).all()
    _, items = built.vectors(bigger)
    assert items.shape == (ITEMS + 1, 6)
    views = built.item_views(bigger)
    for k, name in enumerate(built.modalities):
        x = torch.nn.functional.normalize(torch.from_numpy(data.catalog.modality(name).matrix()), dim=1)
        cosine, found = (x @ x[3]).topk(5)
        degrees = nearest(x, 5).sum(dim=1)
        a = built.purified(data.catalog)[k]
        expected = (cosine[:, None] * a[found] / degrees[found, None].sqrt()).sum(dim=0) / cosine.sum().sqrt()
        torch.testing.assert_close(views[-1, k], expected, atol=1e-6, rtol=1e-4)


def test_it_learns_and_cold_items_follow_content(content_shop: Shop, content_correlation: Any) -> None:
    data = content_shop(users=80, items=60, cold=20)
    built = model(data, dim=8, lr=0.02, neighbors=6, reg=1e-4, contrast=0.01)
    train(built, data, 60)
    cold_items_follow_content(built, data, content_correlation, 0.6)


def test_features_are_frozen_unless_asked_for(content_shop: Shop) -> None:
    data = content_shop()
    frozen, trained = model(data), model(data, trainable_features=True)
    assert {name for name, _ in trained.named_parameters()} - {name for name, _ in frozen.named_parameters()} == {
        "features.0.x",
        "features.1.x",
    }
    torch.stack(list(trained.loss(BATCH).values())).sum().backward()
    assert all(bool(modality.x.grad.any()) for modality in trained.features)
    torch.testing.assert_close(trained.loss(BATCH), frozen.loss(BATCH))


def test_bad_input(content_shop: Shop) -> None:
    for settings in ({"temperature": 0.0}, {"contrast": -1.0}, {"item_layers": 0}, {"layers": -1}, {"neighbors": 0}):
        with pytest.raises(ConfigError):
            MGCNConfig.parse(settings)
    with pytest.raises(ConfigError, match="neighbors"):
        model(content_shop(), neighbors=31)
    refuses_bad_modalities(model, content_shop)


def test_the_paper_preset_is_the_published_code() -> None:
    paper = MGCNConfig.preset("paper").model_dump()
    published = {"dim": 64, "lr": 1e-3, "batch_size": 2048, "reg": 1e-4 / 2, "layers": 2, "item_layers": 1}
    published |= {"neighbors": 10, "contrast": 0.01, "temperature": 0.2, "trainable_features": True, "lr_factor": 0.96}
    assert paper | published == paper
