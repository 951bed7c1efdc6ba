"""Results files grow row by row and survive kills."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.rows import Task, read, run


def task(name: str, calls: list[str]) -> Task:
    def measure() -> Mapping[str, Any]:
        calls.append(name)
        return {"value": len(calls)}

    return Task({"name": name, "settings": {"b": 1, "a": 2}}, measure)


def test_only_missing_rows_run(tmp_path: Path) -> None:
    calls: list[str] = []
    file = tmp_path / "results.jsonl"
    run([task("one", calls), task("two", calls)], file, lambda row: None)
    run([task("one", calls), task("three", calls), task("two", calls)], file, lambda row: None)
    assert calls == ["one", "two", "three"]
    assert [row["name"] for row in read(file).values()] == ["one", "two", "three"]


def test_a_row_torn_by_a_kill_runs_again(tmp_path: Path) -> None:
    calls: list[str] = []
    file = tmp_path / "results.jsonl"
    run([task("one", calls), task("two", calls)], file, lambda row: None)
    file.write_bytes(file.read_bytes()[:-7])
    assert len(read(file)) == 1
    run([task("one", calls), task("two", calls)], file, lambda row: None)
    assert calls == ["one", "two", "two"]
    assert [row["name"] for row in read(file).values()] == ["one", "two"]


def test_settings_decide_the_row_and_their_order_does_not() -> None:
    assert Task({"a": 1, "b": 2}, dict).id == Task({"b": 2, "a": 1}, dict).id
    assert Task({"a": 1, "b": 2}, dict).id != Task({"a": 1, "b": 3}, dict).id


def test_a_row_that_a_living_process_runs_is_left_to_it(tmp_path: Path) -> None:
    calls: list[str] = []
    file = tmp_path / "results.jsonl"
    claim = tmp_path / f".results-{task('one', calls).id}.claim"
    claim.write_text(str(os.getppid()))
    run([task("one", calls)], file, lambda row: None)
    assert calls == []
    claim.write_text("999999999")  # no such process: it was killed
    run([task("one", calls)], file, lambda row: None)
    assert calls == ["one"]
    assert json.loads(file.read_text())["value"] == 1


def test_a_row_that_is_not_whole_runs_again_and_the_new_one_counts(tmp_path: Path) -> None:
    calls: list[str] = []
    file, whole = tmp_path / "results.jsonl", task("one", calls).id
    run([task("one", calls), task("two", calls)], file, lambda row: None)
    run([task("one", calls), task("two", calls)], file, lambda row: None, lambda id: id == whole)
    assert calls == ["one", "two", "two"]
    assert [row["value"] for row in read(file).values()] == [1, 3]
