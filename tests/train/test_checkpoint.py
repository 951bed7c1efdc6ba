"""Going on after an interruption: no bit changes, and what does not fit is refused."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from modalmix.errors import RunError
from modalmix.models.contract import ModelType, Recommender
from modalmix.train import checkpoint, loop
from modalmix.train.loop import train
from modalmix.train.run import RunFolder
from modalmix.train.settings import TrainConfig
from modalmix.train.tensors import read_tensors

Train = Callable[..., tuple[Recommender[Any], Any]]


def scripted(*scores: float) -> Callable[[Recommender[Any]], float]:
    """A validation that gives these scores, then the last one for ever."""
    left = list(scores)
    return lambda model: left.pop(0) if len(left) > 1 else left[0]


def norm(model: Recommender[Any]) -> float:
    """A validation score that depends on the weights."""
    return -abs(float(model.state_dict()["users.weight"].norm()) - 12.0)


def _raising(validate: Callable[[Any], float], call: int) -> Callable[[Any], float]:
    calls: Iterator[int] = iter(range(1, 1000))

    def validation(model: Any) -> float:
        if next(calls) == call:
            raise KeyboardInterrupt
        return validate(model)

    return validation


@pytest.mark.parametrize("stop_at", [1, 2, 5])
@pytest.mark.parametrize("checkpoint_every", [1, 2])
def test_an_interruption_changes_no_bit(
    tmp_path: Path,
    train_tiny: Train,
    quiet: TrainConfig,
    same_bits: Callable[..., bool],
    stop_at: int,
    checkpoint_every: int,
) -> None:
    whole, expected = train_tiny(tmp_path / "whole", norm)
    epoch = 0

    def interrupted(model: Recommender[Any]) -> float:
        nonlocal epoch
        epoch += 1
        if epoch == stop_at:
            raise KeyboardInterrupt
        return norm(model)

    config = quiet.replace(checkpoint_every=checkpoint_every)
    kept = (stop_at - 1) // checkpoint_every * checkpoint_every
    with pytest.raises(KeyboardInterrupt, match=rf"epoch {stop_at}. The state after epoch {kept} .* same command"):
        train_tiny(tmp_path / "cut", interrupted, config)
    torch.rand(3)
    model, result = train_tiny(tmp_path / "cut", norm, config)
    assert same_bits(model, whole)
    assert (result.best_epoch, result.best_score) == (expected.best_epoch, expected.best_score)
    for name in ("last", "best"):
        ours, _ = read_tensors(tmp_path / "cut" / f"{name}.safetensors")
        theirs, _ = read_tensors(tmp_path / "whole" / f"{name}.safetensors")
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    rows = [json.loads(line) for line in (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5, 6]
    for part in ("loss", "report", "score", "lr"):
        assert [row[part] for row in rows] == [row[part] for row in expected.history]


def test_patience_and_the_latch_are_remembered(tmp_path: Path, train_tiny: Train) -> None:
    scores = [0.3, 0.2, 0.2, 0.2, 0.2, 0.2]
    calls: list[int] = []

    def cut_every_second(model: Recommender[Any]) -> float:
        calls.append(1)
        if len(calls) % 2 == 0:
            raise KeyboardInterrupt
        return scores.pop(0)

    stopped = None
    while stopped is None:
        try:
            _, stopped = train_tiny(tmp_path / "run", cut_every_second, epochs=50, patience=3, settle_at=2)
        except KeyboardInterrupt:
            continue
    assert (stopped.best_epoch, stopped.epochs, stopped.stopped) == (1, 4, "patience")
    assert read_tensors(tmp_path / "run" / "last.safetensors")[0]["model/latch"] == 2


def test_a_report_is_kept_with_its_epoch(tmp_path: Path, train_tiny: Train) -> None:
    """The latch closes in epoch 2: the report of epoch 3 is the first to say so, whatever was cut when."""
    with pytest.raises(KeyboardInterrupt):
        train_tiny(tmp_path / "run", _raising(norm, 4), settle_at=2)
    kept = read_tensors(tmp_path / "run" / "last.safetensors")[1]["state"]["history"]
    assert [row["report"]["latch"] for row in kept] == [0.0, 0.0, 2.0]
    _, result = train_tiny(tmp_path / "run", norm, settle_at=2)
    assert [row["report"]["latch"] for row in result.history] == [0.0, 0.0, 2.0, 2.0, 2.0, 2.0]
    assert [row["report"] for row in result.history[:3]] == [row["report"] for row in kept]


def test_a_finished_training_is_not_trained_again(tmp_path: Path, train_tiny: Train, monkeypatch: Any) -> None:
    _, first = train_tiny(tmp_path / "run", norm)
    monkeypatch.setattr(loop, "train_epoch", lambda *_: pytest.fail("trained again"))
    _, second = train_tiny(tmp_path / "run", norm)
    assert second.history == first.history


def test_a_checkpoint_of_another_run(tmp_path: Path, train_tiny: Train, tiny: ModelType, split: Any) -> None:

    train_tiny(tmp_path / "run")
    model = tiny.recommender(tiny.config(), split.train_data())
    with pytest.raises(RunError, match="got run run-1, expected run run-2"):
        train(model, split.train_data(), TrainConfig(progress=False), None, RunFolder(tmp_path / "run", "run-2"))


def test_a_model_that_changed(tmp_path: Path, train_tiny: Train) -> None:
    train_tiny(tmp_path / "run")
    with pytest.raises(RunError, match="does not fit the model"):
        train_tiny(tmp_path / "run", dim=9)


def test_best_older_than_last(tmp_path: Path, train_tiny: Train) -> None:
    train_tiny(tmp_path / "run", scripted(0.1), epochs=1)
    old = (tmp_path / "run" / "best.safetensors").read_bytes()
    train_tiny(tmp_path / "other", scripted(0.1, 0.2), epochs=2)
    (tmp_path / "other" / "best.safetensors").write_bytes(old)
    with pytest.raises(RunError, match="is older than"):
        train_tiny(tmp_path / "other")


def test_disk_full_keeps_the_older_checkpoint(
    tmp_path: Path, train_tiny: Train, same_bits: Callable[..., bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = train_tiny(tmp_path / "whole", norm)
    write = checkpoint.write_tensors

    def fills_up(path: Path, tensors: Any, header: Any) -> None:
        if path.name == "last.safetensors" and header["state"]["epoch"] == 4:
            raise RunError("checkpoint cannot be written", got="No space left on device")
        write(path, tensors, header)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "write_tensors", fills_up)
        with pytest.raises(RunError, match="No space left"):
            train_tiny(tmp_path / "full", norm)
    assert read_tensors(tmp_path / "full" / "last.safetensors")[1]["state"]["epoch"] == 3
    assert same_bits(train_tiny(tmp_path / "full", norm)[0], whole)


def test_other_optimizers(tmp_path: Path, train_tiny: Train, tiny: ModelType, monkeypatch: Any, same_bits: Any) -> None:
    """One with state that is not all tensors, and one with two groups of parameters."""

    def two_groups(self: Any) -> torch.optim.Optimizer:
        groups = [{"params": [self.users.weight]}, {"params": [self.items.weight], "lr": 0.1}]
        return torch.optim.NAdam(groups, lr=0.01)

    monkeypatch.setattr(tiny.recommender, "optimizer", two_groups)
    whole, _ = train_tiny(tmp_path / "whole", norm)
    with pytest.raises(KeyboardInterrupt):
        train_tiny(tmp_path / "cut", _raising(norm, 4))
    assert same_bits(train_tiny(tmp_path / "cut", norm)[0], whole)
