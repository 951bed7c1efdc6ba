import numpy as np
import pytest

from modalmix.data.interactions import Interactions
from modalmix.data.partition import (
    TEST,
    TRAIN,
    VALID,
    cold_item_partition,
    cold_user_partition,
    global_time_partition,
    held_out_counts,
    last_two_out_partition,
    random_partition,
)
from modalmix.errors import DataError


def events(user, item=None, time=None, n_items=None) -> Interactions:
    user = np.array(user, dtype=np.int32)
    item = np.arange(len(user), dtype=np.int32) if item is None else np.array(item, dtype=np.int32)
    when = None if time is None else np.array(time, dtype=np.int64)
    return Interactions(user, item, int(user.max()) + 1, n_items or int(item.max()) + 1, when)


@pytest.fixture
def drawn() -> Interactions:
    pairs = np.unique(np.random.default_rng(0).integers(0, [60, 50], (900, 2)), axis=0)
    return events(pairs[:, 0], pairs[:, 1], np.random.default_rng(1).integers(0, 99, len(pairs)))


def test_sizes_by_hand():
    degree = np.array([0, 1, 2, 3, 5, 14, 15, 20, 25, 35])
    valid, test = held_out_counts(degree, 0.1, 0.1)
    assert valid.tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2, 3]
    assert test.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 3, 4]
    valid, test = held_out_counts(degree, 0.0, 0.2)
    assert valid.tolist() == [0] * 10
    assert test.tolist() == [0, 0, 0, 1, 1, 3, 3, 4, 5, 7]
    valid, test = held_out_counts(np.array([3, 4, 10]), 0.45, 0.45)
    assert (np.array([3, 4, 10]) - valid - test).tolist() == [1, 1, 1]


def test_random_has_these_sizes_for_each_user(drawn):
    part = random_partition(drawn, 0.1, 0.1, np.random.default_rng(7)).part
    valid, test = held_out_counts(drawn.user_degree, 0.1, 0.1)
    assert np.bincount(drawn.user[part == VALID], minlength=60).tolist() == valid.tolist()
    assert np.bincount(drawn.user[part == TEST], minlength=60).tolist() == test.tolist()


def test_random_is_uniform():
    one = events([0] * 10)
    rng = np.random.default_rng(0)
    held = sum(random_partition(one, 0.1, 0.1, rng).part == TEST for _ in range(4_000))
    assert abs(held / 4_000 - 0.1).max() < 0.02


@pytest.mark.parametrize("kind", ["random", "cold-item", "cold-user"])
def test_random_kinds_do_not_depend_on_the_order_of_rows(drawn, kind):
    def parts(one: Interactions, seed: int) -> np.ndarray:
        rng = np.random.default_rng(seed)
        if kind == "random":
            return random_partition(one, 0.1, 0.1, rng).part
        if kind == "cold-user":
            return cold_user_partition(one, 0.2, rng).part
        return cold_item_partition(one, 0.2, 0.1, 0.1, rng).part

    shuffled = np.random.default_rng(9).permutation(len(drawn))
    assert (parts(drawn.take(shuffled), 3) == parts(drawn, 3)[shuffled]).all()
    assert (parts(drawn, 3) == parts(drawn, 3)).all()
    assert (parts(drawn, 3) != parts(drawn, 4)).any()


def test_last_two_out_by_hand():
    one = events([0, 0, 0, 1, 1, 0, 2, 2, 2], time=[3, 9, 1, 1, 2, 7, 5, 5, 4])
    partition = last_two_out_partition(one)
    assert partition.part.tolist() == [TRAIN, TEST, TRAIN, TRAIN, TRAIN, VALID, VALID, TEST, TRAIN]
    assert partition.report == {"users_all_in_train": 1, "events_tied_in_time": 2, "users_split_by_a_tie": 1}


def test_a_tie_between_train_and_validation_is_a_boundary():
    partition = last_two_out_partition(events([0, 0, 0], time=[1, 1, 2]))
    assert partition.part.tolist() == [TRAIN, VALID, TEST]
    assert partition.report["users_split_by_a_tie"] == 1


def test_ties_that_decide_nothing_are_not_boundaries():
    partition = last_two_out_partition(events([0, 0, 0, 0], time=[1, 1, 2, 3]))
    assert partition.report == {"users_all_in_train": 0, "events_tied_in_time": 2, "users_split_by_a_tie": 0}


