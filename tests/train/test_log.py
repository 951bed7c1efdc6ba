"""Rows, events and the bar."""

import errno
import importlib.util
import json
import os
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from modalmix.errors import ConfigError, RunError
from modalmix.train import log
from modalmix.train.checkpoint import TrainState
from modalmix.train.log import Log, MetricsFile, ProgressBar, TensorBoard
from modalmix.train.run import RunFolder
from modalmix.train.settings import TrainConfig

REPORT = {"H_use": 0.9, "H_route": 0.75, "stage": 2.0, "load/first": 0.125}


def state(epochs: int) -> TrainState:
    state = TrainState(best_epoch=1, best_score=0.123456)
    for epoch in range(1, epochs + 1):
        state.add(epoch, {"bpr": 0.5, "reg": 0.25}, REPORT, 0.1, 0.001, 2.0, 1.5, 10)
    return state


def test_a_row_has_everything() -> None:
    assert state(1).history == [
        {
            "epoch": 1,
            "loss": {"bpr": 0.5, "reg": 0.25},
            "report": REPORT,
            "score": 0.1,
            "lr": 0.001,
            "seconds": 2.0,
            "cpu_seconds": 1.5,
            "peak_memory": 10,
        }
    ]
    assert (state(3).epoch, state(3).seconds, state(3).cpu_seconds) == (3, 6.0, 4.5)


def test_rows_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1}\n{"epoch": 2}\n{"epoch": 3}\n{"epo')  # killed after the checkpoint of epoch 2
    file = MetricsFile(path, [{"epoch": 1}, {"epoch": 2}])
    file.add({"epoch": 3})
    assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 2, 3]


def test_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = MetricsFile(tmp_path / "metrics.jsonl", [])

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(RunError, match=r"metrics.jsonl cannot be written: got .*No space left"):
        file.add({"epoch": 1})


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is not None, reason="TensorBoard is installed")
def test_tensorboard_that_is_not_installed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Install modalmix\[tensorboard\]"):
        Log(RunFolder(tmp_path, "run"), TrainConfig(tensorboard=True), 5, TrainState(), True)


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is None, reason="TensorBoard is not installed")
def test_tensorboard(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with Log(RunFolder(tmp_path, "run"), TrainConfig(tensorboard=True), 5, TrainState(), False) as told:
        told.epoch(state(1))
        told.epoch(state(2))
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss/reg")] == [(1, 0.25), (2, 0.25)]
    assert [(event.step, event.value) for event in events.Scalars("model/load/first")] == [(1, 0.125), (2, 0.125)]


def test_names_of_scalars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a writer that only remembers: this needs no TensorBoard."""
    told: dict[str, tuple[float, int]] = {}

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None: ...

        def add_scalar(self, name: str, value: float, epoch: int) -> None:
            told[name] = (value, epoch)

        def flush(self) -> None: ...

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    TensorBoard(tmp_path, 0).add(state(2).history[-1])
    assert told == {
        "loss/bpr": (0.5, 2),
        "loss/reg": (0.25, 2),
        **{f"model/{name}": (value, 2) for name, value in REPORT.items()},
        "score": (0.1, 2),
        "lr": (0.001, 2),
        "seconds": (2.0, 2),
    }


def test_tensorboard_without_a_folder() -> None:
    with pytest.raises(ConfigError, match="got no run folder"):
        Log(None, TrainConfig(tensorboard=True), 5, TrainState(), True)


def bar(monkeypatch: pytest.MonkeyPatch, terminal: bool) -> tuple[ProgressBar, Console]:
    console = Console(force_terminal=terminal, width=180, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    monkeypatch.setattr(log, "Console", lambda **_: console)
    return ProgressBar("recall@20", 0, 10, True), console


def test_the_bar_tells_epoch_losses_and_best(monkeypatch: pytest.MonkeyPatch) -> None:
    told, console = bar(monkeypatch, True)
    told.start()
    told.step(0.5, {"bpr": 0.7})
    told.epoch(state(4))
    told.step(0.5, {"bpr": 0.4, "reg": 0.2})
    told.stop()
    text = console.export_text()
    assert "epoch 4/10" in text
    assert "bpr 0.4000 reg 0.2000" in text
    assert "H_use 0.9  H_route 0.75  stage 2  load/first 0.125" in text
    assert "best recall@20 0.1235 (epoch 1)" in text


def test_no_bar_where_there_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    told, console = bar(monkeypatch, False)
    told.start()
    told.epoch(state(4))
    told.stop()
    assert console.export_text().strip() == ""


def test_the_loop_shows_losses_within_an_epoch(train_tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from modalmix.train import loop

    shares: list[float] = []
    monkeypatch.setattr(loop, "CHECK_EVERY", 2)
    monkeypatch.setattr(Log, "step", lambda self, share, losses: shares.append(share) or losses["bpr"])
    train_tiny(epochs=1)  # 240 events, 64 a batch: 4 steps
    assert shares == [0.5, 1.0]
