"""LightGCN against torch's sparse products and autograd."""

import numpy as np
import pytest
import torch

from modalmix.data.split import TrainData
from modalmix.models.contract import Query, Triples
from modalmix.models.lightgcn import LightGCN, LightGCNConfig
from tests.models.conftest import Shop


@pytest.fixture
def data(content_shop: Shop) -> TrainData:
    return content_shop()


def model(data: TrainData, **settings: float) -> LightGCN:
    torch.manual_seed(0)
    return LightGCN(LightGCNConfig.parse({"dim": 6, "reg": 0.1, **settings}), data)


def propagated(data: TrainData, nodes: torch.Tensor, layers: int) -> torch.Tensor:
    """Equation by equation: a COO matrix, a list of layers, their mean."""
    r = torch.from_numpy(data.interactions.csr.toarray())
    users, items = r.shape
    a = torch.zeros(users + items, users + items)
    a[:users, users:], a[users:, :users] = r, r.T
    root = a.sum(dim=1).pow(-0.5)
    root[root.isinf()] = 0
    a = (root[:, None] * a * root[None, :]).to_sparse_coo()
    embeddings = [nodes]
    for _ in range(layers):
        embeddings.append(torch.sparse.mm(a, embeddings[-1]))
    return torch.stack(embeddings, dim=1).mean(dim=1)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_loss_and_gradient_equal_a_plain_implementation(data: TrainData, layers: int) -> None:
    fast = model(data, layers=layers)
    nodes = fast.nodes.detach().clone().requires_grad_()
    batch = Triples(torch.tensor([0, 1, 1, 7]), torch.tensor([3, 4, 5, 3]), torch.tensor([9, 3, 9, 0]))
    final, (u, i, j) = propagated(data, nodes, layers), (batch.user, batch.positive + 40, batch.negative + 40)
    bpr = -torch.sigmoid((final[u] * (final[i] - final[j])).sum(dim=1)).log().mean()
    reg = 0.1 * (nodes[u].pow(2).sum() + nodes[i].pow(2).sum() + nodes[j].pow(2).sum()) / 4
    terms = fast.loss(batch)
    torch.testing.assert_close(terms["bpr"], bpr, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(terms["reg"], reg, atol=1e-6, rtol=1e-5)
    (terms["bpr"] + terms["reg"]).backward()
    (bpr + reg).backward()
    torch.testing.assert_close(fast.nodes.grad, nodes.grad, atol=1e-6, rtol=1e-5)


def test_scores_are_inner_products_of_the_smoothed_vectors(data: TrainData) -> None:
    built = model(data, layers=2)
    users, items = propagated(data, built.nodes.detach(), 2).split([40, 30])
    scores = built.scorer(data.catalog)(Query(users=torch.arange(40)))
    warm = torch.from_numpy(data.warm)
    torch.testing.assert_close(scores[:, warm], (users @ items.T)[:, warm], atol=1e-6, rtol=1e-5)
    assert not scores[:, ~warm].any()


def test_only_the_embeddings_are_saved(data: TrainData) -> None:
    assert {name: value.shape for name, value in model(data).state_dict().items()} == {"nodes": (70, 6)}


def test_users_and_items_start_at_the_scale_of_their_own_table(data: TrainData) -> None:
    users, items = model(data, dim=64).nodes.detach().split([40, 30])
    assert users.abs().max() <= (6 / (40 + 64)) ** 0.5
    assert (6 / (40 + 64)) ** 0.5 < items.abs().max() <= (6 / (30 + 64)) ** 0.5


def test_a_cold_item_gets_no_gradient(data: TrainData) -> None:
    built = model(data, layers=2)
    batch = next(iter(built.batches(data, 1000, np.random.default_rng(0))))
    sum(built.loss(batch).values()).backward()  # type: ignore[union-attr]
    gradient = built.nodes.grad
    assert gradient is not None
    assert not gradient[40 + 24 :].any()
