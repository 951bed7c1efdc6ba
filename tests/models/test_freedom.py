"""FREEDOM against plain dense algebra."""

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F

from modalmix.data.split import TrainData
from modalmix.errors import ConfigError
from modalmix.models.contract import Query, Triples
from modalmix.models.freedom import FREEDOM, FREEDOMConfig, published_weights
from modalmix.nn.graph import thin
from tests.models.conftest import Shop

USERS, ITEMS, COLD = 40, 30, 6
BATCH = Triples(torch.tensor([0, 1, 1, 7]), torch.tensor([3, 4, 5, 3]), torch.tensor([9, 3, 9, 0]))


@pytest.fixture
def data(content_shop: Shop) -> TrainData:
    return content_shop(absent={"image": [9, 20]})


def model(data: TrainData, **settings: Any) -> FREEDOM:
    torch.manual_seed(0)
    return FREEDOM(FREEDOMConfig.parse({"dim": 6, "neighbors": 4, **settings}), data)


def dense_lightgcn(r: np.ndarray, nodes: torch.Tensor, layers: int) -> tuple[torch.Tensor, ...]:
    """Mean of layers over D^-1/2 A D^-1/2, matrix by matrix."""
    a = np.block([[np.zeros((len(r),) * 2), r], [r.T, np.zeros((r.shape[1],) * 2)]])
    degree = a.sum(axis=1)
    root = np.divide(1, np.sqrt(degree), where=degree > 0, out=np.zeros_like(degree))
    step = torch.from_numpy(root[:, None] * a * root).float()
    steps = [torch.linalg.matrix_power(step, k) @ nodes for k in range(layers + 1)]
    return torch.stack(steps).mean(dim=0).split([len(r), r.shape[1]])


def dense_similarity(data: TrainData, weights: dict[str, float], k: int) -> torch.Tensor:
    """Weighted sum of the k nearest by cosine, edges of 1, over the root of the row sums on both sides."""
    total = np.zeros((ITEMS, ITEMS))
    for name, weight in weights.items():
        modality = data.catalog.modality(name)
        x, present = modality.matrix(), modality.present
        unit = x / np.linalg.norm(x, axis=1, keepdims=True).clip(1e-12)
        cosine = np.where(present[None, :] & present[:, None], unit @ unit.T, -2)
        graph = np.zeros_like(total)
        for item in np.flatnonzero(present):
            graph[item, np.argsort(-cosine[item])[:k]] = 1
        degree = np.maximum(graph.sum(axis=1), 1)
        total += weight * graph / np.sqrt(degree[:, None] * degree[None, :])
    return torch.from_numpy(total).float()


@pytest.mark.parametrize(("layers", "item_layers"), [(2, 1), (0, 2)])
def test_loss_and_gradient_equal_a_plain_implementation(data: TrainData, layers: int, item_layers: int) -> None:
    built = model(data, layers=layers, item_layers=item_layers, reg=0.1, content_weight=0.5, dropout=0.5)
    built.start_epoch(3)
    r = thin(data.interactions.csr, 0.5, np.random.default_rng([built.config.seed, 3])).toarray()
    ids = [table.weight.detach().clone().requires_grad_() for table in (built.users, built.items)]
    users, items = dense_lightgcn(r, torch.cat(ids), layers)
    s = dense_similarity(data, {"image": 0.1, "text": 0.9}, 4)
    items = items + torch.linalg.matrix_power(s, item_layers) @ ids[1]
    u, i, j = BATCH
    expected = {
        "bpr": -torch.sigmoid((users[u] * (items[i] - items[j])).sum(dim=1)).log().mean(),
        "reg": 0.1 * (ids[0][u].pow(2).sum() + ids[1][i].pow(2).sum() + ids[1][j].pow(2).sum()) / 4,
    }
    for name, projection in zip(("image", "text"), built.projections, strict=True):
        x = F.normalize(torch.from_numpy(data.catalog.modality(name).matrix()), dim=1)
        projected = x @ projection.weight.detach().T + projection.bias.detach()
        margin = (users[u] * (projected[i] - projected[j])).sum(dim=1)
        if name == "image":  # item 9 has none: the first and third triple are draws
            margin = margin * torch.tensor([0.0, 1.0, 0.0, 1.0])
        expected[f"content/{name}"] = 0.5 * -torch.sigmoid(margin).log().mean()
    terms = built.loss(BATCH)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, atol=1e-6, rtol=1e-5)
    torch.stack(list(terms.values())).sum().backward()
    torch.stack(list(expected.values())).sum().backward()
    for table, plain in zip((built.users, built.items), ids, strict=True):
        torch.testing.assert_close(table.weight.grad, plain.grad, atol=1e-6, rtol=1e-5)


