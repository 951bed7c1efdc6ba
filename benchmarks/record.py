"""What every results file keeps of a fit."""

import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modalmix.data import Dataset, Split
from modalmix.models.contract import ClosedFormRecommender, ModelConfig, ModelType
from modalmix.train import Fitted, TrainConfig, fit


def timed_fit(
    model: ModelType, split: Split, config: ModelConfig, train: TrainConfig, run_path: Path
) -> tuple[Fitted, dict[str, float]]:
    """A fit, and its CPU and wall seconds. It goes on where a killed one left `run_path`; all seconds count."""
    closed = issubclass(model.recommender, ClosedFormRecommender)  # nothing to go on from, and large ones
    forget_peak_memory()
    wall, cpu = time.perf_counter(), time.process_time()
    fitted = fit(model, split, config, train, None if closed else run_path)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return fitted, {
        "cpu_s": round(max(cpu, fitted.result.cpu_seconds), 2),
        "wall_s": round(max(wall, fitted.result.seconds), 2),
    }


def forget_peak_memory() -> None:
    """From here on the kernel counts the most memory of this process anew: a row's peak is its own, not of an earlier
    row. On Linux; elsewhere it stays the most of all rows so far."""
    counters = Path("/proc/self/clear_refs")
    if counters.exists():
        counters.write_text("5", encoding="utf-8")


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
