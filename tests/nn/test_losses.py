"""Losses by hand."""

import math

import pytest
import torch

from modalmix.nn.losses import bpr_loss, info_nce, l2_penalty


def test_bpr_by_hand() -> None:
    loss = bpr_loss(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 0.0]))
    assert loss.item() == pytest.approx((math.log(1 + math.exp(-1)) + math.log(2)) / 2)


def test_bpr_equals_minus_log_sigmoid_and_its_gradient() -> None:
    positive, negative = torch.randn(50, requires_grad=True), torch.randn(50, requires_grad=True)
    expected = -torch.sigmoid(positive - negative).log().mean()
    loss = bpr_loss(positive, negative)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-5)
    for fast, plain in zip(
        torch.autograd.grad(loss, (positive, negative)),
        torch.autograd.grad(expected, (positive, negative)),
        strict=True,
    ):
        torch.testing.assert_close(fast, plain, atol=1e-6, rtol=1e-5)


def test_bpr_of_far_apart_scores_is_finite() -> None:
    assert bpr_loss(torch.tensor([-1e4]), torch.tensor([1e4])).item() == pytest.approx(2e4)
    assert bpr_loss(torch.tensor([1e4]), torch.tensor([-1e4])).item() == 0.0


def test_l2_by_hand() -> None:
    users, items = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[1.0, 0.0], [2.0, 2.0]])
    assert l2_penalty(users, items).item() == pytest.approx((25 + 1 + 8) / 2)
    assert l2_penalty(torch.tensor([1.0, 3.0])).item() == pytest.approx(5.0)


def test_info_nce_by_hand() -> None:
    queries, keys = torch.tensor([[2.0, 0.0], [0.0, 5.0]]), torch.tensor([[3.0, 0.0], [4.0, 3.0]])
    # cosines (1, .8) and (0, .6), each row's own on the diagonal, over .5
    first = math.log(math.exp(2.0) + math.exp(1.6)) - 2.0
    second = math.log(1.0 + math.exp(1.2)) - 1.2
    assert info_nce(queries, keys, 0.5).item() == pytest.approx((first + second) / 2)


def test_info_nce_and_gradients_equal_cross_entropy_of_cosines() -> None:
    queries, keys = torch.randn(7, 4, requires_grad=True), torch.randn(7, 4, requires_grad=True)
    cosines = torch.cosine_similarity(queries[:, None], keys[None], dim=2)
    expected = torch.nn.functional.cross_entropy(cosines / 0.2, torch.arange(7))
    loss = info_nce(queries, keys, 0.2)
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=1e-5)
    ours, plain = (torch.autograd.grad(one, (queries, keys)) for one in (loss, expected))
    torch.testing.assert_close(ours, plain, atol=1e-6, rtol=1e-4)


def test_info_nce_of_zero_rows_is_finite() -> None:
    queries = torch.zeros(3, 2, requires_grad=True)
    loss = info_nce(queries, torch.zeros(3, 2), 0.2)
    assert loss.item() == pytest.approx(math.log(3))
    assert torch.isfinite(torch.autograd.grad(loss, queries)[0]).all()
