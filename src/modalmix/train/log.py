"""What training writes for people and tools to read: metrics.jsonl, TensorBoard events, a progress bar."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, final

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from modalmix.errors import ConfigError, RunError
from modalmix.files import atomic
from modalmix.train.checkpoint import TrainState
from modalmix.train.run import RunFolder
from modalmix.train.settings import TrainConfig

Row = Mapping[str, Any]


@final
class Log:
    """All three. Without a run folder only the progress bar; without `shown` nothing on the screen."""

    def __init__(self, run: RunFolder | None, config: TrainConfig, epochs: int, state: TrainState, shown: bool) -> None:
        if config.tensorboard and run is None and shown:
            raise ConfigError("tensorboard=True", got="no run folder", fix="Give a folder for the run.")
        self._files: list[MetricsFile | TensorBoard] = []
        if run is not None:
            self._files.append(MetricsFile(run.metrics, state.history))
            if config.tensorboard:
                self._files.append(TensorBoard(run.path / "tensorboard", state.epoch))
        self._bar = ProgressBar(config.metric, state.epoch, epochs, shown and config.progress)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def step(self, share: float, losses: Mapping[str, float]) -> None:
        """Somewhere in an epoch: `share` of it is done, `losses` are the means so far."""
        self._bar.step(share, losses)

    def epoch(self, state: TrainState) -> None:
        """An epoch has ended. Raises RunError when the disk is full."""
        for file in self._files:
            file.add(state.history[-1])
        self._bar.epoch(state)


@final
class MetricsFile:
    """metrics.jsonl: one JSON object an epoch. A row is written when its epoch ends.

    It starts from the rows of the checkpoint, so a resumed run has every epoch once.
    """

    def __init__(self, path: Path, rows: Sequence[Row]) -> None:
        self.path = path
        try:
            with atomic(path) as temporary:
                temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        except OSError as error:
            raise self._unwritable(error) from error

    def add(self, row: Row) -> None:
        """Append one epoch. Raises RunError when the disk is full."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> RunError:
        return RunError(
            f"{self.path} cannot be written", got=error, fix="Free some space and run the same command again."
        )


@final
class TensorBoard:
    """The same rows as TensorBoard events. Raises ConfigError when TensorBoard is not installed."""

    def __init__(self, folder: Path, epoch: int) -> None:
        """`epoch` is the last one trained; events after it, from before a kill, are dropped."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ConfigError(
                "tensorboard=True", got=error, fix="Install modalmix[tensorboard], or read metrics.jsonl."
            ) from error
        self._writer = SummaryWriter(str(folder), purge_step=epoch + 1)

    def add(self, row: Row) -> None:
        """One epoch's row."""
        numbers = {f"loss/{name}": value for name, value in row["loss"].items()}
        numbers |= {f"model/{name}": value for name, value in row["report"].items()}
        numbers |= {name: row[name] for name in ("score", "lr", "seconds") if row[name] is not None}
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, row["epoch"])
        self._writer.flush()


@final
class _WithReport(Progress):
    """A progress bar with what a model reports of its last epoch below."""

    report = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bar, then the report where there is one."""
        yield from super().get_renderables()
        if self.report:
            yield Text(self.report, style="dim")


@final
class ProgressBar:
    """Epochs done, time left, the last losses and the best validation score; below, what the model reports of itself.

    Silent where stderr is no terminal.
    """

    def __init__(self, metric: str, epoch: int, epochs: int, shown: bool) -> None:
        console = Console(stderr=True)
        self._progress = _WithReport(
            TextColumn("epoch {task.fields[epoch]}/{task.total:.0f}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[losses]}"),
            TextColumn("{task.fields[score]}"),
            console=console,
            refresh_per_second=2,
            disable=not (shown and console.is_terminal),
        )
        self._metric, self._done = metric, epoch
        self._task = self._progress.add_task("", total=epochs, completed=epoch, epoch=epoch, losses="", score="")

    def start(self) -> None:
        """Show it."""
        self._progress.start()

    def stop(self) -> None:
        """Leave the last state on the screen."""
        self._progress.stop()

    def step(self, share: float, losses: Mapping[str, float]) -> None:
        """Somewhere in an epoch."""
        self._progress.update(self._task, completed=self._done + min(share, 1.0), losses=_losses(losses))

    def epoch(self, state: TrainState) -> None:
        """An epoch has ended."""
        self._done = state.epoch
        score = ""
        if state.best_score is not None:
            score = f"best {self._metric} {state.best_score:.4f} (epoch {state.best_epoch})"
        row = state.history[-1]
        self._progress.report = "  ".join(f"{name} {value:.3g}" for name, value in row["report"].items())
        losses = _losses(row["loss"])
        self._progress.update(self._task, completed=state.epoch, epoch=state.epoch, losses=losses, score=score)


def _losses(losses: Mapping[str, float]) -> str:
    return " ".join(f"{name} {value:.4f}" for name, value in losses.items())
