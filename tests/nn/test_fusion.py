"""The weighted sum and its alignment against the plain formulas."""

import pytest
import torch

from modalmix.nn import fusion
from modalmix.nn.fusion import fuse


@pytest.mark.parametrize("rows", [1, 3, 512])
@pytest.mark.parametrize("modalities", [1, 2, 4])
def test_values_and_gradients_equal_the_plain_formulas(
    rows: int, modalities: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusion, "_ROWS", rows)
    torch.manual_seed(0)
    parts = torch.randn(7, modalities, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(7, modalities, dtype=torch.float64).softmax(dim=1).requires_grad_()
    present = torch.rand(7, modalities) < 0.7
    upstream = torch.randn(7, 5, dtype=torch.float64)
    vectors, error = fuse(parts, weights, present)
    ours = torch.autograd.grad((vectors * upstream).sum() + 3.0 * error, (parts, weights))

    plain = torch.einsum("nm,nmd->nd", weights, parts)
    expected = plain.new_zeros(())
    for m in range(modalities):
        if present[:, m].any():
            expected = expected + torch.nn.functional.mse_loss(plain[present[:, m]], parts[present[:, m], m])
    torch.testing.assert_close((vectors, error), (plain, expected))
    torch.testing.assert_close(ours, torch.autograd.grad((plain * upstream).sum() + 3.0 * expected, (parts, weights)))


def test_the_align_identity_of_two_modalities() -> None:
    parts, weights = torch.randn(5, 2, 3, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64).softmax(dim=1)
    identity = (weights.square().sum(dim=1, keepdim=True) * (parts[:, 0] - parts[:, 1]).square()).mean()
    assert float(fuse(parts, weights, torch.ones(5, 2, dtype=torch.bool))[1]) == pytest.approx(float(identity))


def test_alignment_counts_only_present_modalities() -> None:
    parts = torch.tensor([[[0.0, 1.0], [2.0, 1.0]], [[2.0, 4.0], [0.0, 0.0]]])
    weights, present = torch.tensor([[0.5, 0.5], [1.0, 0.0]]), torch.tensor([[True, True], [True, False]])
    vectors, error = fuse(parts, weights, present)
    assert vectors.tolist() == [[1.0, 1.0], [2.0, 4.0]]
    # first modality: (1 + 0 + 0 + 0) / 4 over two items; second: (1 + 0) / 2 over item 0 alone
    assert float(error) == pytest.approx(0.25 + 0.5)
