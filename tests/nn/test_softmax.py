"""The chunked softmax, full and sampled, against torch's cross entropy."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

from modalmix.nn import softmax
from modalmix.nn.softmax import full_softmax_loss, sampled_softmax_loss


@pytest.mark.parametrize("length", [1.0, 30.0])  # of the vectors: with 30 e^score would overflow without a shift
@pytest.mark.parametrize("chunk", [1, 30, 1 << 22])
def test_loss_and_gradients_equal_cross_entropy(chunk: int, length: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softmax, "_CHUNK", chunk)
    torch.manual_seed(0)
    q, h = ((length * torch.randn(n, 5, dtype=torch.float64)).requires_grad_() for n in (7, 11))
    positive = torch.tensor([0, 3, 3, 10, 5, 0, 1])
    (2.5 * full_softmax_loss(q, h, positive)).backward()
    ours = q.grad.clone(), h.grad.clone()
    q.grad = h.grad = None
    expected = F.cross_entropy(q @ h.T, positive)
    (2.5 * expected).backward()
    torch.testing.assert_close(full_softmax_loss(q, h, positive), expected)
    torch.testing.assert_close(ours, (q.grad, h.grad))


@pytest.mark.parametrize("chunk", [1, 30, 1 << 22])
def test_coarse_products_are_of_rounded_numbers(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the plain softmax of rounded vectors, whose scores are rounded too: 2^-9 of each at most."""
    monkeypatch.setattr(softmax, "_CHUNK", chunk)
    torch.manual_seed(0)
    q, h = (torch.randn(n, 16, requires_grad=True) for n in (70, 11))
    positive = torch.randint(11, (70,))
    loss = full_softmax_loss(q, h, positive, coarse=True)
    found = torch.autograd.grad(loss, (q, h))
    exact = F.cross_entropy(q @ h.T, positive)
    assert not torch.equal(loss, exact)
    torch.testing.assert_close(loss, exact, rtol=1e-2, atol=0)
    for ours, theirs in zip(found, torch.autograd.grad(exact, (q, h)), strict=True):
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


