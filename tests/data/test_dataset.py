import pytest


def test_summary_by_hand(dataset_of):
    facts = dataset_of([0, 1, 1], [0, 1, 2]).summary()
    assert (facts["users"], facts["items"], facts["interactions"]) == (2, 3, 3)
    assert facts["density"] == pytest.approx(3 / 6)


def test_hash_covers_events_and_labels(dataset_of):
    one = dataset_of([0, 1], [0, 1])
    assert one.sha256 == dataset_of([0, 1], [0, 1]).sha256
    assert one.sha256 != dataset_of([0, 1], [1, 0]).sha256
    assert one.sha256 != dataset_of([0, 1], [0, 1], labels=["train", "test"]).sha256
