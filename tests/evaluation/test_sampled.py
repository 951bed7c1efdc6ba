"""Which candidates a sampled ranking keeps."""

import numpy as np
import pytest
import torch

from modalmix.evaluation.sampled import sample_candidates


def kept(scores: torch.Tensor, users: list[int], size: int, seed: int = 1) -> list[set[int]]:
    """Candidates of each user; item 0 is relevant to all."""
    rows = np.arange(len(users))
    sampled = sample_candidates(scores, np.array(users), rows, np.zeros_like(rows), size, seed)
    assert torch.equal(sampled[sampled > -torch.inf], scores[sampled > -torch.inf])
    return [set(np.flatnonzero(row).tolist()) for row in (sampled > -torch.inf).numpy()]


def test_the_positive_and_so_many_others() -> None:
    scores = torch.randn(50, 30)
    scores[:, 5:10] = -torch.inf
    for candidates in kept(scores, list(range(50)), size=7):
        assert len(candidates) == 8
        assert 0 in candidates
        assert not candidates & set(range(5, 10))


def test_a_users_sample_does_not_depend_on_the_others() -> None:
    scores = torch.randn(4, 30)
    together = kept(scores, [3, 5, 8, 9], size=6)
    assert kept(scores[2:3], [8], size=6) == together[2:3]
    assert together[0] != together[1]
    assert kept(scores, [3, 5, 8, 9], size=6, seed=2) != together


@pytest.mark.parametrize("size", [29, 30, 1000])
def test_more_than_there_are(size: int) -> None:
    scores = torch.randn(3, 30)
    scores[:, 4] = -torch.inf
    assert kept(scores, [0, 1, 2], size) == [set(range(30)) - {4}] * 3


def test_uniform() -> None:
    """2 of 4 others, 4,000 users: each is kept half the time (5 standard deviations)."""
    counts = np.zeros(5)
    for candidates in kept(torch.zeros(4000, 5), list(range(4000)), size=2):
        counts[list(candidates)] += 1
    assert counts[0] == 4000
    assert np.abs(counts[1:] - 2000).max() < 5 * np.sqrt(1000)
