"""What a run folder says about the training in it: what it depends on, and what it ran on."""

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from modalmix.data.split import Split
from modalmix.files import sha256_file
from modalmix.models.contract import ModelConfig, ModelType
from modalmix.train.settings import TrainConfig

MADE_WRONG = "items table made wrong"
_FREE = {"device", "progress", "tensorboard", "checkpoint_every"}  # may differ when a run goes on


def identity_of(model: ModelType, model_config: ModelConfig, train_config: TrainConfig, split: Split) -> dict[str, Any]:
    """All that decides the weights, named. Two trainings are the same run when all of it is equal."""
    source = sha256_file(model.name) if model.name.endswith(".py") else None
    settings = {f"model setting '{name}'": value for name, value in model_config.model_dump(mode="json").items()}
    settings |= {
        f"train setting '{name}'": value for name, value in train_config.model_dump(mode="json", exclude=_FREE).items()
    }
    return {
        "modalmix": version("modalmix"),
        "model": Path(model.name).stem,
        "model file": source,
        **settings,
        **data_identity(split),
    }


def data_identity(split: Split) -> dict[str, str]:
    """Content hash of the data set, the split and the features of each modality; what was made wrong on purpose."""
    modalities = split.dataset.catalog.modalities
    features = {f"features of '{name}'": modality.sha256 for name, modality in sorted(modalities.items())}
    wrong = {MADE_WRONG: split.dataset.made_wrong} if split.dataset.made_wrong else {}
    return {"data set": split.dataset.sha256, "split": split.sha256, **features, **wrong}


def describe(split: Split) -> dict[str, Any]:
    """Where the data came from, its sizes, the provenance of its features, how it was split."""
    dataset = split.dataset
    modalities = dataset.catalog.modalities.items()
    return {
        "source": None if dataset.source is None else str(dataset.source.resolve()),
        "dataset": {
            "name": dataset.name,
            "summary": _plain(dataset.summary()),
            "train": split.train_data().sha256,
            "provenance": {name: _plain(dict(modality.provenance)) for name, modality in modalities},
        },
        "split": {
            "kind": split.kind,
            "settings": _plain(split.settings),
            "cold_split": split.cold_split,
            "report": split.report,
        },
    }


def _plain(value: Any) -> Any:
    """The same as JSON has it; what JSON does not know becomes text."""
    return json.loads(json.dumps(value, default=str))


def versions() -> dict[str, str]:
    """Versions of Python and of what computes."""
    packages = ("modalmix", "torch", "numpy", "scipy", "polars", "lightning-fabric", "safetensors")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def now() -> str:
    """UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def shortened(value: Any) -> str:
    """A value for a message: hashes by their first 12 digits."""
    text = str(value)
    return text[:12] if len(text) >= 64 else text
