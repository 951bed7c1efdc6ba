"""Where training runs: device, precision and processes, randomness, and what it uses of the machine."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, final

import numpy as np
import torch

from modalmix.errors import ConfigError
from modalmix.nn.memory import keep_freed_memory
from modalmix.train.settings import TrainConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def open_fabric(config: TrainConfig) -> "Fabric":
    """Device, precision and processes, started. Raises ConfigError for what this machine does not have."""
    from lightning_fabric import Fabric

    keep_freed_memory()
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(config.device, True):
        raise ConfigError(f"device={config.device}", got="a machine without it", fix="Use device=auto or device=cpu.")
    if config.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # must be set before CUDA starts
    parallel = "ddp_find_unused_parameters_true" if config.devices > 1 else "auto"  # experts may get no example
    try:
        fabric = Fabric(
            accelerator=config.device,
            devices=config.devices,
            strategy=parallel if config.strategy == "auto" else config.strategy,
            precision=config.precision,
        )
        fabric.launch()
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConfigError(
            f"device={config.device}, devices={config.devices}, strategy={config.strategy}, "
            f"precision={config.precision} does not work here",
            got=error,
        ) from error
    return fabric


def seed_epoch(seed: int, epoch: int, rank: int) -> np.random.Generator:
    """All randomness of an epoch follows from (seed, epoch): nothing has to be saved to go on at an epoch's start.

    Returns the generator of batches, equal in every process; torch's own (dropout) differs between processes.
    """
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1)))
    return np.random.default_rng([seed, epoch])


@contextmanager
def deterministic(on: bool) -> Iterator[None]:
    """Deterministic algorithms inside the block; an operation that has none gives torch's warning."""
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(on or before[0], warn_only=before[1] if before[0] else True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # slow; no use here
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]


def peak_memory(device: torch.device) -> int:
    """The most bytes this process has held: on the GPU when it trains there, else in main memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


@final
class Clock:
    """Wall and CPU seconds since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    @property
    def seconds(self) -> float:
        """Wall seconds."""
        return time.perf_counter() - self._wall

    @property
    def cpu_seconds(self) -> float:
        """CPU seconds of this process, all threads."""
        return time.process_time() - self._cpu
