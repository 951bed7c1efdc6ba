import errno
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest

import modalmix.data.write as module
from modalmix.data import read_folder, write_folder, write_modality
from modalmix.errors import DataError
from modalmix.files import sha256_file


def contents(path):
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def test_round_trip(folder, tmp_path):
    data = read_folder(folder)
    write_folder(data, tmp_path / "copy")
    again = read_folder(tmp_path / "copy")
    assert again.users.series.to_list() == data.users.series.to_list()
    assert again.sha256 == data.sha256
    assert again.catalog.table.equals(data.catalog.table)
    one, other = data.catalog.modality("image"), again.catalog.modality("image")
    assert one.present.tolist() == other.present.tolist()
    assert one.matrix().tolist() == other.matrix().tolist()
    assert one.features.dtype == other.features.dtype
    raw = np.load(tmp_path / "copy" / "image.npy")
    assert np.isnan(raw).all(axis=1).tolist() == [False, False, True, True]
    sidecar = json.loads((tmp_path / "copy" / "image.json").read_text())
    assert sidecar["dim"] == 2
    assert sidecar["ids"] == ["c", "a", "b", "d"]
    assert sidecar["sha256"] == sha256_file(tmp_path / "copy" / "image.npy")


def test_labels_and_an_order_survive(dataset_of, tmp_path):
    data = dataset_of([0, 0, 1], [0, 1, 0], time=[1, 2, 1], labels=["train", "test", "train"])
    write_folder(data, tmp_path / "out")
    assert pl.read_parquet(tmp_path / "out" / "interactions.parquet").columns == ["user", "item", "order", "split"]
    assert read_folder(tmp_path / "out").sha256 == data.sha256


def test_nothing_is_overwritten_unasked(folder, tmp_path):
    data, before = read_folder(folder), contents(folder)
    with pytest.raises(DataError, match="is there already"):
        write_folder(data, folder)
    assert contents(folder) == before
    with pytest.raises(DataError, match="is a file"):
        write_folder(data, folder / "items.parquet")
    (tmp_path / "empty").mkdir()
    write_folder(data, tmp_path / "empty")


def test_overwriting_replaces_a_data_set_but_never_other_files(folder, dataset_of):
    data = read_folder(folder)
    write_folder(data, folder, overwrite=True)
    assert read_folder(folder).sha256 == data.sha256
    assert data.catalog.modality("image").matrix().tolist()[0] == [1, 2]  # the map of the old file still reads
    write_folder(dataset_of([0, 1], [0, 1]), folder, overwrite=True)
    assert set(contents(folder)) == {"interactions.parquet", "items.parquet"}
    (folder / "images").mkdir()
    before = contents(folder)
    with pytest.raises(DataError, match="holds more than a data set: got images"):
        write_folder(data, folder, overwrite=True)
    assert contents(folder) == before


def test_a_full_disk_by_monkeypatch(folder, tmp_path, monkeypatch):
    data, before = read_folder(folder), contents(folder)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_write_rows", full)
    with pytest.raises(DataError, match="No space left on device.*Nothing was changed"):
        write_folder(data, tmp_path / "new")
    with pytest.raises(DataError, match="No space left"):
        write_folder(data, folder, overwrite=True)
    assert contents(folder) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small"]


@pytest.mark.parametrize("size", [0, 100, 3_000])
def test_a_disk_that_is_really_full(folder, tmp_path, disk_of, size):
    np.save(folder / "image.npy", np.ones((4, 10_000), dtype=np.float32))
    data, before = read_folder(folder), contents(folder)
    with disk_of(size), pytest.raises(DataError, match="cannot be written"):
        write_folder(data, tmp_path / "new")
    with disk_of(size), pytest.raises(DataError, match="cannot be written"):
        write_folder(data, folder, overwrite=True)
    assert contents(folder) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small"]


def test_a_kill_leaves_no_data_set_or_a_whole_one(folder, tmp_path):
    np.save(folder / "image.npy", np.ones((4, 2_000_000), dtype=np.float32))
    program = f"from modalmix.data import *; write_folder(read_folder({str(folder)!r}), {str(tmp_path / 'new')!r})"
    process = subprocess.Popen([sys.executable, "-c", program], env={**os.environ})
    deadline = time.monotonic() + 60
    while process.poll() is None and not list(tmp_path.glob(".new.*/new/.image*")) and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "new").exists() or len(read_folder(tmp_path / "new").interactions) == 6


def test_write_modality_beside_a_data_set(folder, dataset_of):
    data = read_folder(folder)
    modality = data.catalog.modality("image")
    with pytest.raises(DataError, match=r"image.npy is there already"):
        write_modality(modality, data.catalog.items, folder)
    write_modality(modality, data.catalog.items, folder, overwrite=True)
    assert read_folder(folder).catalog.modality("image").present.tolist() == [True, True, False, False]


def test_rows_in_blocks_equal_rows_at_once(folder, tmp_path, monkeypatch):
    data = read_folder(folder)
    write_modality(data.catalog.modality("image"), data.catalog.items, tmp_path)
    whole = (tmp_path / "image.npy").read_bytes()
    monkeypatch.setattr(module, "_BLOCK_ROWS", 3)
    write_modality(data.catalog.modality("image"), data.catalog.items, tmp_path, overwrite=True)
    assert (tmp_path / "image.npy").read_bytes() == whole
