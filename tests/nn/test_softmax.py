"""The chunked full softmax against torch's cross entropy."""

import pytest
import torch
import torch.nn.functional as F

from modalmix.nn import softmax
from modalmix.nn.softmax import full_softmax_loss


@pytest.mark.parametrize("chunk", [1, 30, 1 << 22])
def test_loss_and_gradients_equal_cross_entropy(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softmax, "_CHUNK", chunk)
    torch.manual_seed(0)
    q = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    h = torch.randn(11, 5, dtype=torch.float64, requires_grad=True)
    positive = torch.tensor([0, 3, 3, 10, 5, 0, 1])
    (2.5 * full_softmax_loss(q, h, positive)).backward()
    ours = q.grad.clone(), h.grad.clone()
    q.grad = h.grad = None
    expected = F.cross_entropy(q @ h.T, positive)
    (2.5 * expected).backward()
    torch.testing.assert_close(full_softmax_loss(q, h, positive), expected)
    torch.testing.assert_close(ours, (q.grad, h.grad))


def test_huge_scores_stay_finite() -> None:
    q = torch.full((2, 1), 1000.0, requires_grad=True)
    loss = full_softmax_loss(q, torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(1000.0)
    assert bool(q.grad.isfinite().all())


def test_one_item_has_no_loss() -> None:
    assert float(full_softmax_loss(torch.randn(3, 2), torch.randn(1, 2), torch.zeros(3, dtype=torch.long))) == 0.0
