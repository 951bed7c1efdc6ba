"""Named tensors and a JSON header in one safetensors file that is never torn. No pickle."""

import json
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from modalmix.errors import ModelError, RunError
from modalmix.files import atomic

_HEADER = "modalmix"


def model_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and persistent buffers by name. Raises ModelError for state that is not a dense tensor."""
    tensors = dict(model.state_dict())
    for name, value in tensors.items():
        if not isinstance(value, Tensor) or value.layout is not torch.strided:
            kind = value.layout if isinstance(value, Tensor) else type(value).__name__
            raise ModelError(
                f"state '{name}' cannot be saved",
                got=kind,
                expected="a dense tensor",
                fix="Register its parts as buffers, or make it again from the data (persistent=False).",
            )
    return tensors


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Write tensors and a JSON header so that `path` is the old file or the whole new one. Raises RunError."""
    seen: set[int] = set()
    flat: dict[str, Tensor] = {}
    for name, value in tensors.items():
        value = value.detach().cpu().contiguous()
        place = value.untyped_storage().data_ptr()
        flat[name] = value.clone() if place in seen else value  # the format stores no shared memory
        seen.add(place)
    text = json.dumps(header, allow_nan=False)
    try:
        with not_interrupted(), atomic(path) as temporary:
            save_file(flat, temporary, metadata={_HEADER: text})
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"checkpoint {path} cannot be written",
            got=error,
            fix="The one before it is kept. Free some space and run the same command again: training goes on from it.",
        ) from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a checkpoint. Raises RunError when it is missing, torn or of another tool."""
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})[_HEADER])
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 not a dict
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise RunError(
            f"checkpoint {path} cannot be read", got=error, expected="a checkpoint written by modalmix"
        ) from error


@contextmanager
def not_interrupted() -> Iterator[None]:
    """Hold back Ctrl-C until the end of the block. Outside the main thread, where none arrives, does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[tuple[int, FrameType | None]] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: waiting.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if waiting and callable(before):
        before(*waiting[0])
