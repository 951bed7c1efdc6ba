"""What every results file keeps of a fit."""

import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from modalmix.data import Dataset, Split
from modalmix.train import Fitted, TrainConfig


def timed(fit: Callable[[], Fitted]) -> tuple[Fitted, dict[str, float]]:
    """A fit, and its CPU and wall seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    fitted = fit()
    return fitted, {
        "cpu_s": round(time.process_time() - cpu, 2),
        "wall_s": round(time.perf_counter() - wall, 2),
    }


def record(fitted: Fitted, dataset: Dataset, split: Split, train: TrainConfig, command: str) -> dict[str, Any]:
    """Settings, hashes, how training went, versions, JSON-able."""
    result, history = fitted.result, fitted.result.history
    return {
        "config": fitted.model.config.model_dump(mode="json"),
        "train": train.model_dump(mode="json"),
        "best_epoch": result.best_epoch,
        "epochs": result.epochs,
        "stopped": result.stopped,
        "validation": result.best_score,
        "prior_factor": result.prior_factor,
        "epoch_cpu_s": round(float(np.median([row["cpu_seconds"] for row in history])), 2) if history else None,
        "peak_memory": result.peak_memory,
        "split_sha256": split.sha256,
        "features": {name: m.sha256 for name, m in dataset.catalog.modalities.items()},
        "command": command,
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "threads": torch.get_num_threads(),
    }
