import numpy as np
import polars as pl
import pytest

from modalmix.data import Dataset, SplitConfig, make_split, read_folder, read_split, split_from_labels, write_split
from modalmix.data.partition import held_out_counts
from modalmix.errors import ConfigError, DataError


@pytest.fixture
def drawn(dataset_of) -> Dataset:
    pairs = np.unique(np.random.default_rng(0).integers(0, [40, 30], (500, 2)), axis=0)
    time = np.random.default_rng(1).permutation(len(pairs)) + 1_000_000_000
    return dataset_of(pairs[:, 0], pairs[:, 1], time=time)


KINDS = ["random", "leave-last-two-out", "global-time", "cold-item", "cold-user"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_is_in_one_part(drawn, kind):
    split = make_split(drawn, SplitConfig(kind=kind))
    assert split.kind == kind
    assert split.settings["kind"] == kind
    assert split.cold_split == (kind == "cold-item")
    assert min(len(split.train), len(split.valid), len(split.test)) > 0
    parts = split.train + split.valid + split.test
    assert sorted(zip(parts.user, parts.item, parts.time, strict=True)) == sorted(
        zip(drawn.interactions.user, drawn.interactions.item, drawn.interactions.time, strict=True)
    )
    assert make_split(drawn, SplitConfig.parse(split.settings)).sha256 == split.sha256


@pytest.mark.parametrize("kind", KINDS)
def test_a_split_comes_back_from_its_file(drawn, kind, tmp_path):
    split = make_split(drawn, SplitConfig(kind=kind))
    write_split(split, tmp_path / "split.parquet")
    again = read_split(drawn, tmp_path / "split.parquet")
    assert again.sha256 == split.sha256
    assert (again.kind, again.settings, again.cold_split) == (split.kind, split.settings, split.cold_split)
    assert again.report == split.report
    table = pl.read_parquet(tmp_path / "split.parquet")
    assert table.columns == ["user", "item", "timestamp", "split"]
    assert table["split"].unique().sort().to_list() == ["test", "train", "valid"]
    assert table["user"].dtype == pl.String


def test_labels_of_every_spelling(dataset_of):
    labels = ["train", "valid", "validation", "val", "dev", "test", "train"]
    split = split_from_labels(dataset_of([0] * 7, [0, 1, 2, 3, 4, 5, 6]), labels)
    assert (len(split.train), len(split.valid), len(split.test)) == (2, 4, 1)
    assert split.kind == "as-given"


def test_labels_that_say_cold(dataset_of):
    labels = ["train", "valid_warm", "valid_cold", "test_warm", "test_cold", "train"]
    split = split_from_labels(dataset_of([0, 1, 1, 2, 2, 1], [0, 0, 1, 0, 2, 0]), labels)
    assert (len(split.train), len(split.valid), len(split.test)) == (2, 2, 2)
    assert split.cold_split
    assert split.report == {"cold_items": 2}


def test_plain_labels_that_hold_items_out_whole_make_a_cold_split(dataset_of):
    assert split_from_labels(dataset_of([0, 0, 0], [0, 1, 2]), ["train", "valid", "test"]).cold_split
    assert not split_from_labels(dataset_of([0, 1, 2], [0, 0, 0]), ["train", "valid", "test"]).cold_split


def test_bad_labels(dataset_of):
    data = dataset_of([0, 0, 0], [0, 1, 2], labels=["train", "tset", "tset"])
    with pytest.raises(
        DataError, match="split label 'tset' is unknown: got 2 events with it, expected one of train, valid"
    ):
        make_split(data)
    with pytest.raises(DataError, match="split label '' is unknown"):
        split_from_labels(data, ["train", "", "test"])
    with pytest.raises(DataError, match="has no train events: got 1 validation and 2 test events"):
        split_from_labels(data, ["valid", "test", "test"])


def test_auto_takes_labels_where_there_are_any(drawn, dataset_of):
    assert make_split(drawn).kind == "random"
    labelled = dataset_of([0, 0], [0, 1], labels=["train", "test"])
    assert make_split(labelled).kind == "as-given"
    assert make_split(labelled, SplitConfig(kind="random")).kind == "random"
    with pytest.raises(DataError, match="has no split column"):
        make_split(drawn, SplitConfig(kind="as-given"))


def test_no_train_events(dataset_of):
    with pytest.raises(DataError, match="global-time split of 'drawn' has no train events"):
        make_split(dataset_of([0, 1, 1], [0, 1, 2], time=[5, 5, 5]), SplitConfig(kind="global-time"))


def test_one_user_and_one_item(dataset_of):
    assert len(make_split(dataset_of([0], [0])).train) == 1
    with pytest.raises(DataError, match="cold-item split of 1"):
        make_split(dataset_of([0], [0]), SplitConfig(kind="cold-item"))


@pytest.mark.parametrize("kind", KINDS)
def test_who_is_held_out_in_order_is_said(drawn, kind):
    split = make_split(drawn, SplitConfig(kind=kind))
    assert split.testing().in_order == split.validation().in_order == (kind in ("leave-last-two-out", "global-time"))


@pytest.mark.parametrize(
    "settings",
    [
        {"ratios": [0.8, 0.1, 0.2]},
        {"ratios": [0.0, 0.5, 0.5]},
        {"cold_share": 0.0},
        {"cold_share": 1.0},
        {"warm_valid": 0.5, "warm_test": 0.5},
        {"kind": "cold"},
        {"warm_vald": 0.1},
    ],
)
def test_bad_settings(settings):
    with pytest.raises(ConfigError):
        SplitConfig.parse(settings)


def test_a_split_of_another_data_set(drawn, dataset_of, tmp_path):
    write_split(make_split(drawn), tmp_path / "split.parquet")
    with pytest.raises(DataError, match=r"user id\(s\) are unknown"):
        read_split(dataset_of([0, 1], [0, 1]), tmp_path / "split.parquet")
    more_items = dataset_of(drawn.interactions.user, drawn.interactions.item, drawn.interactions.time, n_items=99)
    with pytest.raises(DataError, match="is not a split of data set 'drawn' as it is now"):
        read_split(more_items, tmp_path / "split.parquet")


def test_a_changed_split_file(drawn, tmp_path):
    path = tmp_path / "split.parquet"
    write_split(make_split(drawn), path)
    metadata = {key: value for key, value in pl.read_parquet_metadata(path).items() if key.startswith("modalmix")}
    table = pl.read_parquet(path)
    table.with_columns(split=table["split"].replace("valid", "test")).write_parquet(path, metadata=metadata)
    with pytest.raises(DataError, match="is not a split of"):
        read_split(drawn, path)


def test_a_split_made_elsewhere(dataset_of, tmp_path):
    data = dataset_of([0, 0, 1], [0, 1, 1])
    (tmp_path / "split.csv").write_text("user,item,split\nu000,i000,train\nu000,i001,dev\nu001,i001,train\n")
    split = read_split(data, tmp_path / "split.csv")
    assert (split.kind, len(split.train), len(split.valid), len(split.test)) == ("as-given", 2, 1, 0)


def test_a_full_disk_keeps_the_old_split(drawn, tmp_path, disk_of):
    path = tmp_path / "split.parquet"
    write_split(make_split(drawn), path)
    before = path.read_bytes()
    with disk_of(100), pytest.raises(DataError, match="cannot be written"):
        write_split(make_split(drawn, SplitConfig(seed=1)), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["split.parquet"]


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["amazon-baby", "amazon-clothing", "amazon-sports"])
def test_random_sizes_are_those_of_the_published_splits(real_data, name):
    data = read_folder(real_data(name))
    given = make_split(data)
    valid, test = held_out_counts(data.interactions.user_degree, 0.1, 0.1)
    assert (given.valid.user_degree == valid).all()
    assert (given.test.user_degree == test).all()


@pytest.mark.realdata
def test_the_cold_split_of_baby_has_the_paper_s_counts(real_data):
    config = SplitConfig(kind="cold-item", warm_valid=0, warm_test=0)
    split = make_split(read_folder(real_data("amazon-baby")), config)
    assert split.train_data().warm.sum() == 5_640
    assert (split.valid.item_degree > 0).sum() == (split.test.item_degree > 0).sum() == 705


def test_labels_made_elsewhere_keep_the_data_set_s_order_and_times(dataset_of, tmp_path):
    data = dataset_of([0, 0, 1], [0, 1, 1], time=[30, 20, 10])
    (tmp_path / "split.csv").write_text("item,user,split\ni001,u001,train\ni001,u000,test\ni000,u000,train\n")
    split = read_split(data, tmp_path / "split.csv")
    assert split.train.time.tolist() == [30, 10]
    assert split.test.time.tolist() == [20]


def test_labels_that_leave_events_out(dataset_of, tmp_path):
    data = dataset_of([0, 0, 1], [0, 1, 1])
    (tmp_path / "split.csv").write_text("user,item,split\nu000,i000,train\nu001,i000,test\n")
    with pytest.raises(
        DataError, match="got 2 of 3 events without a label, 1 labels of no event, expected one label an"
    ):
        read_split(data, tmp_path / "split.csv")


def test_an_event_labelled_twice(dataset_of, tmp_path):
    rows = "u000,i000,train\nu000,i001,train\nu000,i000,test\n"
    (tmp_path / "split.csv").write_text("user,item,split\n" + rows)
    with pytest.raises(DataError, match="got 0 of 2 events without a label, 1 labels of no event"):
        read_split(dataset_of([0, 0], [0, 1]), tmp_path / "split.csv")


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_dates_tell_repeats_apart(dataset_of, tmp_path, suffix):
    data = dataset_of([0, 0, 0], [0, 0, 1], time=[1_577_836_810, 1_577_836_800, 5])
    times = ["2020-01-01 00:00:00", "2020-01-01 00:00:10", "1970-01-01 00:00:05"]
    table = pl.DataFrame(
        {
            "user": ["u000"] * 3,
            "item": ["i000", "i000", "i001"],
            "timestamp": times,
            "split": ["train", "test", "train"],
        }
    )
    path = tmp_path / f"split.{suffix}"
    if suffix == "csv":
        table.write_csv(path)
    else:
        table.with_columns(pl.col("timestamp").str.to_datetime()).write_parquet(path)
    split = read_split(data, path)
    assert split.train.time.tolist() == [1_577_836_800, 5]
    assert split.test.time.tolist() == [1_577_836_810]


def test_repeats_need_times_where_the_data_set_has_them(dataset_of, tmp_path):
    (tmp_path / "split.csv").write_text("user,item,split\nu000,i000,train\nu000,i000,test\n")
    with pytest.raises(DataError, match=r"no times to tell repeats .* apart. Add a column timestamp"):
        read_split(dataset_of([0, 0], [0, 0], time=[2, 1]), tmp_path / "split.csv")


def test_repeats_without_times_are_matched_in_the_order_of_the_rows(dataset_of, tmp_path):
    (tmp_path / "split.csv").write_text("user,item,split\nu000,i000,train\nu000,i001,train\nu000,i000,test\n")
    split = read_split(dataset_of([0, 0, 0], [1, 0, 0]), tmp_path / "split.csv")
    assert split.train.item.tolist() == [1, 0]
    assert split.test.item.tolist() == [0]
