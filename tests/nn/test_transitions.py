"""Counted transitions against loops over all pairs of events, and by hand."""

from itertools import pairwise

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from modalmix.nn.transitions import TransitionFilter, normalised, transitions

OFFSETS, ITEMS = np.array([0, 4, 4, 6, 7]), np.array([0, 1, 2, 1, 2, 0, 3])  # a user without events, one with one
N = 5


def by_loops(offsets: np.ndarray, items: np.ndarray, n: int, steps: int, decay: float, backward: float) -> np.ndarray:
    counts = np.zeros((n, n))
    for first, last in pairwise(offsets):
        history = items[first:last]
        for source in range(len(history)):
            for gap in range(1, steps + 1):
                if source + gap < len(history):
                    counts[history[source], history[source + gap]] += decay ** (gap - 1)
    return counts + backward * counts.T


def test_by_hand() -> None:
    one = transitions(OFFSETS, ITEMS, N, steps=1, decay=0.5, backward=0.0).toarray()
    expected = np.zeros((N, N))
    expected[[0, 1, 2, 2], [1, 2, 1, 0]] = 1.0
    np.testing.assert_array_equal(one, expected)
    two = transitions(OFFSETS, ITEMS, N, steps=2, decay=0.5, backward=0.0).toarray()
    expected[[0, 1], [2, 1]] += 0.5  # 0 to 2 over 1; 1 to itself over 2
    np.testing.assert_array_equal(two, expected)


@pytest.mark.parametrize(("steps", "decay", "backward"), [(1, 1.0, 0.0), (3, 0.7, 0.3), (99, 0.5, 1.0), (2, 0.0, 0.0)])
def test_equals_loops(steps: int, decay: float, backward: float) -> None:
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 9, 40))])
    items = rng.integers(0, 12, offsets[-1]).astype(np.int32)
    found = transitions(offsets, items, 12, steps, decay, backward).toarray()
    np.testing.assert_allclose(found, by_loops(offsets, items, 12, steps, decay, backward), rtol=1e-5)


def test_more_steps_than_a_history_has_cost_nothing() -> None:
    many, few = (transitions(OFFSETS, ITEMS, N, steps, decay=0.5, backward=0.0) for steps in (10**12, 3))
    np.testing.assert_array_equal(many.toarray(), few.toarray())


def test_nobody_met_anything() -> None:
    assert transitions(np.zeros(4, dtype=np.int64), np.zeros(0, dtype=np.int32), N, 3, 0.5, 0.5).nnz == 0


def test_division_by_events_to_a_power() -> None:
    counts, degree = sp.csr_matrix(np.full((3, 3), 6.0)), np.array([4, 9, 0])
    found = normalised(counts, degree, 0.5, 1.0).toarray()
    np.testing.assert_allclose(found[:2, :2], [[6 / 2 / 4, 6 / 2 / 9], [6 / 3 / 4, 6 / 3 / 9]], rtol=1e-6)
    np.testing.assert_allclose(normalised(counts, degree, 0.0, 0.0).toarray(), 6.0)
    assert np.isfinite(found).all()


def test_earlier_places_weigh_less_and_padding_nothing() -> None:
    weights = sp.csr_matrix(np.diag([1.0, 10.0, 100.0]).astype(np.float32))
    found = TransitionFilter(weights, 0.5).of(torch.tensor([[0, 1, 2], [2, 1, -1], [1, 1, 0], [-1, 2, -1]]))
    torch.testing.assert_close(
        found, torch.tensor([[0.25, 5.0, 100.0], [0.0, 10.0, 50.0], [1.0, 7.5, 0.0], [0.0, 0.0, 100.0]])
    )


def test_only_the_last_item_is_heard_without_recency() -> None:
    weights = sp.csr_matrix(np.eye(3, dtype=np.float32))
    found = TransitionFilter(weights, 0.0).of(torch.tensor([[0, 1, -1], [2, -1, -1]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))


def test_items_that_it_does_not_know_keep_their_place() -> None:
    weights = sp.csr_matrix(np.eye(3, dtype=np.float32))
    found = TransitionFilter(weights, 0.5).of(torch.tensor([[0, 7]]))
    torch.testing.assert_close(found, torch.tensor([[0.5, 0.0, 0.0]]))


def test_empty_questions_are_answered() -> None:
    filter = TransitionFilter(sp.csr_matrix((3, 3), dtype=np.float32), 0.5)
    assert filter.of(torch.zeros(0, 4, dtype=torch.int64)).shape == (0, 3)
    assert not filter.of(torch.full((2, 1), -1)).any()
