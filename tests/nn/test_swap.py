"""Swapped sequences, and the contrast against loops over pairs."""

import math

import pytest
import torch
import torch.nn.functional as F

from modalmix.nn.swap import draw_positions, draw_share, swap, swap_contrast


def test_the_two_results_partition_the_two_originals() -> None:
    one, other = torch.randn(4, 6, 3), torch.randn(4, 6, 3)
    chosen = torch.rand(4, 6) < 0.5
    first, second = swap(one, other, chosen)
    for user in range(4):
        for place in range(6):
            pair = (other, one) if chosen[user, place] else (one, other)
            assert torch.equal(first[user, place], pair[0][user, place])
            assert torch.equal(second[user, place], pair[1][user, place])


def test_padding_is_never_chosen_and_rho_is_the_share() -> None:
    real = torch.rand(200, 50) < 0.6
    chosen = draw_positions(real, 0.3, torch.Generator().manual_seed(0))
    assert not (chosen & ~real).any()
    assert chosen.sum() / real.sum() == pytest.approx(0.3, abs=0.02)
    assert not draw_positions(real, 0.0).any()
    assert torch.equal(draw_positions(real, 1.0), real)


def test_a_share_of_each_row_is_drawn() -> None:
    torch.manual_seed(0)
    lengths = torch.tensor([0, 1, 3, 4, 7, 10])
    real = torch.arange(10) < lengths.unsqueeze(1)
    drawn = torch.stack([draw_share(real, 0.3) for _ in range(300)])
    assert (drawn.sum(dim=2) == torch.tensor([0, 0, 0, 1, 2, 3])).all()
    assert not (drawn & ~real).any()
    torch.testing.assert_close(drawn.float().mean(dim=0)[5], torch.full((10,), 0.3), atol=0.1, rtol=0)
    assert torch.equal(draw_share(real, 1.0), real)
    assert not draw_share(real, 0.0).any()


def test_contrast_equals_loops_and_same_targets_add_nothing() -> None:
    generator = torch.Generator().manual_seed(2)
    one, other = (torch.randn(5, 4, generator=generator) for _ in range(2))
    target, temperature = torch.tensor([7, 3, 7, 1, 3]), 0.2
    total = 0.0
    for a, b in ((one, other), (other, one)):
        for k in range(5):
            cosine = F.cosine_similarity(a[k : k + 1], b) / temperature
            others = [n for n in range(5) if n == k or target[n] != target[k]]
            total += -(cosine[k] - torch.logsumexp(cosine[others], dim=0)).item()
    found = swap_contrast(one, other, target, temperature)
    assert found.item() == pytest.approx(total / 10, rel=1e-5)


def test_other_windows_of_a_user_add_nothing() -> None:
    one, other = (torch.randn(3, 4) for _ in range(2))
    cosine = F.cosine_similarity(one[:, None], other[None], dim=2) / 0.2
    found = torch.zeros(())
    for logits in (cosine, cosine.T):
        for k, negatives in enumerate(([1], [0, 2], [1])):
            found += logits[k, [k, *negatives]].logsumexp(dim=0) - logits[k, k]
    user = torch.tensor([5, 6, 5])
    torch.testing.assert_close(swap_contrast(one, other, torch.tensor([7, 3, 1]), 0.2, user), found / 6)


def test_a_batch_of_one_target_has_nothing_to_contrast() -> None:
    one, other = (torch.randn(3, 4, requires_grad=True) for _ in range(2))
    loss = swap_contrast(one, other, torch.tensor([5, 5, 5]), 0.2)
    assert loss.item() == 0
    loss.backward()
    assert one.grad is not None
    assert torch.isfinite(one.grad).all()


def test_distinct_targets_of_equal_vectors() -> None:
    same = torch.ones(4, 3)
    assert swap_contrast(same, same, torch.arange(4), 1.0).item() == pytest.approx(math.log(4))
