"""The top-k mixture against sorting every pair by itself."""

import pytest
import torch
from torch import Tensor

from modalmix.nn.mixing import top_k_mixture
from modalmix.nn.router import MASKED


def brute_force(logits: Tensor, scores: Tensor, k: int) -> Tensor:
    """One pair after another: the k largest of the sorted logits, their softmax, the weighted sum."""
    experts, users, items = logits.shape
    found = torch.empty(users, items)
    for user in range(users):
        for item in range(items):
            largest, chosen = logits[:, user, item].topk(min(k, experts))
            found[user, item] = largest.double().softmax(dim=0) @ scores[chosen, user, item].double()
    return found


def logits_of(kind: str) -> Tensor:
    """Nine experts, five users, seven items, no two logits of a pair alike but for masked ones."""
    torch.manual_seed(9)
    logits = torch.randn(9, 5, 7)
    order = torch.rand(9, 5, 7).argsort(dim=0).float()
    match kind:
        case "huge":
            return logits * 3000
        case "close":
            return 80 + 1e-3 * order
        case "falling":
            return -torch.arange(9.0).view(9, 1, 1) + 0.01 * logits
        case "rising":
            return torch.arange(9.0).view(9, 1, 1) + 0.01 * logits
        case "masked":
            allowed = torch.rand(9, 5, 7) < 0.4
            allowed[4] = True
            return torch.where(allowed, logits, MASKED + logits)
        case "one allowed":
            return torch.where(torch.arange(9).view(9, 1, 1) == 3, logits, MASKED)
    return logits


KINDS = ["random", "huge", "close", "falling", "rising", "masked", "one allowed"]


@pytest.mark.parametrize("k", range(1, 12))
@pytest.mark.parametrize("kind", KINDS)
def test_equals_brute_force(kind: str, k: int) -> None:
    logits, scores = logits_of(kind), 5 * torch.randn(9, 5, 7)
    torch.testing.assert_close(top_k_mixture(logits, scores, k), brute_force(logits, scores, k), atol=1e-5, rtol=1e-5)


def test_by_hand() -> None:
    """Logits log 3, log 1, log 2, log 6: the two largest weigh 3/9 and 6/9."""
    logits = torch.tensor([3.0, 1.0, 2.0, 6.0]).log().view(4, 1, 1)
    scores = torch.tensor([10.0, 1000.0, 100.0, -1.0]).view(4, 1, 1)
    assert float(top_k_mixture(logits, scores, 1)) == -1.0
    assert float(top_k_mixture(logits, scores, 2)) == pytest.approx((3 * 10 - 6) / 9)
    assert float(top_k_mixture(logits, scores, 3)) == pytest.approx((30 + 200 - 6) / 11)
    assert float(top_k_mixture(logits, scores, 4)) == pytest.approx((30 + 200 - 6 + 1000) / 12)


@pytest.mark.parametrize("k", [1, 2, 9])
def test_a_masked_expert_counts_for_exactly_nothing(k: int) -> None:
    logits, scores = logits_of("one allowed"), torch.randn(9, 5, 7)
    scores[[0, 1, 2, 4, 5, 6, 7, 8]] = 1e30
    torch.testing.assert_close(top_k_mixture(logits, scores, k), scores[3], atol=0, rtol=1e-6)


@pytest.mark.parametrize("apart", [0.0, 2e-7])  # further apart, 1e-5, the router tells them apart
def test_experts_that_tie_at_the_last_place_all_count(apart: float) -> None:
    logits = torch.tensor([0.0, 2.0, apart, -1.0]).view(4, 1, 1)
    scores = torch.tensor([1.0, 0.0, 3.0, 50.0]).view(4, 1, 1)
    shares = torch.tensor([0.0, 2.0, 0.0]).softmax(dim=0)
    assert float(top_k_mixture(logits, scores, 2)) == pytest.approx(float(shares[0] * 1 + shares[2] * 3))


def test_experts_that_the_router_tells_apart_do_not_tie() -> None:
    logits = torch.tensor([0.0, 2.0, -1e-5, -1.0]).view(4, 1, 1)
    scores = torch.tensor([1.0, 0.0, 3.0, 50.0]).view(4, 1, 1)
    assert float(top_k_mixture(logits, scores, 2)) == pytest.approx(float(torch.tensor([0.0, 2.0]).softmax(dim=0)[0]))


@pytest.mark.parametrize("k", [1, 2, 3, 9])
def test_what_is_given_is_not_written_to(k: int) -> None:
    logits, scores = logits_of("random"), torch.randn(9, 5, 7)
    before = logits.clone(), scores.clone()
    top_k_mixture(logits, scores, k)
    assert torch.equal(logits, before[0])
    assert torch.equal(scores, before[1])


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("shape", [(2, 0, 7), (2, 5, 0), (1, 5, 7), (2, 1, 1)])
def test_small_blocks(shape: tuple[int, ...], k: int) -> None:
    logits, scores = torch.randn(shape), torch.randn(shape)
    torch.testing.assert_close(top_k_mixture(logits, scores, k), brute_force(logits, scores, k))
