"""LATTICE against its equations, restated with dense matrices and autograd."""

from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
import torch

from modalmix.data.drop import drop_modality
from modalmix.data.split import TrainData
from modalmix.errors import ConfigError
from modalmix.models.contract import Query, Triples
from modalmix.models.lattice import Edges, Lattice, LatticeConfig, neighbor_lists, similar
from tests.models.conftest import Shop
from tests.models.training import cold_items_follow_content, refuses_bad_modalities, train
from tests.nn.test_neighbors import Largest

USERS, ITEMS, WARM = 40, 30, 24
BATCH = Triples(torch.tensor([0, 1, 1, 7, 0]), torch.tensor([3, 4, 5, 3, 6]), torch.tensor([9, 3, 9, 0, 8]))
SIX = {"image": 12, "text": 8, "audio": 5, "video": 7, "sketch": 4, "smell": 6}


def model(data: TrainData, **settings: Any) -> Lattice:
    torch.manual_seed(0)
    built = Lattice(
        LatticeConfig.parse({"dim": 6, "projected": 5, "neighbors": 4, "reg": 0.01, "skip": 0.6, **settings}), data
    )
    with torch.no_grad():  # uneven shares
        built.modality_logits.copy_(torch.arange(len(built.modality_logits)) / 3)
    return built


def normalized(a: torch.Tensor) -> torch.Tensor:
    """D^-1/2 A D^-1/2, D the row sums."""
    root = torch.where(a.sum(dim=1) > 0, a.sum(dim=1), torch.inf).pow(-0.5)
    return root[:, None] * a * root[None, :]


def nearest(x: torch.Tensor, present: torch.Tensor, k: int) -> torch.Tensor:
    """The dense matrix of cosines, each row's k largest kept, those that are positive."""
    unit = torch.nn.functional.normalize(x, dim=1)
    cosine = torch.where(present[:, None] & present[None, :], unit @ unit.T, -1.0)
    kept = torch.zeros_like(cosine).scatter(1, cosine.topk(k, dim=1).indices, 1.0)
    return kept * cosine.clamp(min=0.0)


def item_matrix(built: Lattice, data: TrainData) -> torch.Tensor:
    """A, all items x all items."""
    k, shares = built.config.neighbors, built.modality_logits.softmax(dim=0)
    raw, learnt = torch.zeros(ITEMS, ITEMS), torch.zeros(ITEMS, ITEMS)
    for share, linear, modality in zip(shares, built.project, data.catalog.modalities.values(), strict=True):
        x, present = torch.from_numpy(modality.matrix()), torch.from_numpy(modality.present)
        raw = raw + share * normalized(nearest(x, present, k))
        projected = torch.nn.functional.normalize(x, dim=1) @ linear.weight.T + linear.bias
        learnt = learnt + share * nearest(projected, present, k)
    return (1 - built.config.skip) * normalized(learnt) + built.config.skip * raw