def test_global_time_by_hand():
    one = events([0] * 10, time=[9, 8, 7, 6, 5, 4, 3, 2, 1, 0])
    assert global_time_partition(one, 0.8, 0.1).part.tolist() == [TEST, VALID] + [TRAIN] * 8
    tied = events([0] * 10, time=[0, 0, 0, 0, 0, 0, 0, 5, 5, 9])
    # the moments are the times at places 8 and 9: 5 and 9
    assert global_time_partition(tied, 0.8, 0.1).part.tolist() == [TRAIN] * 7 + [VALID, VALID, TEST]
    same = events([0] * 4, time=[1] * 4)
    assert global_time_partition(same, 0.8, 0.1).part.tolist() == [VALID] * 4


def test_global_time_reports_ties_and_what_train_knows_nothing_of():
    late = events([0, 0, 1, 1, 2, 2], [0, 1, 0, 2, 0, 3], time=[0, 0, 1, 2, 8, 9])
    partition = global_time_partition(late, 0.5, 0.2)
    assert partition.part.tolist() == [TRAIN, TRAIN, TRAIN, VALID, TEST, TEST]
    assert partition.report == {"users_without_train": 1, "items_without_train": 2, "events_tied_in_time": 2}


def test_times_are_needed():
    for make in (last_two_out_partition, lambda one: global_time_partition(one, 0.8, 0.1)):
        with pytest.raises(DataError, match="split needs times. Add a column timestamp or order"):
            make(events([0, 0, 0]))


def test_cold_items_leave_train_whole(drawn):
    partition = cold_item_partition(drawn, 0.2, 0.0, 0.0, np.random.default_rng(0))
    assert partition.report == {"cold_items": 10}
    of_item = [set(partition.part[drawn.item == item].tolist()) for item in range(50)]
    assert all(len(parts) == 1 for parts in of_item)
    assert [sum(parts == {part} for parts in of_item) for part in (TRAIN, VALID, TEST)] == [40, 5, 5]


def test_cold_items_are_drawn_from_items_with_events(drawn):
    wide = Interactions(drawn.user, drawn.item, drawn.n_users, 5_000, drawn.time)
    assert cold_item_partition(wide, 0.2, 0.0, 0.0, np.random.default_rng(0)).report == {"cold_items": 10}


def test_warm_events_held_out_beside_cold_items(drawn):
    bare = cold_item_partition(drawn, 0.2, 0.0, 0.0, np.random.default_rng(0)).part
    part = cold_item_partition(drawn, 0.2, 0.1, 0.1, np.random.default_rng(0)).part
    assert (part[bare != TRAIN] == bare[bare != TRAIN]).all()
    warm = bare == TRAIN
    valid, test = held_out_counts(np.bincount(drawn.user[warm], minlength=60), 0.1, 0.1)
    assert (part[warm] == VALID).sum() == valid.sum()
    assert (part[warm] == TEST).sum() == test.sum()
    # a warm item keeps a train event
    assert np.isin(drawn.item[warm], drawn.item[part == TRAIN]).all()


def test_a_warm_item_with_one_event_keeps_it():
    # every item has one event: whatever was held out of the warm ones comes back
    one = events(np.repeat(np.arange(10), 10))
    partition = cold_item_partition(one, 0.2, 0.1, 0.1, np.random.default_rng(0))
    assert np.bincount(partition.part).tolist() == [80, 10, 10]


def test_cold_users_leave_train_whole(drawn):
    partition = cold_user_partition(drawn, 0.2, np.random.default_rng(0))
    of_user = [set(partition.part[drawn.user == user].tolist()) for user in range(60)]
    assert [sum(parts == {part} for parts in of_user) for part in (TRAIN, VALID, TEST)] == [48, 6, 6]


def test_too_few_to_be_cold():
    with pytest.raises(DataError, match=r"cold-item split of 1 item\(s\).*expected at least 2 cold and 1 warm item"):
        cold_item_partition(events([0, 1], [0, 0]), 0.2, 0.1, 0.1, np.random.default_rng(0))
    with pytest.raises(DataError, match=r"cold-user split of 1 user\(s\)"):
        cold_user_partition(events([0, 0], [0, 1]), 0.2, np.random.default_rng(0))
    with pytest.raises(DataError, match="got 2 cold at cold_share=0.9"):
        cold_user_partition(events([0, 1], [0, 1]), 0.9, np.random.default_rng(0))
