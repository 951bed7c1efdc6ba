"""Windows, causal batches and prefixes."""

import numpy as np
import pytest

from modalmix.data import Interactions, Sequences
from modalmix.data.sequence_samplers import causal_batches, prefix_batches, prefix_targets, windows
from modalmix.errors import DataError


def histories(*items: list[int]) -> Sequences:
    user = np.repeat(np.arange(len(items)), [len(one) for one in items]).astype(np.int32)
    return Sequences.of(Interactions(user, np.concatenate(items).astype(np.int32), len(items), 100))


@pytest.fixture
def many() -> Sequences:
    rng = np.random.default_rng(0)
    return histories(*[rng.integers(0, 100, n).tolist() for n in rng.integers(0, 30, 40)])


def test_windows_by_hand():
    """Seven events have six targets: two windows of at most four, tiled from the end."""
    sequences = histories([1, 2, 3, 4, 5, 6, 7], [8], [], [9, 10])
    found = windows(sequences, 4)
    assert list(zip(found.user.tolist(), found.start.tolist(), found.stop.tolist(), strict=True)) == [
        (0, 3, 7),
        (0, 1, 3),
        (3, 9, 10),
    ]
    assert found.targets == 7
    assert (found.steps(3), found.steps(4), found.steps(100)) == (3, 2, 1)
    assert found.steps(1) == 3, "no more batches than windows"
    last = windows(sequences, 4, last_only=True)
    assert list(zip(last.start.tolist(), last.stop.tolist(), strict=True)) == [(3, 7), (9, 10)]


def test_inputs_stand_one_before_their_targets():
    (batch,) = causal_batches(histories([1, 2, 3, 4, 5, 6, 7]), windows(histories([1, 2, 3, 4, 5, 6, 7]), 4), 99, rng())
    rows = sorted(zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True))
    assert rows == [([1, 2, -1, -1], [2, 3, -1, -1]), ([3, 4, 5, 6], [4, 5, 6, 7])]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("length", [1, 3, 50])
def test_every_event_but_a_first_is_a_target_once(many, length):
    batches = list(causal_batches(many, windows(many, length), 16, rng()))
    assert len(batches) == windows(many, length).steps(16)
    met = [
        (user, row[k], follows[k])
        for user, inputs, targets, _ in batches
        for user, row, follows in zip(user, inputs, targets, strict=True)
        for k in range(len(row))
        if follows[k] >= 0
    ]
    expected = [
        (user, many.items[place - 1], many.items[place])
        for user in range(len(many))
        for place in range(many.offsets[user] + 1, many.offsets[user + 1])
    ]
    assert sorted(met) == sorted(expected)
    for batch in batches:
        assert batch.inputs.shape[1] <= length
        assert ((batch.inputs < 0) == (batch.targets < 0)).all(), "an input without a target, or the other way round"
        padded = batch.targets < 0
        assert (padded[:, 1:] >= padded[:, :-1]).all(), "padding is right of what is real"


def test_times_of_the_inputs_come_when_they_are_asked_for():
    user, item = np.array([0, 0, 0, 0, 1, 1], dtype=np.int32), np.array([5, 6, 7, 8, 1, 2], dtype=np.int32)
    sequences = Sequences.of(Interactions(user, item, 2, 9, np.array([10, 20, 40, 80, 3, 4])))
    when = {5: 10, 6: 20, 7: 40, 8: 80, 1: 3, 2: 4, -1: 0}
    prefixes = prefix_batches(sequences, prefix_targets(sequences), 2, 2, rng(), times=True)
    for batch in [*causal_batches(sequences, windows(sequences, 2), 2, rng(), times=True), *prefixes]:
        assert batch.times is not None
        assert batch.times.tolist() == [[when[one] for one in row] for row in batch.inputs.tolist()]
    (plain,) = causal_batches(sequences, windows(sequences, 9), 99, rng())
    assert plain.times is None
    timeless = histories([1, 2, 3])
    (unknown,) = causal_batches(timeless, windows(timeless, 9), 99, rng(), times=True)
    assert unknown.times is None


def test_prefixes_are_what_stands_before_each_event(many):
    batches = list(prefix_batches(many, prefix_targets(many), 5, 16, rng()))
    assert [len(batch.user) for batch in batches[:-1]] == [16] * (len(batches) - 1)
    found = []
    for batch in batches:
        assert batch.times is None
        for user, history, targets in zip(batch.user, batch.inputs.tolist(), batch.targets.tolist(), strict=True):
            met = tuple(item for item in history if item >= 0)
            assert [k for k, target in enumerate(targets) if target >= 0] == [len(met) - 1], "the last place is asked"
            found.append((user, met, targets[len(met) - 1]))
    expected = sorted(
        (user, tuple(many.items[max(many.offsets[user], place - 5) : place]), many.items[place])
        for user in range(len(many))
        for place in range(many.offsets[user] + 1, many.offsets[user + 1])
    )
    assert sorted(found) == expected


@pytest.mark.parametrize("kind", ["causal", "prefix"])
def test_the_order_is_the_generator_s(many, kind):
    def epoch(seed: int) -> list[list[list[int]]]:
        if kind == "causal":
            return [batch.inputs.tolist() for batch in causal_batches(many, windows(many, 5), 16, rng(seed))]
        return [batch.inputs.tolist() for batch in prefix_batches(many, prefix_targets(many), 5, 16, rng(seed))]

    assert epoch(1) == epoch(1)
    assert epoch(1) != epoch(2)


def test_nothing_to_predict():
    lonely = histories([1], [], [2])
    with pytest.raises(DataError, match="two events"):
        list(causal_batches(lonely, windows(lonely, 5), 4, rng()))
    with pytest.raises(DataError, match="two events"):
        list(prefix_batches(lonely, prefix_targets(lonely), 5, 4, rng()))
