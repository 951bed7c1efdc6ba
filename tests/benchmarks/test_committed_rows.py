"""Committed results are of the models as they are: a changed default leaves no row of the old one in a table."""

from types import ModuleType
from typing import Any

import pytest

from benchmarks import cold, graphs, sequences
from benchmarks.paired import EARLIER, read_values, values_file
from benchmarks.rows import RESULTS, read
from modalmix.files import read_json
from modalmix.models.contract import find_model

NOT_THE_MODEL_S = {"seed", "precision", "modalities"}  # what a benchmark sets beside the settings of a row
CAME_LATER: dict[str, tuple[Any, ...]] = {  # as it was; bsarec has always had prefixes
    **{"id_init": ("normal",), "init_modalities": (None,), "lr_factor": (1.0,), "warmup": (0,), "prior": ("none",)},
    "training": ("causal", "prefixes"),
    "both_ways": (False,),
    **{"trigger_window": (3,), "trigger_still": (0.02,), "trigger_first": (5,)},
}
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
        later = {name for name, values in CAME_LATER.items() if today.get(name, ...) in values}
        later |= UNUSED if "prior" in later else set()
        expected = {name: value for name, value in today.items() if name in kept or name not in later | NOT_THE_MODEL_S}
        if "filter" in kept and "both_ways" not in kept["filter"]:
            assert expected["filter"].pop("both_ways") is False
        assert kept == expected, (row["model"], row["data"], row["id"])


def committed_mean(row: dict[str, Any]) -> dict[str, tuple[str, float]]:
    """Pool -> the metric that the table tests there, and its committed mean."""
    if "evaluation" in row:
        return {
            pool: ("ndcg@20", row["evaluation"]["pools"][pool]["metrics"]["ndcg@20"]["mean"])
            for pool in ("cold", "all")
        }
    mask, metric = ("train", "recall@20") if "train" in row["test"] else ("none", "ndcg@10")
    return {"all": (metric, row["test"][mask]["pools"]["all"]["metrics"][metric]["mean"])}


def test_per_user_values_are_those_of_the_row() -> None:
    """Of another run, or of a row whose key has changed, they would give a p of something else."""
    rows = {id: row for table in (cold, graphs, sequences) for id, row in read(table.FILE).items()}
    files = sorted((RESULTS / "per_user").iterdir())
    assert files
    for file in files:
        row = rows[file.stem]
        for pool, (metric, mean) in committed_mean(row).items():
            values = read_values(values_file(RESULTS, file.stem), metric, pool)
            assert values["user"].is_unique().all()
            assert values[metric].cast(float).mean() == pytest.approx(mean, rel=1e-6), (row["model"], row["data"])


@TABLES
def test_every_earlier_p_is_of_a_row_there_is(table: ModuleType) -> None:
    names = {(row["data"], table.name_of(row)) for row in read(table.FILE).values()}
    earlier = read_json(EARLIER)[table.FILE.stem]
    assert {(data, name) for data, pools in earlier.items() for found in pools.values() for name in found} <= names
