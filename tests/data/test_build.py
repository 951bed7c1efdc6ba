import datetime

import numpy as np
import polars as pl
import pytest

from modalmix.data import SplitConfig, from_frames, make_dataset, make_split
from modalmix.errors import DataError


def frame(**columns) -> pl.DataFrame:
    return pl.DataFrame({"user": [1, 2], "item": [5, 3], **columns})


def test_users_and_items_without_a_table_are_sorted():
    data = from_frames(pl.DataFrame({"user": ["b", "a", "b"], "item": [10, 9, 9]}))
    assert data.users.series.to_list() == ["a", "b"]
    assert data.catalog.items.series.to_list() == [9, 10]
    assert data.interactions.user.tolist() == [1, 0, 1]
    assert data.labels is None


def test_the_items_table_decides_the_rows_and_keeps_its_columns():
    items = pl.DataFrame({"title": ["x", "y", "z"], "item": [3, 4, 5]})
    data = make_dataset(frame(), items)
    assert data.catalog.table.columns == ["item", "title"]
    assert data.interactions.item.tolist() == [2, 0]
    assert data.interactions.item_degree.tolist() == [1, 0, 1]


def test_pandas_frames():
    pandas = pytest.importorskip("pandas")
    data = from_frames(pandas.DataFrame({"user": [1, 2], "item": ["b", "a"]}), pandas.DataFrame({"item": ["b", "a"]}))
    assert data.interactions.item.tolist() == [0, 1]
    with pytest.raises(DataError, match="got list, expected a polars or pandas DataFrame"):
        from_frames([1, 2])


def test_lists_of_dicts_and_what_is_no_table():
    data = from_frames([{"user": 1, "item": "a"}, {"user": 2, "item": "b"}], [{"item": "b"}, {"item": "a"}])
    assert data.catalog.items.series.to_list() == ["b", "a"]
    with pytest.raises(DataError, match="got dict, expected a polars or pandas DataFrame, or a list"):
        from_frames({"user": [1], "item": [2]})
    with pytest.raises(DataError, match="cannot be read"):
        from_frames([{"user": ["x"], "item": 1}, {"user": "x", "item": 1}])


def test_string_ids_in_one_table_and_integers_in_the_other():
    assert make_dataset(frame(), pl.DataFrame({"item": ["5", "3", "x"]})).interactions.item.tolist() == [0, 1]
    strings = pl.DataFrame({"user": [1], "item": ["3"]})
    assert make_dataset(strings, pl.DataFrame({"item": [5, 3]})).interactions.item.tolist() == [1]


def test_unknown_items_are_named():
    with pytest.raises(
        DataError, match=r"1 item id\(s\) of the interactions are not in the items table: got 3, expected"
    ):
        make_dataset(frame(), pl.DataFrame({"item": [5, 6]}))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pl.DataFrame({"user": [1]}), "interactions has no item column: got columns user"),
        (pl.DataFrame({"item": [1]}), "interactions has no user column"),
        (pl.DataFrame({"user": [1, None], "item": [1, 1]}), "user id in row 1 of the interactions is empty"),
        (pl.DataFrame({"user": [1, 1], "item": [None, 1]}), "item id in row 0 of the interactions is empty"),
        (pl.DataFrame({"user": [1.5], "item": [1]}), "user ids of the interactions: got dtype Float64"),
        (pl.DataFrame({"user": [], "item": []}, schema={"user": pl.Int64, "item": pl.Int64}), "has no rows"),
        (frame(rating=["good", "bad"]), "'rating': got dtype String, expected numbers"),
        (frame(timestamp=[1, None]), "'timestamp' has no time in row 1: got None"),
        (frame(timestamp=[1.0, float("nan")]), "'timestamp' has no time in row 1: got nan"),
        (frame(timestamp=["2020-01-01 00:00:00", "soon"]), "'timestamp' has no time in row 1: got 'soon'"),
        (frame(timestamp=[True, False]), "got dtype Boolean, expected numbers or dates"),
    ],
)
def test_bad_interactions(table, message):
    with pytest.raises(DataError, match=message):
        make_dataset(table)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (pl.DataFrame({"title": ["x"]}), "items has no item column: got columns title"),
        (pl.DataFrame({"item": [3, 5, 3]}), "item id 3 stands in several rows"),
        (pl.DataFrame({"item": [3, None, 5]}), "item id in row 1 is empty"),
        (pl.DataFrame({"item": []}, schema={"item": pl.Int64}), "items table has no rows"),
    ],
)
def test_bad_items(items, message):
    with pytest.raises(DataError, match=message):
        make_dataset(frame(), items)


@pytest.mark.parametrize(
    "times",
    [
        [86_400, 0],
        [86_400.7, 0.2],
        [datetime.date(1970, 1, 2), datetime.date(1970, 1, 1)],
        [datetime.datetime(1970, 1, 2), datetime.datetime(1970, 1, 1)],
        ["1970-01-02 00:00:00", "1970-01-01 00:00:00"],
    ],
)
def test_times_become_seconds(times):
    assert make_dataset(frame(timestamp=times)).interactions.time.tolist() == [86_400, 0]


def test_the_timestamp_wins_over_the_order():
    assert make_dataset(frame(order=[2, 1])).interactions.time.tolist() == [2, 1]
    assert make_dataset(frame(order=[2, 1], timestamp=[7, 8])).interactions.time.tolist() == [7, 8]


def test_unknown_ratings_are_nan():
    assert np.isnan(make_dataset(frame(rating=[1.5, None])).interactions.rating).tolist() == [False, True]


