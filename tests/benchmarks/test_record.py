"""A row of hours may be killed: its training goes on where it was, and the row is that of an unbroken run."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import benchmarks.record
import benchmarks.rows
from benchmarks.record import forget_peak_memory, record, timed_fit
from benchmarks.rows import Task, run, training_folder
from modalmix.data import Catalog, Dataset, IdMap, Interactions, Split
from modalmix.models.contract import find_model
from modalmix.train import TrainConfig, fit
from modalmix.train.device import peak_memory

QUIET = TrainConfig(progress=False, metric="recall@20", checkpoint_every=2)


@pytest.fixture
def split() -> Split:
    """20 users with 6 train and 2 validation items each, of 30."""
    rng = np.random.default_rng(0)
    liked = np.stack([rng.permutation(30)[:8] for _ in range(20)]).astype(np.int32)
    events = Interactions(np.repeat(np.arange(20, dtype=np.int32), 8), liked.ravel(), 20, 30)
    dataset = Dataset("tiny", IdMap(range(20), "user"), Catalog(IdMap(range(30)), {}), events)
    place = np.tile(np.arange(8), 20)
    return Split(dataset, events.take(place < 6), events.take(place >= 6), events.take(place < 0), kind="given")


def test_a_killed_row_goes_on_and_equals_an_unbroken_one(
    tmp_path: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = find_model("bprmf")
    config = model.config(dim=4, epochs=6, eval_every=1, batch_size=32)
    file = tmp_path / "rows.jsonl"
    trained: list[int] = []

    def measure() -> dict[str, Any]:
        fitted, seconds = timed_fit(model, split, config, QUIET, training_folder(task.id, tmp_path))
        weights = {name: value.tolist() for name, value in fitted.model.state_dict().items()}
        return {**record(fitted, split.dataset, split, QUIET, "test"), **seconds, "weights": weights}

    def stop_in(last: int) -> None:
        def start(self: Any, epoch: int) -> None:
            trained.append(epoch)
            if epoch == last:
                raise KeyboardInterrupt

        monkeypatch.setattr(model.recommender, "start_epoch", start)

    task = Task({"model": "bprmf"}, measure)
    stop_in(6)
    with pytest.raises(KeyboardInterrupt):
        run([task], file)
    assert not file.exists()
    stop_in(0)
    rows: list[dict[str, Any]] = []
    run([task], file, rows.append)
    assert trained == [1, 2, 3, 4, 5, 6, 5, 6]  # from the checkpoint after the 4th
    assert not training_folder(task.id, tmp_path).exists()

    run([task], tmp_path / "whole.jsonl", rows.append)
    broken, whole = rows
    for name in ("weights", "validation", "best_epoch", "epochs", "stopped", "config"):
        assert broken[name] == whole[name]
    assert broken["epochs"] == 6


def test_other_code_trains_in_another_folder_and_the_row_clears_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task({"model": "bprmf"}, lambda: {"value": 1})
    before = training_folder(task.id, tmp_path)
    monkeypatch.setattr(benchmarks.rows, "_code", lambda: "changed")
    after = training_folder(task.id, tmp_path)
    other = training_folder("another", tmp_path)
    assert before != after
    for folder in (before, after, other):
        folder.mkdir(parents=True)
    run([task], tmp_path / "rows.jsonl", lambda row: None)
    assert [before.exists(), after.exists(), other.exists()] == [False, False, True]


def test_a_trained_row_that_was_not_written_is_not_trained_again(tmp_path: Path, split: Split) -> None:
    model = find_model("bprmf")
    config = model.config(dim=4, epochs=3)
    first, _ = timed_fit(model, split, config, QUIET, tmp_path / "run")
    again, _ = timed_fit(model, split, config, QUIET, tmp_path / "run")
    assert again.result == first.result
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), first.model.parameters(), strict=True))


def test_the_seconds_of_every_part_count(tmp_path: Path, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    model = find_model("popularity")
    fitted = fit(model, split, model.config(), QUIET)
    hours = replace(fitted, result=replace(fitted.result, cpu_seconds=7000.0, seconds=9000.0))
    monkeypatch.setattr(benchmarks.record, "fit", lambda *given: hours)  # as it comes back when a part was done before
    assert timed_fit(model, split, model.config(), QUIET, tmp_path)[1] == {"cpu_s": 7000.0, "wall_s": 9000.0}
    short = replace(fitted, result=replace(fitted.result, cpu_seconds=0.0, seconds=0.0))

    def slow(*given: Any) -> Any:
        np.linalg.svd(np.ones((300, 300)))
        return short

    monkeypatch.setattr(benchmarks.record, "fit", slow)
    seconds = timed_fit(model, split, model.config(), QUIET, tmp_path)[1]
    assert 0 < seconds["cpu_s"] < 60
    assert 0 < seconds["wall_s"] < 60


def test_a_closed_form_leaves_nothing_behind(tmp_path: Path, split: Split) -> None:
    model = find_model("popularity")
    timed_fit(model, split, model.config(), QUIET, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="no /proc/self/clear_refs here")
def test_the_peak_of_an_earlier_row_is_forgotten() -> None:
    large = np.ones(50_000_000)
    before = peak_memory(torch.device("cpu"))
    del large
    forget_peak_memory()
    assert peak_memory(torch.device("cpu")) < before - 200_000_000
