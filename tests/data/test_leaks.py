import json
from dataclasses import replace

import numpy as np
import pytest

from modalmix.data import Catalog, Modality, Split, SplitConfig, leak_report, make_split, read_folder, split_from_labels


def test_a_clean_split(dataset_of):
    data = dataset_of([0, 0, 0, 1], [0, 1, 2, 0], time=[1, 2, 3, 1])
    report = leak_report(make_split(data, SplitConfig(kind="leave-last-two-out")))
    assert report.problems == []
    assert report.before_own_train == 0
    assert report.before_any_train is None  # an order, not seconds
    assert report.events == {"train": 2, "valid": 1, "test": 1}
    assert report.cold_items == 2
    assert json.loads(json.dumps(report.to_dict()))["problems"] == []


def test_shared_and_repeated_pairs(dataset_of):
    data = dataset_of([0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 2])
    report = leak_report(split_from_labels(data, ["train", "valid", "valid", "train", "test", "test"]))
    assert report.shared_pairs == {"train and valid": 1, "train and test": 1, "valid and test": 0}
    assert report.repeated_pairs == {"train": 0, "valid": 1, "test": 0}
    assert "1 (user, item) pairs are in train and valid" in report.problems


def test_cold_items_that_train_knows(dataset_of):
    labels = ["train", "train", "valid_cold", "test_cold", "test_cold"]
    data = dataset_of([0, 1, 0, 2, 2], [0, 1, 1, 2, 3], labels=labels)
    report = leak_report(make_split(data))
    assert report.cold_items_in_train == 1
    assert report.cold_items == 2
    assert report.problems == ["1 items declared cold have train events"]


def test_a_cold_item_split_that_was_tampered_with(dataset_of):
    pairs = np.unique(np.random.default_rng(0).integers(0, [40, 30], (500, 2)), axis=0)
    split = make_split(dataset_of(pairs[:, 0], pairs[:, 1]), SplitConfig(kind="cold-item"))
    assert leak_report(split).problems == []
    cold = np.flatnonzero((split.test.item_degree > 0) & (split.train.item_degree == 0))[0]
    moved = np.flatnonzero(split.test.item == cold)[:1]
    leaky = replace(split, train=split.train + split.test.take(moved))
    problems = leak_report(leaky).problems
    assert "1 items declared cold have train events" in problems
    assert "1 (user, item) pairs are in train and test" in problems
    cold_valid = np.flatnonzero((split.valid.item_degree > 0) & (split.train.item_degree == 0))[0]
    both = split.valid.take(np.flatnonzero(split.valid.item == cold_valid)[:1])
    assert (
        "1 cold items are both in validation and in test"
        in leak_report(replace(split, test=split.test + both)).problems
    )


def test_time_shares_by_hand(dataset_of):
    start = 1_000_000_000
    data = dataset_of([0, 0, 0, 1, 1], [0, 1, 2, 0, 1], time=[start + t for t in (5, 1, 9, 7, 8)])
    report = leak_report(split_from_labels(data, ["train", "valid", "test", "train", "test"]))
    assert report.before_own_train == pytest.approx(1 / 3)  # 1 < 5; 9 > 5; 8 > 7
    assert report.before_any_train == pytest.approx(1 / 3)  # 1 < 7
    assert leak_report(split_from_labels(dataset_of([0, 1], [0, 1]), ["train", "test"])).before_own_train is None
    tied = dataset_of([0, 0], [0, 1], time=[start, start])  # as early is not earlier
    assert leak_report(split_from_labels(tied, ["train", "test"])).before_own_train == 0


def test_ordered_splits_with_time_leaks_are_problems(dataset_of):
    start = 1_000_000_000
    data = dataset_of([0, 0, 0], [0, 1, 2], time=[start + 3, start + 1, start + 2])
    given = split_from_labels(data, ["train", "valid", "test"])
    for kind in ("leave-last-two-out", "global-time"):
        problems = leak_report(replace(given, kind=kind)).problems
        assert problems == ["100.0% of the held-out events are earlier than train events"]
    assert leak_report(given).problems == []


def test_ties_in_time_are_noted(dataset_of):
    start = 1_000_000_000
    data = dataset_of(
        [0, 0, 0, 0, 1, 1], [0, 1, 2, 3, 0, 1], time=[start, start + 1, start + 2, start + 2, start, start]
    )
    report = leak_report(make_split(data, SplitConfig(kind="leave-last-two-out")))
    assert (report.tied_events, report.users_split_by_a_tie) == (4, 1)
    assert report.problems == []
    assert [note.split(":")[0] for note in report.notes][:1] == ["4 events share user and time with another one"]
    assert "of 1 users the file's order says which of two such is held out" in report.notes
    apart = leak_report(
        make_split(
            dataset_of([0] * 4, [0, 1, 2, 3], time=[start + k for k in range(4)]),
            SplitConfig(kind="leave-last-two-out"),
        )
    )
    assert not [note for note in apart.notes if "order" in note or "share" in note]


def test_users_without_train(dataset_of):
    report = leak_report(split_from_labels(dataset_of([0, 1, 2], [0, 0, 0]), ["train", "valid", "test"]))
    assert report.users_without_train == {"valid": 1, "test": 1}
    assert "1 users of test have no train event" in report.notes


def test_content_twins(dataset_of):
    data = dataset_of([0, 1, 1, 1, 1], [0, 1, 2, 3, 4])
    rows = np.array([[1, 2], [1, 2], [2, 1], [0, 0], [1, 2]], dtype=np.float16)
    catalog = Catalog(data.catalog.items, {"image": Modality.from_matrix("image", rows)})
    labels = ["train", "test", "test", "test", "valid"]
    split: Split = split_from_labels(replace(data, catalog=catalog), labels)
    report = leak_report(split)
    assert report.content_twins == {"image": 2}
    assert "2 of 4 cold items have the same image as a warm item" in report.notes


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["amazon-baby", "amazon-beauty", "tiktok", "citeulike"])
def test_real_splits_as_given_do_not_leak(real_data, name):
    report = leak_report(make_split(read_folder(real_data(name))))
    assert report.problems == []
    if name == "citeulike":
        assert report.cold_items == 3_396
