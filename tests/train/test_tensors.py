"""Files of tensors: round trips, odd tensors, torn files, a full disk, Ctrl-C while writing."""

import errno
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from modalmix.errors import ModelError, RunError
from modalmix.train import tensors
from modalmix.train.tensors import model_tensors, not_interrupted, read_tensors, write_tensors


def test_round_trip_of_odd_tensors(tmp_path: Path) -> None:
    base = torch.arange(12.0).reshape(3, 4)
    values = {
        "base": base,
        "same": base,  # shared memory
        "transposed": base.T,
        "column": base[:, 1],
        "scalar": torch.tensor(3, dtype=torch.int64),
        "empty": torch.empty(0, 4),
        "half": torch.tensor([1.5, 2.5], dtype=torch.bfloat16),
        "mask": torch.tensor([True, False]),
    }
    write_tensors(tmp_path / "x.safetensors", values, {"epoch": 3, "score": 0.1 + 0.2, "none": None})
    read, header = read_tensors(tmp_path / "x.safetensors")
    assert header == {"epoch": 3, "score": 0.1 + 0.2, "none": None}
    assert read.keys() == values.keys()
    for name, value in values.items():
        assert read[name].dtype == value.dtype
        assert torch.equal(read[name], value)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_a_torn_file_is_an_error(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(100)}, {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RunError, match=r"x.safetensors cannot be read"):
        read_tensors(path)


def test_a_missing_file_and_one_of_another_tool(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    with pytest.raises(RunError, match="cannot be read"):
        read_tensors(tmp_path / "none.safetensors")
    save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(RunError, match="expected a checkpoint written by modalmix"):
        read_tensors(tmp_path / "other.safetensors")


def test_a_write_that_fails_half_way_keeps_the_old_file(tmp_path: Path) -> None:
    """A limit on file sizes makes the real write fail, as a full disk does."""
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"a": torch.ones(10)}, {"epoch": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(RunError, match=r"cannot be written.*The one before it is kept"):
            write_tensors(path, {"a": torch.ones(1_000_000)}, {"epoch": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_tensors(path)[1] == {"epoch": 1}
    assert [one.name for one in tmp_path.iterdir()] == ["x.safetensors"]


def test_disk_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tensors, "save_file", full)
    with pytest.raises(RunError, match=r"No space left on device.*Free some space"):
        write_tensors(tmp_path / "x.safetensors", {"a": torch.ones(1)}, {})
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises, also where the tests run in the background of a shell, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_waits_for_the_end_of_the_write() -> None:
    done = []

    def write() -> None:
        with not_interrupted():
            os.kill(os.getpid(), signal.SIGINT)
            done.append("write")

    with pytest.raises(KeyboardInterrupt):
        write()
    assert done == ["write"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_state_that_is_no_dense_tensor() -> None:
    model = nn.Module()
    model.register_buffer("graph", torch.eye(3).to_sparse())
    with pytest.raises(ModelError, match="'graph' cannot be saved"):
        model_tensors(model)
