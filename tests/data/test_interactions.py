import numpy as np
import pytest

import modalmix.data.interactions as module
from modalmix.data.interactions import Interactions
from modalmix.errors import DataError


def events(user, item, time=None, n_users=3, n_items=4) -> Interactions:
    when = None if time is None else np.array(time)
    return Interactions(np.array(user, dtype=np.int32), np.array(item, dtype=np.int32), n_users, n_items, when)


def test_matrix_and_degrees_by_hand():
    one = events([0, 0, 2, 0], [1, 3, 1, 1])
    assert one.csr.toarray().tolist() == [[0, 1, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]]
    assert one.user_degree.tolist() == [3, 0, 1]
    assert one.item_degree.tolist() == [0, 3, 0, 1]


def test_rows_out_of_range():
    with pytest.raises(DataError, match=r"item row: got 0..4, expected 0..3"):
        events([0, 0], [0, 4])
    with pytest.raises(DataError, match="user row"):
        events([-1], [0])
    with pytest.raises(DataError, match="interactions"):
        events([0, 1], [0])


def test_time_order_is_stable():
    one = events([1, 0, 0, 0], [0, 1, 2, 3], [5, 7, 3, 7])
    assert one.in_time_order.tolist() == [2, 1, 3, 0]
    assert events([1, 0, 0], [0, 1, 2]).in_time_order.tolist() == [1, 2, 0]


def test_seconds_are_told_from_an_order():
    assert events([0], [0], [1_260_759_108]).in_seconds
    assert not events([0], [0], [41]).in_seconds
    assert not events([0], [0]).in_seconds


@pytest.mark.parametrize("bitmap_bytes", [1 << 30, 0])
def test_contains_with_bitmap_and_with_search(bitmap_bytes, monkeypatch):
    monkeypatch.setattr(module, "BITMAP_BYTES", bitmap_bytes)
    rng = np.random.default_rng(0)
    one = events(rng.integers(0, 30, 200), rng.integers(0, 40, 200), n_users=30, n_items=40)
    user, item = np.repeat(np.arange(30), 40), np.tile(np.arange(40), 30)
    expected = one.csr.toarray().reshape(-1) > 0
    assert (one.contains(user, item) == expected).all()
    assert not events([], []).contains(np.array([0]), np.array([0])).any()


def test_take_and_add():
    one = events([0, 1, 2], [0, 1, 2], [3, 2, 1])
    both = one.take(np.array([2])) + one.take(np.array([True, False, False]))
    assert both.user.tolist() == [2, 0]
    assert both.time.tolist() == [1, 3]
    assert one.sha256 != both.sha256