def test_labels_are_strings_of_any_source_type():
    labels = make_dataset(frame(split=pl.Series(["train", None], dtype=pl.Categorical))).labels
    assert labels.tolist() == ["train", ""]


def test_matrices_as_features():
    data = make_dataset(frame(), pl.DataFrame({"item": [3, 4, 5]}), {"image": np.eye(3)})
    assert data.catalog.modality("image").matrix().tolist() == np.eye(3).tolist()
    with pytest.raises(DataError, match="got 2 rows, expected 3 rows"):
        make_dataset(frame(), pl.DataFrame({"item": [3, 4, 5]}), {"image": np.ones((2, 2))})


def test_the_item_core_takes_the_right_feature_rows():
    from modalmix.data import ReadConfig

    events = pl.DataFrame({"user": [1, 2, 1], "item": ["c", "c", "a"]})
    items = pl.DataFrame({"item": ["a", "b", "c"]})
    data = make_dataset(events, items, {"image": np.diag([1.0, 2.0, 3.0])}, ReadConfig(item_core=2))
    assert data.catalog.items.series.to_list() == ["c"]
    assert data.catalog.modality("image").matrix().tolist() == [[0, 0, 3]]


def test_times_written_as_text_are_numbers_or_dates():
    assert make_dataset(frame(timestamp=["1600000000", "1600000060"])).interactions.time.tolist() == [
        1600000000,
        1600000060,
    ]
    assert make_dataset(frame(timestamp=["1970-01-01", "1970-01-02"])).interactions.time.tolist() == [0, 86400]
    with pytest.raises(DataError, match="'timestamp'"):
        make_dataset(frame(timestamp=["yesterday", "yesterday"]))


def test_ids_with_zeros_before_are_not_the_integers():
    events = pl.DataFrame({"user": [1, 1, 1], "item": ["01", "1", "002"]})
    with pytest.raises(
        DataError, match=r"2 item id\(s\) of the interactions are not in the items table: got '01', '002'"
    ):
        make_dataset(events, pl.DataFrame({"item": [1, 2]}))


@pytest.mark.parametrize("kind", ["user", "item"])
def test_an_id_beyond_64_bits(kind):
    table = frame().with_columns(pl.Series(kind, [1, 2**63], dtype=pl.UInt64))
    with pytest.raises(DataError, match=f"{kind} ids of the interactions: got 9223372036854775808, expected integers"):
        make_dataset(table)


@pytest.mark.parametrize("times", [[0.0, 1e30], [0.0, -1e30], pl.Series([0, 2**63], dtype=pl.UInt64), ["0", "1e30"]])
def test_a_time_beyond_64_bits(times):
    with pytest.raises(
        DataError, match=r"'timestamp' has no time in row 1: got .*, expected a date, or a number below"
    ):
        make_dataset(frame(timestamp=times))


SECOND = datetime.datetime(2020, 9, 13, 12, 26, 40)  # 1,600,000,000


@pytest.mark.parametrize(
    "times",
    [
        [1_600_000_000 + tenths / 10 for tenths in (9, 2, 5, 1)],
        [SECOND.replace(microsecond=tenths * 100_000) for tenths in (9, 2, 5, 1)],
        [f"2020-09-13T12:26:40.{tenths}" for tenths in (9, 2, 5, 1)],
    ],
)
def test_events_of_one_second_stand_in_the_order_of_their_fractions(times):
    names = ["newest", "old", "mid", "oldest"]
    table = pl.DataFrame({"user": [1] * 4, "item": names, "timestamp": times, "rating": [4, 2, 3, 1], "split": names})
    data = make_dataset(table)
    assert data.interactions.time.tolist() == [1_600_000_000] * 4
    assert data.catalog.items.ids(data.interactions.item) == ["oldest", "old", "mid", "newest"]
    assert data.interactions.rating.tolist() == [1, 2, 3, 4]
    assert data.labels.tolist() == ["oldest", "old", "mid", "newest"]


def test_leave_last_two_out_follows_fractions_of_a_second():
    times = [1_600_000_000 + tenths / 10 for tenths in (9, 2, 5, 1)]
    data = make_dataset(pl.DataFrame({"user": [1] * 4, "item": [9, 2, 5, 1], "timestamp": times}))
    split = make_split(data, SplitConfig(kind="leave-last-two-out"))
    assert data.catalog.items.ids(split.valid.item) == [5]
    assert data.catalog.items.ids(split.test.item) == [9]


def test_only_events_of_one_second_change_places():
    table = pl.DataFrame({"user": [1] * 4, "item": [0, 1, 2, 3], "timestamp": [7.9, 3.5, 7.1, 2.0]})
    data = make_dataset(table)
    assert data.interactions.item.tolist() == [2, 1, 0, 3]
    assert data.interactions.time.tolist() == [7, 3, 7, 2]


def test_events_of_equal_time_keep_the_order_of_the_rows():
    table = pl.DataFrame({"user": [1] * 3, "item": [2, 1, 0], "timestamp": [7.5, 7.5, 7.1]})
    assert make_dataset(table).interactions.item.tolist() == [0, 2, 1]


def test_merging_keeps_the_earliest_within_a_second():
    table = pl.DataFrame({"user": [1, 1], "item": [5, 5], "timestamp": [7.9, 7.1], "rating": [1, 2]})
    assert make_dataset(table).interactions.rating.tolist() == [2]


def test_shares_of_a_span_become_ranks():
    table = pl.DataFrame({"user": [1] * 4, "item": [0, 1, 2, 3], "timestamp": [0.5, 0.0, 1.0, 0.5]})
    assert make_dataset(table).interactions.time.tolist() == [2, 1, 3, 2]
