"""BPR-MF against its formula."""

import pytest
import torch

from modalmix.data.split import TrainData
from modalmix.models.bprmf import BPRMF, BPRMFConfig
from modalmix.models.contract import Query, Triples
from tests.models.conftest import Shop

BATCH = Triples(torch.tensor([0, 1, 1, 7]), torch.tensor([3, 4, 5, 3]), torch.tensor([9, 3, 9, 0]))


@pytest.fixture
def data(content_shop: Shop) -> TrainData:
    return content_shop()


def model(data: TrainData, **settings: float) -> BPRMF:
    torch.manual_seed(0)
    built = BPRMF(BPRMFConfig.parse({"dim": 6, "reg": 0.1, **settings}), data)
    if built.bias is not None:
        torch.nn.init.normal_(built.bias)
    return built


@pytest.mark.parametrize("bias", [True, False])
def test_loss_and_gradient_equal_the_formula(data: TrainData, bias: bool) -> None:
    fast = model(data, bias=bias)
    users, items = (table.detach().clone().requires_grad_() for table in (fast.users, fast.items))
    b = torch.zeros(fast.n_items) if fast.bias is None else fast.bias.detach().clone()
    b.requires_grad_(bias)
    bpr = reg = torch.zeros(())
    for u, i, j in zip(*BATCH, strict=True):
        margin = users[u] @ items[i] + b[i] - users[u] @ items[j] - b[j]
        bpr = bpr - torch.sigmoid(margin).log() / 4
        reg = reg + 0.1 * sum(x.pow(2).sum() for x in (users[u], items[i], items[j], b[i], b[j])) / 4
    terms = fast.loss(BATCH)
    torch.testing.assert_close(terms["bpr"], bpr, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(terms["reg"], reg, atol=1e-6, rtol=1e-5)
    (terms["bpr"] + terms["reg"]).backward()
    (bpr + reg).backward()
    torch.testing.assert_close(fast.users.grad, users.grad, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(fast.items.grad, items.grad, atol=1e-6, rtol=1e-5)
    if fast.bias is not None:
        torch.testing.assert_close(fast.bias.grad, b.grad, atol=1e-6, rtol=1e-5)


def test_scores_are_inner_products_plus_bias_and_cold_items_score_zero(data: TrainData) -> None:
    built = model(data)
    scores = built.scorer(data.catalog)(Query(users=torch.arange(40)))
    assert built.bias is not None
    warm = torch.from_numpy(data.warm)
    expected = (built.users @ built.items.T + built.bias).detach()
    torch.testing.assert_close(scores[:, warm], expected[:, warm])
    assert not scores[:, ~warm].any()
    assert (~warm).sum() == 6


def test_without_bias_there_is_none(data: TrainData) -> None:
    assert set(model(data, bias=False).state_dict()) == {"users", "items"}