def test_huge_scores_stay_finite() -> None:
    q = torch.full((2, 1), 1000.0, requires_grad=True)
    loss = full_softmax_loss(q, torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(1000.0)
    assert bool(q.grad.isfinite().all())


@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("largest", [64.0, 65.0, 80.0])  # on both sides of where scores are shifted
def test_scores_near_the_limit_lose_nothing(largest: float, coarse: bool) -> None:
    """Against double precision. The vectors have no more bits than bfloat16; e^score, rounded to it, is 2^-9 off."""
    q = torch.full((3, 1), largest, requires_grad=True)
    h = torch.tensor([[1.0]] * 400 + [[-1.0], [0.5]], requires_grad=True)
    positive = torch.tensor([0, 400, 401])
    loss = full_softmax_loss(q, h, positive, coarse=coarse)
    expected = F.cross_entropy(q.double() @ h.double().T, positive)
    torch.testing.assert_close(loss, expected.float(), rtol=1e-5, atol=0)
    for ours, theirs in zip(torch.autograd.grad(loss, (q, h)), torch.autograd.grad(expected, (q, h)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2e-2 if coarse else 1e-5, atol=2**-9 if coarse else 1e-6)


@pytest.mark.parametrize("length", [1.0, 100.0])
def test_one_item_has_no_loss(length: float) -> None:
    loss = full_softmax_loss(torch.randn(3, 2), torch.full((1, 2), length), torch.zeros(3, dtype=torch.long))
    assert float(loss) == pytest.approx(0.0, abs=1e-6)


def double(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("correct_positive", [True, False])
@pytest.mark.parametrize("chunk", [1, 30, 1 << 22])
def test_sampled_loss_and_gradients_equal_cross_entropy_of_corrected_logits(
    chunk: int, correct_positive: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(softmax, "_CHUNK", chunk)
    torch.manual_seed(0)
    q, h, positive = double(70, 5), double(11, 5), torch.randint(11, (70,))
    log_expected, sampled = torch.rand(11, dtype=torch.float64).log(), torch.tensor([0, 3, 4, 4, 9])
    others = q @ h[sampled].T - log_expected[sampled]
    others = others.masked_fill(positive[:, None] == sampled, -torch.inf)  # accidental hits
    own = (q * h[positive]).sum(dim=1) - (log_expected[positive] if correct_positive else 0.0)
    expected = F.cross_entropy(torch.cat([own[:, None], others], dim=1), torch.zeros(70, dtype=torch.long))
    loss = sampled_softmax_loss(q, h, positive, sampled, log_expected, correct_positive=correct_positive)
    torch.testing.assert_close(loss, expected)
    ours, theirs = torch.autograd.grad(2.5 * loss, (q, h)), torch.autograd.grad(2.5 * expected, (q, h))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("correct_positive", [True, False])
def test_all_items_sampled_once_are_the_full_softmax(correct_positive: bool) -> None:
    torch.manual_seed(0)
    q, h, positive = double(70, 5), double(11, 5), torch.randint(11, (70,))
    once = torch.zeros(11, dtype=torch.float64)
    sampled = sampled_softmax_loss(q, h, positive, torch.randperm(11), once, correct_positive=correct_positive)
    full = full_softmax_loss(q, h, positive)
    torch.testing.assert_close(sampled, full)
    torch.testing.assert_close(torch.autograd.grad(sampled, (q, h)), torch.autograd.grad(full, (q, h)))


def mean_gradient(q: torch.Tensor, h: torch.Tensor, positive: torch.Tensor, size: int, correct: bool) -> torch.Tensor:
    """Of the loss in q, over all samples of `size` distinct items, each as likely."""
    expected = torch.full((len(h),), math.log(size / len(h)), dtype=torch.float64)
    samples = [torch.tensor(rows) for rows in itertools.combinations(range(len(h)), size)]
    losses = [sampled_softmax_loss(q, h, positive, rows, expected, correct_positive=correct) for rows in samples]
    return torch.autograd.grad(torch.stack(losses).mean(), q)[0]


def test_the_expected_gradient_approaches_that_of_the_full_softmax() -> None:
    torch.manual_seed(0)
    q, h, positive = double(6, 4), double(8, 4), torch.tensor([0, 1, 5, 7, 7, 2])
    (full,) = torch.autograd.grad(full_softmax_loss(q, h, positive), q)
    away = {
        correct: [
            float((mean_gradient(q, h, positive, size, correct) - full).norm() / full.norm()) for size in (2, 4, 6, 8)
        ]
        for correct in (True, False)
    }
    for distances in away.values():
        assert distances == sorted(distances, reverse=True)
        assert distances[-1] < 1e-12
    assert all(free < both for free, both in zip(away[False][:-1], away[True][:-1], strict=True))


def test_without_correction_of_the_positive_the_sum_is_unbiased() -> None:
    """exp(loss + s_y) is the sum over items that is estimated: its mean over all samples is the full one."""
    torch.manual_seed(0)
    q, h, positive = double(1, 4), double(8, 4), torch.tensor([3])
    for size in (1, 3, 5):
        expected = torch.full((8,), math.log(size / 8), dtype=torch.float64)
        samples = [torch.tensor(rows) for rows in itertools.combinations(range(8), size)]
        losses = [sampled_softmax_loss(q, h, positive, rows, expected, correct_positive=False) for rows in samples]
        torch.testing.assert_close(
            torch.stack(losses).exp().mean(), full_softmax_loss(q, h, positive).exp(), msg=f"samples of {size}"
        )


def test_a_sample_of_the_positive_alone_has_no_loss() -> None:
    q, h = double(3, 2), double(5, 2)
    loss = sampled_softmax_loss(
        q, h, torch.full((3,), 2), torch.tensor([2]), torch.zeros(5, dtype=torch.float64), correct_positive=True
    )
    loss.backward()
    assert loss.item() == 0.0
    assert not q.grad.any()


def test_no_score_of_an_item_that_is_not_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    """The widest product of a step is as wide as the sample, whatever the catalogue has."""
    wide = []

    def product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        wide.append(max(len(x) * len(weight), x.numel()))
        return x @ weight.T

    monkeypatch.setattr(softmax, "frozen_linear", product)
    q, h = torch.randn(64, 4), torch.randn(100_000, 4)
    sampled_softmax_loss(q, h, torch.arange(64), torch.arange(50, 90), torch.zeros(100_000), correct_positive=True)
    assert max(wide) == 64 * 40
