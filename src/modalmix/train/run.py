"""The run folder: everything about one training, enough to check it, to go on with it and to serve it.

run.json            the record: versions, command, settings, content hashes, times, how often the test split was opened
model.yaml          settings of the model            train.yaml   settings of training
split.parquet       the split it was trained on      metrics.jsonl   one row an epoch
best.safetensors    the best weights                 last.safetensors   the state to go on from
NAME.json           evaluations
"""

import fcntl
import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from modalmix.data.split import Split, TrainData
from modalmix.errors import RunError
from modalmix.files import atomic, read_json, sha256_file, sha256_values, write_json
from modalmix.models.contract import ModelConfig, ModelType, find_model
from modalmix.train.record import MADE_WRONG, data_identity, describe, identity_of, now, shortened, versions
from modalmix.train.settings import TrainConfig

FORMAT = 1
_RECORD = "run.json"
_LEFTOVERS = (".run.*.json", ".model.*.yaml", ".train.*.yaml", ".split.*.parquet", ".metrics.*.jsonl")
_BIG_LEFTOVERS = (".best.*.safetensors", ".last.*.safetensors", ".tmp*")  # safetensors writes .tmp* itself


@final
@dataclass(frozen=True)
class RunFolder:
    """A folder made by `create` or opened by `open`. `id` names the run: a hash of settings and data."""

    path: Path
    id: str

    @classmethod
    def create(
        cls,
        path: Path | str,
        model: ModelType,
        model_config: ModelConfig,
        train_config: TrainConfig,
        split: Split,
        record: Mapping[str, Any] | None = None,
    ) -> "RunFolder":
        """A new run in a new or empty folder, or the run that is there already, to go on with it.

        `record` adds to run.json, e.g. how the data set was read: {"source": path, "data": settings}.

        Raises RunError when the folder holds something else, naming the first difference, when another process is
        training in it, or when it cannot be written.
        """
        identity = identity_of(model, model_config, train_config, split)
        run = cls(Path(path), sha256_values(identity))
        if run.path.exists() and not run.path.is_dir():
            raise RunError(f"{path} is a file", expected="a folder", fix="Choose another folder.")
        if (run.path / _RECORD).exists():
            run._check_same(identity)
        elif run.path.exists() and any(not one.name.startswith(".") for one in run.path.iterdir()):
            raise RunError(f"folder {path} is not empty and holds no run", fix="Choose another folder.")
        try:
            run.path.mkdir(parents=True, exist_ok=True)
            with run.locked():
                run._write_start(identity, model, model_config, train_config, split, record or {})
        except OSError as error:
            raise RunError(f"run folder {path} cannot be written", got=error) from error
        return run

    @classmethod
    def open(cls, path: Path | str) -> "RunFolder":
        """The finished run in a folder. Raises RunError when there is none, or it is incomplete or torn."""
        path = Path(path)
        if not (path / _RECORD).is_file():
            raise RunError(f"{path} is not a run folder", expected=f"a folder with {_RECORD}")
        run = cls(path, "")
        record = run.record
        run = cls(path, record["id"])
        if record["finished"] is None:
            raise RunError(f"the run in {path} is not finished", fix="Run the same command again: it goes on.")
        for file in (run.best, run.split):
            if not file.is_file():
                raise RunError(f"the run in {path} is incomplete", got=f"no {file.name}", fix="Train it again.")
        return run

    @property
    def best(self) -> Path:
        """The best weights."""
        return self.path / "best.safetensors"

    @property
    def last(self) -> Path:
        """The state to go on from."""
        return self.path / "last.safetensors"

    @property
    def metrics(self) -> Path:
        """One JSON row an epoch."""
        return self.path / "metrics.jsonl"

    @property
    def split(self) -> Path:
        """The split, for `modalmix.data.splitters.read_split`."""
        return self.path / "split.parquet"

    @property
    def record(self) -> dict[str, Any]:
        """What run.json says now. Raises RunError when it is torn or of another version."""
        try:
            record = read_json(self.path / _RECORD)
            found = record["format"]
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
            raise RunError(f"{self.path / _RECORD} cannot be read", got=error) from error
        if found != FORMAT:
            raise RunError(f"{self.path / _RECORD}", got=f"format {found}", expected=f"format {FORMAT}")
        return record

    @property
    def is_finished(self) -> bool:
        """Whether training has ended."""
        return self.record["finished"] is not None

    @property
    def model_type(self) -> ModelType:
        """The model's class and settings class.

        Raises ModelError when it is not there any more, RunError when its file was changed after the training.
        """
        record = self.record
        self._check_model_file(record["model"]["name"], record["identity"].get("model file"))
        return find_model(record["model"]["name"])

    @property
    def model_config(self) -> ModelConfig:
        """The settings it was trained with. Raises ConfigError when the model has other settings now."""
        return self.model_type.config.recorded(self.record["model"]["config"])

    @property
    def train_config(self) -> TrainConfig:
        """How it was trained."""
        return TrainConfig.parse(self.record["train"])

    def history(self) -> tuple[dict[str, Any], ...]:
        """The rows of metrics.jsonl; none for a model learnt in one pass."""
        if not self.metrics.exists():
            return ()
        return tuple(json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines())

    def finish(self, result: Mapping[str, Any]) -> None:
        """Training has ended: add what it gave to the record. The caller holds the lock."""
        write_json(self.path / _RECORD, {**self.record, "finished": now(), "result": dict(result)})

    def count_test_opening(self) -> int:
        """Count that the test split is opened; returns how often it has been. Safe with several processes."""
        with self.locked(wait=True):
            record = self.record
            record["test_opened"] += 1
            write_json(self.path / _RECORD, record)
            return int(record["test_opened"])

    def write_evaluation(self, name: str, values: Mapping[str, Any]) -> Path:
        """Keep an evaluation as NAME.json."""
        path = self.path / f"{name}.json"
        if path.name == _RECORD:
            raise RunError("an evaluation cannot be named 'run'", fix="Choose another name.")
        write_json(path, dict(values))
        return path

    def check_data(self, split: Split) -> None:
        """Raise RunError, naming what differs, unless this run was trained on this split of this data set."""
        there, here = self.record["identity"], data_identity(split)
        for name in dict.fromkeys([*here, MADE_WRONG]):
            value = here.get(name)
            if there.get(name) != value:
                source = self.record["dataset"]["name"]
                raise RunError(
                    f"{self.path} is a run folder from another data set: the {name} differs",
                    got=f"{shortened(value or 'nothing')} (data set '{split.dataset.name}')",
                    expected=f"{shortened(there.get(name) or 'nothing')} (data set '{source}')",
                    fix="Give the data set and features it was trained on.",
                )

    def check_train_data(self, data: TrainData) -> None:
        """The same for the train part alone."""
        expected = self.record["dataset"]["train"]
        if data.sha256 != expected:
            raise RunError(
                f"{self.path} is a run folder from another data set: the train part or its features differ",
                got=data.sha256[:12],
                expected=expected[:12],
            )

    @contextmanager
    def locked(self, wait: bool = False) -> Iterator[None]:
        """Only one process at a time. The lock ends with its process. Raises RunError when another one has it."""
        handle = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            yield
        except BlockingIOError as error:
            raise RunError(f"another process is training in {self.path}", fix="Wait for it, or stop it.") from error
        finally:
            os.close(handle)

    def _check_model_file(self, name: str, expected: str | None) -> None:
        """A model of modalmix has no hash of its own; of a file that is gone `find_model` tells."""
        if expected is None or not Path(name).is_file():
            return
        found = sha256_file(name)
        if found != expected:
            raise RunError(
                f"model file {name} was changed after the run in {self.path} was trained",
                got=shortened(found),
                expected=shortened(expected),
                fix="Restore the file, or train again in another folder.",
            )

    def _check_same(self, identity: Mapping[str, Any]) -> None:
        there = self.record["identity"]
        for name in sorted(there.keys() | identity.keys()):
            if there.get(name) != identity.get(name):
                raise RunError(
                    f"folder {self.path} holds another run: its {name} differs",
                    got=shortened(identity.get(name)),
                    expected=shortened(there.get(name)),
                    fix="Choose another folder, or the same settings and data to go on.",
                )

    def _write_start(
        self,
        identity: Mapping[str, Any],
        model: ModelType,
        model_config: ModelConfig,
        train_config: TrainConfig,
        split: Split,
        record: Mapping[str, Any],
    ) -> None:
        from modalmix.data.splitters import write_split

        for pattern in (*_LEFTOVERS, *_BIG_LEFTOVERS):
            for leftover in self.path.glob(pattern):
                leftover.unlink()
        name = str(Path(model.name).resolve()) if model.name.endswith(".py") else model.name
        if not (self.path / _RECORD).exists():
            write_json(
                self.path / _RECORD,
                {
                    "format": FORMAT,
                    "id": self.id,
                    "started": now(),
                    "finished": None,
                    "test_opened": 0,
                    "command": sys.argv,
                    "versions": versions(),
                    "threads": torch.get_num_threads(),
                    "model": {"name": name, "config": model_config.model_dump(mode="json")},
                    "train": train_config.model_dump(mode="json"),
                    **describe(split),
                    "identity": identity,
                    **record,
                },
            )
        if not self.split.exists():
            write_split(split, self.split)
        for name, config in (("model.yaml", model_config), ("train.yaml", train_config)):
            with atomic(self.path / name) as temporary:
                config.write(temporary)
