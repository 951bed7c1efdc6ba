import numpy as np
import pytest

from modalmix.data import ReadConfig, from_frames, k_core
from modalmix.data.filters import earliest_of_pairs, rated_at_least
from modalmix.errors import DataError


def core_by_loops(pairs: list[tuple[int, int]], user_core: int, item_core: int) -> list[tuple[int, int]]:
    """The definition, one user or item at a time."""
    while True:
        users, items = [user for user, _ in pairs], [item for _, item in pairs]
        kept = [pair for pair in pairs if users.count(pair[0]) >= user_core and items.count(pair[1]) >= item_core]
        if kept == pairs:
            return kept
        pairs = kept


@pytest.mark.parametrize("cores", [(2, 2), (3, 2), (1, 4), (4, 4), (50, 1)])
def test_k_core_equals_its_definition(cores):
    rng = np.random.default_rng(3)
    user, item = rng.zipf(1.6, 300) % 40, rng.zipf(1.6, 300) % 40
    pairs = list(zip(user.tolist(), item.tolist(), strict=True))
    keep = k_core(user, item, *cores)
    assert [pair for pair, kept in zip(pairs, keep, strict=True) if kept] == core_by_loops(pairs, *cores)


def test_k_core_needs_several_rounds():
    # a chain: dropping item 0 drops user 0, which drops item 1, ...
    user, item = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 2, 2])
    assert not k_core(user, item, 2, 2).any()
    assert k_core(user, item, 1, 1).all()


def test_rating_threshold():
    assert rated_at_least(np.array([3.9, 4.0, np.nan, 5.0], dtype=np.float32), 4.0).tolist() == [
        False,
        True,
        False,
        True,
    ]


def test_earliest_of_pairs():
    user, item = np.array([0, 0, 1, 0, 0]), np.array([1, 1, 1, 2, 1])
    assert earliest_of_pairs(user, item, np.array([9, 3, 1, 1, 3])).tolist() == [False, True, True, True, False]
    assert earliest_of_pairs(user, item, None).tolist() == [True, False, True, True, False]


def frame(pl_rows: list[tuple[int, int, float, str]]):
    import polars as pl

    return pl.DataFrame(pl_rows, schema=["user", "item", "rating", "split"], orient="row")


def test_filters_apply_in_order_and_are_counted():
    rows = [(1, 1, 5, "train"), (1, 1, 5, "test"), (1, 2, 5, "train"), (2, 1, 5, "train"), (2, 2, 4, "train")]
    rows += [(3, 3, 5, "train"), (3, 1, 1, "train"), (4, 2, 1, "train")]
    items = frame(rows).select("item").unique().sort("item")
    data = from_frames(frame(rows), items, ReadConfig(min_rating=4, k_core=2))
    assert data.counts == {
        "events_read": 8,
        "below_min_rating": 2,
        "duplicates_merged": 1,
        "duplicates_across_splits": 1,
        "outside_core": 1,
        "items_outside_core": 1,
    }
    assert data.users.series.to_list() == [1, 2]
    assert data.catalog.items.series.to_list() == [1, 2]
    assert data.catalog.table["item"].to_list() == [1, 2]
    assert list(zip(data.interactions.user, data.interactions.item, strict=True)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert data.labels.tolist() == ["train"] * 4


def test_a_rating_threshold_keeps_the_catalogue():
    data = from_frames(frame([(1, 1, 5, "train"), (2, 2, 1, "train")]), None, ReadConfig(min_rating=4))
    assert (len(data.users), len(data.catalog), len(data.interactions)) == (1, 2, 1)


def test_duplicates_can_be_kept():
    rows = frame([(1, 1, 5, "train"), (1, 1, 5, "train")])
    assert len(from_frames(rows, None, ReadConfig(duplicates="keep")).interactions) == 2
    assert from_frames(rows).counts == {"events_read": 2, "duplicates_merged": 1, "duplicates_across_splits": 0}


def test_nothing_left():
    rows = frame([(1, 1, 2, "train")])
    with pytest.raises(DataError, match="no event is left after min_rating: got 1 events"):
        from_frames(rows, None, ReadConfig(min_rating=4))
    with pytest.raises(DataError, match="no event is left after the 2, 2-core"):
        from_frames(rows, None, ReadConfig(k_core=2))
    with pytest.raises(DataError, match="min_rating needs ratings"):
        from_frames(rows.drop("rating"), None, ReadConfig(min_rating=4))