def vectors(built: Lattice, data: TrainData, a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Final vectors from the item graph `a`."""
    r = torch.from_numpy(data.interactions.csr.toarray())
    graph = torch.zeros(USERS + ITEMS, USERS + ITEMS)
    graph[:USERS, USERS:], graph[USERS:, :USERS] = r, r.T
    ids = torch.cat([built.items.weight[:WARM], torch.zeros(ITEMS - WARM, 6)])
    layers = [torch.cat([built.users.weight, ids])]
    for _ in range(built.config.layers):
        layers.append(normalized(graph) @ layers[-1])
    h = ids
    for _ in range(built.config.item_layers):
        h = a @ h
    users, items = torch.stack(layers).mean(dim=0).split([USERS, ITEMS])
    return users, items + torch.nn.functional.normalize(h, dim=1)


def terms_of(users: torch.Tensor, items: torch.Tensor) -> dict[str, torch.Tensor]:
    u, i, j = users[BATCH.user], items[BATCH.positive], items[BATCH.negative]
    squares = u.pow(2).sum() + i.pow(2).sum() + j.pow(2).sum()
    return {"bpr": -torch.sigmoid((u * (i - j)).sum(dim=1)).log().mean(), "reg": 0.01 * squares / 5}


@pytest.mark.parametrize(
    ("dims", "absent", "settings"),
    [
        (None, None, {}),
        ({"text": 8}, None, {"layers": 0, "skip": 0.0}),
        (None, {"image": [3, 9, 25], "text": [9, 12]}, {"item_layers": 2, "layers": 3}),
        (SIX, {"smell": range(0, 20)}, {"skip": 0.9}),
    ],
)
def test_the_first_step_trains_the_graph_and_the_next_take_it_as_it_is(
    content_shop: Shop, dims: Any, absent: Any, settings: Any
) -> None:
    """Terms and every gradient, of a first step and of the one after it, whose graph is that of before."""
    data = content_shop(dims, absent=absent)
    built, other = model(data, **settings), model(data, **settings)
    a = item_matrix(other, data)
    for graph, learns in ((a, True), (a.detach(), False)):
        for one in (built, other):
            one.zero_grad()
        terms, expected = built.loss(BATCH), terms_of(*vectors(other, data, graph))
        for name, term in terms.items():
            torch.testing.assert_close(term, expected[name], atol=1e-6, rtol=1e-4)
        torch.stack(list(terms.values())).sum().backward()
        torch.stack(list(expected.values())).sum().backward()
        wanted = dict(other.named_parameters())
        for name, parameter in built.named_parameters():
            if not learns and not name.startswith(("users", "items")):
                assert parameter.grad is None
                continue
            gradient = wanted[name].grad
            assert gradient is not None
            torch.testing.assert_close(parameter.grad, gradient, atol=1e-6, rtol=1e-3, msg=lambda m, n=name: n + m)
        assert not learns or bool(built.project[0].weight.grad.any())


def test_the_graph_is_built_anew_each_epoch_and_for_scoring(content_shop: Shop) -> None:
    data = content_shop(absent={"text": [12]})
    built = model(data)
    built.loss(BATCH)
    before = built.built
    with torch.no_grad():
        for linear in built.project:
            linear.weight.mul_(-1.0).add_(torch.randn_like(linear.weight))
    built.loss(BATCH)
    assert built.built is before
    users, items = vectors(built, data, item_matrix(built, data))
    scores = built.scorer(data.catalog)(Query(users=torch.arange(USERS)))
    torch.testing.assert_close(scores, (users @ items.T).detach(), atol=1e-5, rtol=1e-4)
    assert built.built is before, "making a scorer must not touch the graph that training uses"
    built.start_epoch(2)
    torch.testing.assert_close(built.loss(BATCH), terms_of(users, items), atol=1e-6, rtol=1e-4)
    assert built.built is not before


def test_no_tensor_of_a_step_is_items_x_items(content_shop: Shop) -> None:
    """The first step of an epoch, which builds the graph, and its gradients; the next one. A chunk has 1,024 items."""
    data = content_shop(items=1300, cold=0)
    built = model(data)
    with Largest() as largest:
        for _ in range(2):
            torch.stack(list(built.loss(BATCH).values())).sum().backward()
    assert 1300 < largest.numel <= 1024 * 1300


def test_a_constant_graph_adds_up_what_the_edges_say() -> None:
    edges = Edges(torch.tensor([[0, 1, 0], [2, 0, 0], [1, 1, 2]]), torch.tensor([[1.0, 2, 3], [5, 0, 0], [1, 1, 4]]))
    dense = torch.tensor([[4.0, 2, 0], [0, 0, 5], [0, 2, 4]])
    x = torch.randn(3, 4)
    torch.testing.assert_close(edges.propagate(x), dense @ x)
    torch.testing.assert_close(edges.constant(3)(x), dense @ x)
    assert len(edges.constant(3).weights) == 5
    torch.testing.assert_close(edges.normalized().propagate(x), normalized(dense) @ x)


def test_gradients_of_edges_are_those_of_the_dense_matrix() -> None:
    items, x = torch.tensor([[0, 2], [1, 0], [2, 1]]), torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w, v: Edges(items, w).normalized().propagate(v), (weights, x))


def test_an_item_without_an_edge_stays_zero_and_harms_no_gradient() -> None:
    x = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]], requires_grad=True)
    edges = similar(x, torch.tensor([True, False, True]), 2, 3).normalized()
    assert not edges.weights[1].any()
    h = torch.nn.functional.normalize(edges.propagate(torch.ones(3, 2)), dim=1)
    assert not h[1].any()
    h.sum().backward()
    assert torch.isfinite(x.grad).all()
    assert not x.grad[1].any()


def test_opposites_are_not_similar() -> None:
    edges = similar(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 1.0]]), torch.ones(3, dtype=torch.bool), 3, 3)
    dense = torch.zeros(3, 3).scatter_add(1, edges.items, edges.weights)
    half = 0.5**0.5
    torch.testing.assert_close(dense, torch.tensor([[1.0, 0, half], [0, 1, 0], [half, 0, 1]]))


def test_lists_of_a_matrix() -> None:
    matrix = sp.csr_matrix(np.array([[0, 2, 1], [0, 0, 0], [3, 0, 0], [1, 0, 1]], dtype=np.float32))
    edges = neighbor_lists(matrix, 2)
    assert edges.items.tolist() == [[1, 2], [0, 0], [0, 0], [0, 2]]
    assert edges.weights.tolist() == [[2, 1], [0, 0], [3, 0], [1, 1]]


def test_an_added_item_is_what_its_neighbours_are(content_shop: Shop) -> None:
    """An item with the content of a training item has its neighbours and its weights, in both kinds of graph."""
    data = content_shop()
    built = model(data)
    twin = {name: modality.matrix([3]) for name, modality in data.catalog.modalities.items()}
    bigger = data.catalog.extend(pl.DataFrame({"item": [999]}), twin)
    edges, known = built.mixed(bigger), built.mixed(data.catalog)
    for row, expected in ((ITEMS, 3), (5, 5)):
        dense = [
            torch.zeros(ITEMS).scatter_add(0, e.items[r], e.weights[r]) for e, r in ((edges, row), (known, expected))
        ]
        torch.testing.assert_close(*dense)
    users, items = built.vectors(bigger)
    assert users.shape == (USERS, 6)
    torch.testing.assert_close(items[-1], items[-1] / items[-1].norm())  # no behaviour, only h / |h|


def test_a_lost_modality_leaves_the_others(content_shop: Shop) -> None:
    data = content_shop()
    lost = drop_modality(data.catalog, "image", 1.0, np.random.default_rng(0))
    built = model(data)
    text = built.modality_logits.softmax(dim=0)[1].item()
    edges = built.mixed(lost)
    own = model(data, modalities=("text",))
    own.project[0].load_state_dict(built.project[1].state_dict())
    expected = own.mixed(data.catalog)
    x = torch.randn(ITEMS, 3)
    learnt = own.learnt(data.catalog, torch.ones(1)).propagate(x)  # its degrees are its own: the share cancels
    raw = (expected.propagate(x) - 0.4 * learnt) / 0.6
    torch.testing.assert_close(edges.propagate(x), 0.4 * learnt + 0.6 * text * raw, atol=1e-6, rtol=1e-4)


def test_it_learns_and_cold_items_follow_content(content_shop: Shop, content_correlation: Any) -> None:
    data = content_shop(users=80, items=60, cold=20)
    built = model(data, dim=8, lr=0.02, neighbors=6, reg=1e-4, skip=0.5)
    start = built.project[0].weight.detach().clone()
    train(built, data, 60)
    assert not torch.allclose(built.project[0].weight, start)
    cold_items_follow_content(built, data, content_correlation, 0.6)


def test_bad_input(content_shop: Shop) -> None:
    for settings in ({"skip": 1.1}, {"skip": -0.1}, {"item_layers": 0}, {"layers": -1}, {"projected": 0}):
        with pytest.raises(ConfigError):
            LatticeConfig.parse(settings)
    with pytest.raises(ConfigError, match="neighbors"):
        model(content_shop(), neighbors=31)
    refuses_bad_modalities(model, content_shop)


def test_the_paper_preset_is_the_published_code() -> None:
    paper = LatticeConfig.preset("paper").model_dump()
    published = {"dim": 64, "projected": 64, "lr": 5e-4, "batch_size": 1024, "reg": 1e-5 / 2, "layers": 2}
    published |= {
        "item_layers": 1,
        "neighbors": 10,
        "skip": 0.9,
        "epochs": 200,
        "trainable_features": True,
        "lr_factor": 0.96,
    }
    assert paper | published == paper