def test_scores_take_the_whole_graph(data: TrainData) -> None:
    built = model(data)
    built.start_epoch(1)
    ids = torch.cat([built.users.weight, built.items.weight]).detach()
    users, items = dense_lightgcn(data.interactions.csr.toarray(), ids, 2)
    items = items.clone()
    items[-COLD:] = 0  # a cold item is what similar items are
    items += dense_similarity(data, {"image": 0.1, "text": 0.9}, 4) @ built.items.weight.detach()
    scores = built.scorer(data.catalog)(Query(users=torch.arange(USERS)))
    torch.testing.assert_close(scores, users @ items.T, atol=1e-6, rtol=1e-5)


def test_an_added_item_is_made_of_the_ids_of_its_neighbours(data: TrainData) -> None:
    text = data.catalog.modality("text").matrix([5])
    bigger = data.catalog.extend(pl.DataFrame({"item": [ITEMS]}), {"text": text})
    built = model(data, modalities=["text"])
    x = F.normalize(torch.from_numpy(data.catalog.modality("text").matrix()), dim=1)
    nearest = (x @ x[5]).topk(4).indices
    with torch.no_grad():
        _, items = built.vectors(bigger)
        expected = built.items.weight[nearest].mean(dim=0)
    torch.testing.assert_close(items[ITEMS], expected)  # all have 4 neighbours: each weighs 1 / 4


def test_each_epoch_has_its_own_edges_and_the_same_ones_again(data: TrainData) -> None:
    built, again = model(data), model(data)
    seen = []
    for epoch in (1, 2):
        built.start_epoch(epoch)
        seen.append(built.thinned.columns.clone())
    again.start_epoch(2)
    assert len(seen[0]) == len(seen[1]) == 2 * 41  # a fifth of 205, both directions
    assert not torch.equal(seen[0], seen[1])
    assert torch.equal(again.thinned.columns, seen[1])


def test_without_dropout_the_graph_stays_whole(data: TrainData) -> None:
    built = model(data, dropout=0.0)
    built.start_epoch(1)
    assert built.thinned is built.graph


def test_only_learnt_weights_are_saved(data: TrainData) -> None:
    built = model(data)
    built.start_epoch(1)
    assert set(built.state_dict()) == {"users.weight", "items.weight"} | {
        f"projections.{k}.{name}" for k in (0, 1) for name in ("weight", "bias")
    }


@pytest.mark.parametrize("trainable", [False, True])
def test_features_are_trained_where_asked(data: TrainData, trainable: bool) -> None:
    built = model(data, trainable_features=trainable)
    built.loss(BATCH)["content/text"].backward()
    x = built.features[1].x
    assert isinstance(x, torch.Tensor)
    assert x.requires_grad == trainable
    if trainable:
        assert x.grad is not None
        assert set(x.grad.abs().sum(dim=1).nonzero().flatten().tolist()) == {0, 3, 4, 5, 9}


def test_weights_of_graphs_are_published_equal_or_given() -> None:
    assert published_weights(("text", "image_clip")) == {"text": 0.9, "image_clip": 0.1}
    assert published_weights(("image", "text", "audio")) == {"image": 1 / 3, "text": 1 / 3, "audio": 1 / 3}
    assert published_weights(("image_a", "image_b")) == {"image_a": 0.5, "image_b": 0.5}
    assert published_weights(("text",)) == {"text": 1.0}


@pytest.mark.parametrize("given", [{"image": 1.0}, {"image": 1.0, "text": 1.0, "audio": 1.0}])
def test_weights_of_other_modalities_are_an_error(data: TrainData, given: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="graph_weights has no"):
        model(data, graph_weights=given)


@pytest.mark.parametrize(
    "settings",
    [{"dropout": 1.0}, {"dropout": -0.1}, {"item_layers": 0}, {"graph_weights": {"image": -1.0}}, {"neighbors": 31}],
)
def test_impossible_settings_are_an_error(data: TrainData, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        model(data, **settings)
