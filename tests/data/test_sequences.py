"""Histories in time order."""

import numpy as np
import pytest

from modalmix.data import Holdout, Interactions, Sequences, Split, TrainData


def events(user, item, time=None, n_users=4, n_items=9) -> Interactions:
    time = None if time is None else np.array(time, dtype=np.int64)
    return Interactions(np.array(user, dtype=np.int32), np.array(item, dtype=np.int32), n_users, n_items, time)


@pytest.fixture
def three() -> Sequences:
    """User 0 met 5, 5, 1, 2; user 2 met 7; user 3 met 3, 4; user 1 nothing."""
    return Sequences.of(events([0, 2, 0, 3, 0, 3, 0], [2, 7, 5, 4, 5, 3, 1], [9, 1, 2, 8, 3, 6, 4]))


def test_events_are_put_in_time_order(three):
    assert three.offsets.tolist() == [0, 4, 4, 5, 7]
    assert three.items.tolist() == [5, 5, 1, 2, 7, 3, 4]
    assert three.time is not None
    assert three.time.tolist() == [2, 3, 4, 9, 1, 6, 8]
    assert three.lengths.tolist() == [4, 0, 1, 2]
    assert len(three) == 4
    assert (three.offsets.dtype, three.items.dtype) == (np.int64, np.int32)


def test_ties_keep_the_order_given_and_are_counted():
    tied = Sequences.of(events([0, 0, 0, 1, 1, 2, 2], [3, 1, 2, 5, 4, 6, 7], [5, 5, 1, 7, 8, 2, 2]))
    assert tied.items.tolist() == [2, 3, 1, 5, 4, 6, 7]
    assert (tied.tied_events, tied.tied_users) == (4, 2)
    backwards = Sequences.of(events([0, 0, 0], [1, 3, 2], [5, 5, 1]))
    assert backwards.items.tolist() == [2, 1, 3]


def test_equal_times_of_different_users_are_no_ties():
    assert Sequences.of(events([0, 1, 2], [1, 2, 3], [5, 5, 5])).tied_events == 0


def test_without_time_the_order_given_counts():
    plain = Sequences.of(events([1, 0, 1, 0], [8, 2, 3, 1]))
    assert plain.items.tolist() == [2, 1, 8, 3]
    assert plain.time is None
    assert (plain.tied_events, plain.tied_users) == (0, 0)


def test_last_items_padded_right(three):
    last = three.last(np.array([3, 0, 1, 0]), 3)
    assert last.tolist() == [[3, 4, -1], [5, 1, 2], [-1, -1, -1], [5, 1, 2]]
    assert last.dtype == np.int64
    assert three.last(np.array([2, 3]), 50).tolist() == [[7, -1], [3, 4]], "as wide as the longest"
    assert three.last(np.array([1]), 5).tolist() == [[-1]]
    assert three.last(np.array([], dtype=np.int64), 5).shape == (0, 1)


def test_no_events_at_all():
    nothing = Sequences.of(events([], []))
    assert nothing.last(np.array([0, 3]), 4).tolist() == [[-1], [-1]]


def test_each_view_of_a_split_knows_what_was_known_then(dataset_of):
    """Validation asks after train, test after train and validation; nothing held out is in either."""
    dataset = dataset_of([0, 0, 0, 0, 1, 1], [3, 1, 0, 2, 2, 1], time=[4, 2, 1, 3, 1, 2])
    part = np.array([2, 0, 0, 1, 0, 0])
    split = Split(dataset, *(dataset.interactions.take(part == k) for k in range(3)), kind="given")
    data, validation, testing = split.train_data(), split.validation(), split.testing()
    assert isinstance(data, TrainData)
    assert isinstance(testing, Holdout)
    everyone = np.array([0, 1])
    assert data.sequences.last(everyone, 9).tolist() == [[0, 1], [2, 1]]
    assert validation.sequences.last(everyone, 9).tolist() == [[0, 1], [2, 1]]
    assert testing.sequences.last(everyone, 9).tolist() == [[0, 1, 2], [2, 1, -1]]


def test_times_stand_beside_the_items(three):
    users = np.array([3, 0, 1])
    assert three.last_times(users, 3).tolist() == [[6, 8, 0], [3, 4, 9], [0, 0, 0]]
    assert three.last_times(users, 3).shape == three.last(users, 3).shape
    assert three.times_between(np.array([1, 5]), np.array([4, 6])).tolist() == [[3, 4, 9], [6, 0, 0]]
    assert three.times_between(np.array([1]), np.array([4])).dtype == np.int64
    assert three.longest_interval == 5, "from 4 to 9; from one user to the next is none"
    plain = Sequences.of(events([1, 0, 1, 0], [8, 2, 3, 1]))
    assert plain.last_times(np.array([0]), 2) is None
    assert plain.times_between(np.array([0]), np.array([2])) is None
    assert plain.longest_interval == Sequences.of(events([], [], [])).longest_interval == 0
