"""Checkpoints of a training run.

    best.safetensors   the best weights                          header: epoch and validation score
    last.safetensors   weights and optimizer at an epoch's end   header: everything else the loop needs to go on

`best` is written before the `last` that names it: after a kill at any moment, `best` holds the best epoch of `last`, or
a later epoch that the resumed loop trains again.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from modalmix.errors import RunError, TrainError
from modalmix.train.run import RunFolder
from modalmix.train.tensors import model_tensors, read_tensors, write_tensors

_MODEL, _OPTIMIZER = "model/", "optimizer/"


@dataclass
class TrainState:
    """What the loop knows at the end of an epoch."""

    epoch: int = 0
    best_epoch: int = 0
    best_score: float | None = None
    waited: int = 0
    """Epochs without a better validation score, as early stopping counts them."""
    stopped: str | None = None
    """Why training ended; None while it goes on."""
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    """One row an epoch, as in metrics.jsonl."""

    def add(
        self,
        epoch: int,
        losses: dict[str, float],
        report: dict[str, float],
        score: float | None,
        lr: float,
        seconds: float,
        cpu_seconds: float,
        peak_memory: int,
    ) -> None:
        """An epoch has ended."""
        self.epoch = epoch
        self.seconds += seconds
        self.cpu_seconds += cpu_seconds
        cost = {"seconds": seconds, "cpu_seconds": cpu_seconds, "peak_memory": peak_memory}
        self.history.append({"epoch": epoch, "loss": losses, "report": report, "score": score, "lr": lr, **cost})


@final
class Checkpoints:
    """The best and the last state of a training: in a run folder, or, without one, only the best in memory."""

    def __init__(
        self, run: RunFolder | None, model: nn.Module, optimizer: torch.optim.Optimizer, precision: Any, writes: bool
    ) -> None:
        """`precision` is Fabric's precision plugin (it may own a loss scaler). Only one process `writes`."""
        self.run, self.model, self.optimizer, self.precision, self.writes = run, model, optimizer, precision, writes
        self._best: dict[str, Tensor] = {}
        self._saved = 0

    def resume(self) -> TrainState:
        """Restore the last checkpoint, or start at epoch 0. Raises RunError when it is torn or of another run."""
        if self.run is None or not self.run.last.exists():
            return TrainState()
        tensors, header = read_tensors(self.run.last)
        if header.get("run") != self.run.id:
            raise RunError(f"checkpoint {self.run.last}", got=f"run {header.get('run')}", expected=f"run {self.run.id}")
        state = TrainState(**header["state"])
        if state.best_epoch:
            _, best = read_tensors(self.run.best)
            if best["epoch"] < state.best_epoch:
                raise RunError(f"{self.run.best} is older than {self.run.last}", fix="Delete both to train afresh.")
        load_weights(self.run.last, self.model, _part(tensors, _MODEL))
        _load_optimizer(self.optimizer, _part(tensors, _OPTIMIZER), header["optimizer"])
        self.precision.load_state_dict(header["precision"])
        self._saved = state.epoch
        return state

    def keep_best(self, epoch: int, score: float | None) -> None:
        """Keep the weights as they are now as the best so far."""
        if self.run is None:
            self._best = {name: value.detach().clone() for name, value in model_tensors(self.model).items()}
        elif self.writes:
            write_tensors(self.run.best, model_tensors(self.model), {"epoch": epoch, "score": score})

    def restore_best(self) -> None:
        """Put the best weights back into the model."""
        if self.run is None:
            self.model.load_state_dict(self._best)
        else:
            load_weights(self.run.best, self.model, read_tensors(self.run.best)[0])

    def save(self, state: TrainState) -> None:
        """Write the state. Raises TrainError when a weight is not finite, RunError when the disk is full; either way
        the checkpoint before it is kept."""
        if self.run is None or not self.writes:
            return
        weights = model_tensors(self.model)
        for name, value in weights.items():
            if value.is_floating_point() and not torch.isfinite(value).all():
                raise TrainError(f"weight '{name}' is NaN or infinite after epoch {state.epoch}", fix="Lower lr.")
        moments, header = _optimizer_state(self.optimizer)
        tensors = {_MODEL + name: value for name, value in weights.items()}
        tensors |= {_OPTIMIZER + name: value for name, value in moments.items()}
        facts = {"run": self.run.id, "state": asdict(state), "optimizer": header}
        write_tensors(self.run.last, tensors, {**facts, "precision": self.precision.state_dict()})
        self._saved = state.epoch

    def how_to_go_on(self, epoch: int) -> str:
        """What to tell somebody who interrupted training in this epoch."""
        if self.run is None:
            return f"Training stopped in epoch {epoch}. Nothing is kept: there is no run folder."
        return (
            f"Training stopped in epoch {epoch}. The state after epoch {self._saved} is in {self.run.path}: "
            "run the same command again to go on from there."
        )


def load_weights(path: Path, model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put weights read from `path` into a model, all and only its own. Raises RunError when they do not fit."""
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise RunError(f"{path} does not fit the model", got=error, fix="Was the model's file changed?") from error


def _optimizer_state(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An optimizer's tensors, named "parameter/moment", and the rest of its state, JSON-able."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for parameter, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{parameter}/{name}"] = value
            else:
                numbers.setdefault(str(parameter), {})[name] = value
    return tensors, {"groups": state["param_groups"], "numbers": numbers}


def _load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
    """The inverse of `_optimizer_state`, in place."""
    state: dict[int, dict[str, Any]] = {int(key): dict(values) for key, values in header["numbers"].items()}
    for name, value in tensors.items():
        parameter, moment = name.split("/")
        state.setdefault(int(parameter), {})[moment] = value
    optimizer.load_state_dict({"state": state, "param_groups": header["groups"]})


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
