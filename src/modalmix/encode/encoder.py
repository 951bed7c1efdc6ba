"""What an encoder is: it decodes the bytes of one content and turns batches of decoded contents into vectors."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

import numpy as np
from jaxtyping import Float32

from modalmix.config import Config
from modalmix.errors import EncodeError

if TYPE_CHECKING:
    import torch

Decoded = TypeVar("Decoded")


class EncoderConfig(Config):
    """What all encoders can be told."""

    encoder: str
    """The bundled encoder, or hf:NAME (hf:NAME@REVISION) for a Hugging Face model, or hf:FOLDER for one on disk."""
    batch_size: int = 16
    """Contents a batch."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes the accelerator where there is one."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the encoder; bfloat16 is 2 to 3 times faster where the processor has it, exact to about 1 %."""
    dtype: Literal["float32", "float16"] = "float32"
    """How features are stored; float16 halves them."""


class UnreadableError(Exception):
    """One content cannot be decoded: it becomes absent, with this reason in the report. Never leaves this package."""


class Encoder(ABC, Generic[Decoded]):
    """An encoder of one modality. Building it is cheap and says who it is; only `load` reads the weights."""

    modality: str

    @property
    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Everything a vector depends on besides the content: weights, preprocessing, pooling. JSON-able."""

    @abstractmethod
    def load(self) -> None:
        """Load the weights. Raises EncodeError."""

    @abstractmethod
    def decode(self, content: bytes) -> Decoded:
        """What `vectors` takes, from the bytes of one content; called by several threads. Raises UnreadableError."""

    @abstractmethod
    def blank(self) -> Decoded:
        """An empty content, decoded: encoding it tells the dim when there is nothing else to encode."""

    @abstractmethod
    def vectors(self, batch: Sequence[Decoded]) -> Float32[np.ndarray, "batch dim"]:
        """The vectors of a batch. A row does not depend on the other contents of its batch (beyond 1e-5)."""


def choose_device(name: str) -> "torch.device":
    """The device of that name; `auto` is the accelerator, else the CPU. Raises EncodeError when it is not there."""
    import torch

    if name == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return accelerator or torch.device("cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise EncodeError(f"device '{name}' cannot be used", got=reason, fix="Use device=auto or device=cpu.") from None
    return device


@contextmanager
def inference(device: "torch.device", precision: str) -> Iterator[None]:
    """No gradients, arithmetic in `precision`. Raises EncodeError when the device's memory does not suffice."""
    import torch

    try:
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            yield
    except torch.OutOfMemoryError as error:
        raise EncodeError(f"{device} has no memory left for this batch", fix="Use a smaller batch_size.") from error
