"""Committed results are of the models as they are: a changed default leaves no row of the old one in a table."""

from types import ModuleType

import pytest

from benchmarks import cold, graphs, sequences
from benchmarks.rows import read
from modalmix.models.contract import find_model

NOT_THE_MODEL_S = {"seed", "precision", "modalities"}  # what a benchmark sets beside the settings of a row
CAME_LATER = {"id_init": "normal", "init_modalities": None, "lr_factor": 1.0, "warmup": 0, "prior": "none"}  # as it was
UNUSED = {"trust", "transitions"}  # without a prior
TABLES = pytest.mark.parametrize("table", [cold, graphs, sequences], ids=lambda table: table.__name__)


@TABLES
def test_every_row_is_a_task(table: ModuleType) -> None:
    there = {task.id for task in table.tasks()}
    rows = read(table.FILE)
    assert rows
    assert [row["id"] for row in rows.values() if row["id"] not in there] == []


@TABLES
def test_every_row_was_made_with_the_settings_of_today(table: ModuleType) -> None:
    """A setting that came later is not in older rows: theirs are those that leave the model as it was."""
    for row in read(table.FILE).values():
        config = find_model(row["model"]).config
        settings = {**row.get("settings", {}), **config.ablations.get(row.get("variant", ""), {})}
        today = config.preset(row.get("preset", "default"), **settings).model_dump(mode="json")
        kept = {name: value for name, value in row["config"].items() if name not in NOT_THE_MODEL_S}
        later = {name for name, value in CAME_LATER.items() if today.get(name, ...) == value}
        later |= UNUSED if "prior" in later else set()
        expected = {name: value for name, value in today.items() if name in kept or name not in later | NOT_THE_MODEL_S}
        assert kept == expected, (row["model"], row["data"], row["id"])
