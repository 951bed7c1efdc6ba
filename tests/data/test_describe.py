import json

import pytest
from rich.console import Console

from modalmix.data import describe, description_table, read_folder
from modalmix.data.describe import head_share


def test_the_small_folder(folder):
    facts = describe(read_folder(folder))
    assert (facts["users"], facts["items"], facts["interactions"]) == (3, 4, 6)
    assert facts["density"] == pytest.approx(0.5)
    assert facts["items_without_events"] == 1
    assert facts["events_per_user"]["most"] == 3
    assert facts["events_per_user"]["mean"] == 2
    assert facts["events_per_item"]["median"] == 2  # of 1, 2, 3
    assert facts["share_of_events_on_top_10_percent_of_items"] == pytest.approx(0.5)
    assert facts["modalities"]["image"] == {"dim": 2, "present": 0.5, "dtype": "float32", "encoder": None}
    assert facts["rating"] == {"least": 1, "mean": pytest.approx(20 / 6), "most": 5}
    assert facts["time"] == {"first": "2001-09-09T01:46:40+00:00", "last": "2001-09-09T01:46:45+00:00"}
    json.dumps(facts)


def test_head_share_by_hand(dataset_of):
    # 11 items: the top tenth is 2 items, with 3 + 2 of 6 events
    events = dataset_of([0, 1, 2, 0, 1, 0], [4, 4, 4, 7, 7, 1], n_items=11).interactions
    assert head_share(events) == pytest.approx(5 / 6)


def test_an_order_is_no_date(dataset_of):
    facts = describe(dataset_of([0, 1], [0, 1], time=[3, 4], labels=["train", "test"]))
    assert facts["time"] == {"first": 3, "last": 4}
    assert facts["split"] == {"test": 1, "train": 1}
    milliseconds = describe(dataset_of([0, 1], [0, 1], time=[3, 1_500_000_000_000]))
    assert milliseconds["time"]["last"] == 1_500_000_000_000


def test_the_table_shows_all(folder):
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(description_table(describe(read_folder(folder))))
    text = console.export_text()
    assert "data set small" in text
    assert "2-d, 50.0% of the items" in text
