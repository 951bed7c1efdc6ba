"""Who is a candidate, and who is relevant."""

from collections.abc import Callable

import pytest

from modalmix.data.split import Holdout
from modalmix.errors import EvaluateError
from modalmix.evaluation.pools import make_pool, masked_items

HoldoutOf = Callable[..., Holdout]


@pytest.fixture
def tested(holdout_of: HoldoutOf) -> Holdout:
    """Items 0-3 warm, 4-5 cold; user 0 held out 2 (warm) and 4 (cold), user 1 held out 5 (cold), user 2 nothing."""
    train = [(0, 0), (0, 1), (1, 0), (2, 2), (2, 3)]
    return holdout_of([(0, 2), (0, 4), (1, 5)], train, users=3, items=6, valid=[(0, 3), (1, 4)])


def test_all_items(tested: Holdout) -> None:
    pool = make_pool(tested, "all", "seen")
    assert pool.items is None
    assert pool.size == 6
    assert pool.users.tolist() == [0, 1]
    assert pool.relevant.tolist() == [2, 1]
    assert pool.rankable.tolist() == [3, 4]  # user 0 has seen 0, 1, 3; user 1 has seen 0, 4
    assert pool.positives_masked == 0


def test_masks_by_name(tested: Holdout) -> None:
    assert masked_items(tested, "seen").toarray().tolist() == [
        [1, 1, 0, 1, 0, 0],
        [1, 0, 0, 0, 1, 0],
        [0, 0, 1, 1, 0, 0],
    ]
    assert masked_items(tested, "train").toarray().tolist() == [
        [1, 1, 0, 0, 0, 0],
        [1, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 0, 0],
    ]
    assert masked_items(tested, "none").nnz == 0
    assert make_pool(tested, "all", "train").rankable.tolist() == [4, 5]
    assert make_pool(tested, "all", "none").rankable.tolist() == [6, 6]


def test_cold_and_warm(tested: Holdout) -> None:
    cold, warm = make_pool(tested, "cold", "seen"), make_pool(tested, "warm", "seen")
    assert cold.items is not None
    assert warm.items is not None
    assert (cold.items.tolist(), warm.items.tolist()) == ([4, 5], [0, 1, 2, 3])
    assert (cold.users.tolist(), warm.users.tolist()) == ([0, 1], [0])
    assert cold.positives.toarray().tolist() == [[1, 0], [0, 1]]
    assert cold.rankable.tolist() == [2, 1]  # user 1 met cold item 4 in validation


def test_a_masked_positive_is_left_out_and_counted(holdout_of: HoldoutOf) -> None:
    """User 0 meets item 1 again; user 1 meets only item 0 again and has nothing left to find."""
    holdout = holdout_of([(0, 1), (0, 2), (1, 0)], [(0, 1), (1, 0)], users=2, items=4)
    pool = make_pool(holdout, "all", "seen")
    assert pool.users.tolist() == [0]
    assert pool.relevant.tolist() == [1]
    assert pool.positives_masked == 2
    assert make_pool(holdout, "all", "none").relevant.tolist() == [2, 1]


def test_repeated_events_count_once(holdout_of: HoldoutOf) -> None:
    pool = make_pool(holdout_of([(0, 1), (0, 1), (0, 2)], [(0, 0)], users=1, items=3), "all", "seen")
    assert pool.relevant.tolist() == [2]
    assert pool.positives_masked == 0


@pytest.mark.parametrize(("positives", "pool"), [([], "all"), ([(0, 1)], "cold"), ([(0, 0)], "all")])
def test_nothing_to_evaluate(holdout_of: HoldoutOf, positives: list[tuple[int, int]], pool: str) -> None:
    """Empty holdout; no cold positive; the only positive is masked."""
    holdout = holdout_of(positives, [(0, 0), (1, 1)], users=2, items=3)
    with pytest.raises(EvaluateError, match=f"nothing to evaluate in the valid split.*pool '{pool}'"):
        make_pool(holdout, pool, "seen")  # type: ignore[arg-type]
