import json

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from modalmix.data import ReadConfig, examination_table, examine, from_frames, make_dataset, read_folder
from modalmix.data.doctor import popularity_of_first_rows


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path):
    found = examine(tmp_path / "nothing")
    assert len(found.problems) == 1
    assert "is not there" in found.problems[0]


def test_the_small_folder(folder):
    found = examine(folder)
    assert found.problems == []
    assert found.warnings == [
        "2 of 3 users have fewer than 3 events: per-user splits leave them in train",
        "1 of 4 items have no events",
        "2 of 4 items have no modality at all",
        "ratings go from 1 to 5 and all count as positive: min_rating keeps the good ones",
        "2 of 4 items (50.0%) lack modality 'image'",
    ]
    assert json.loads(json.dumps(found.to_dict()))["facts"]["items"] == 4


def test_bad_features():
    items = pl.DataFrame({"item": [1, 2, 3, 4, 5], "tags": [["x"]] * 5})
    rows = np.array([[1, 7, 2], [1, 7, 2], [3, 7, 4], [0, 0, 0], [9, 7, 1]], dtype=np.float32)
    absent = np.zeros((5, 2))
    events = pl.DataFrame({"user": [1, 1, 2], "item": [1, 2, 3]})
    found = examine(make_dataset(events, items, {"image": rows, "audio": absent}))
    assert found.problems == ["no item has modality 'audio'"]
    text = "\n".join(found.warnings)
    assert "1 rows of 'image' are all zero and count as absent" in text
    assert "1 of 3 feature columns of 'image' are constant" in text
    assert "2 items share their row of 'image' with another item (largest group 2)" in text
    assert "items column 'tags' looks like tags given by users" in text


def test_bad_labels_and_sizes():
    found = examine(from_frames(pl.DataFrame({"user": [1], "item": [1], "split": ["tset"]})))
    assert found.problems[:2] == ["there is only one user", "there is only one item"]
    assert "split label 'tset' is unknown" in found.problems[2]
    assert found.problems[3] == "no event has the split label 'train'"
    assert found.warnings[-2:] == ["no event is labelled as valid", "no event is labelled as test"]


def test_duplicates():
    events = pl.DataFrame({"user": [1, 1, 2], "item": [1, 1, 2], "split": ["train", "test", "train"]})
    text = "\n".join(examine(from_frames(events)).warnings)
    assert "1 events repeated a (user, item) pair and were merged" in text
    assert "1 of them had another split label" in text
    text = "\n".join(examine(from_frames(events, None, ReadConfig(duplicates="keep"))).warnings)
    assert "1 events repeat a (user, item) pair" in text


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([1_500_000_000_000, 1_500_000_000_001, 1_500_000_000_002], "times look like milliseconds"),
        ([-1, 1, 2], "1 events have a time below 0"),
        ([5, 5, 5], "66.7% of the events share their time"),
    ],
)
def test_bad_times(times, message):
    events = pl.DataFrame({"user": [1, 1, 2], "item": [1, 2, 2], "timestamp": times})
    assert message in "\n".join(examine(from_frames(events)).warnings)


def test_items_sorted_by_popularity():
    # item k of 100 has 100 - k events: the first 20 have a mean of 90.5, all of 50.5
    item = np.repeat(np.arange(100), 100 - np.arange(100))
    user = np.concatenate([np.arange(100 - row) for row in range(100)])
    events = from_frames(pl.DataFrame({"user": user, "item": item})).interactions
    assert popularity_of_first_rows(events) == pytest.approx(90.5 / 50.5)
    few = pl.DataFrame({"user": user, "item": item}).filter((pl.col("item") < 20) | (pl.col("user") < 1))
    assert "popular items stand first" in "\n".join(examine(from_frames(few)).warnings)


def test_the_table_shows_all(folder):
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(examination_table(examine(folder)))
    assert "1 of 4 items have no events" in console.export_text()
    console.print(examination_table(type(examine(folder))()))
    assert "nothing found" in console.export_text()


@pytest.mark.realdata
def test_real_posters(real_data):
    found = examine(read_folder(real_data("movielens-posters")))
    text = "\n".join(found.warnings)
    assert found.problems == []
    assert "3,189 of 9,066 items (35.2%) lack modality 'image'" in text
    assert "tags given by users" in text
    assert "ratings go from 0.5 to 5" in text
    assert "popular items stand first" in text
