"""Files are whole or absent; content hashes see every change."""

import errno
from pathlib import Path

import numpy as np
import pytest

from modalmix import files


def test_atomic_replaces_at_once_and_leaves_nothing_behind(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "file.txt"
    with files.atomic(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
    assert target.read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["file.txt"]


def test_atomic_keeps_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(OSError, match="No space"), files.atomic(target) as temporary:
        temporary.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def test_cache_folder_follows_the_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODALMIX_CACHE", str(tmp_path / "chosen"))
    assert files.cache_folder() == tmp_path / "chosen"
    monkeypatch.delenv("MODALMIX_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert files.cache_folder() == tmp_path / "modalmix"


def test_array_hash_sees_values_dtype_and_shape() -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    same = files.sha256_array(array.copy(order="F"))
    assert files.sha256_array(array) == same
    assert files.sha256_array(array.astype(np.float64)) != same
    assert files.sha256_array(array.reshape(3, 2)) != same
    assert files.sha256_array(array + 1) != same


def test_array_hash_does_not_depend_on_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    array = np.random.default_rng(0).random((100, 7))
    whole = files.sha256_array(array)
    monkeypatch.setattr(files, "_BLOCK", 64)
    assert files.sha256_array(array) == whole


def test_values_hash_ignores_the_order_of_keys() -> None:
    assert files.sha256_values({"a": 1, "b": 2}) == files.sha256_values({"b": 2, "a": 1})


def test_json_round_trip(tmp_path: Path) -> None:
    files.write_json(tmp_path / "x.json", {"title": "Amélie", "n": [1, 2]})
    assert files.read_json(tmp_path / "x.json") == {"title": "Amélie", "n": [1, 2]}


def test_cached_arrays_are_made_once_and_again_when_torn(tmp_path: Path) -> None:
    path, calls = tmp_path / "graphs" / "one.npz", []

    def make() -> list[np.ndarray]:
        calls.append(1)
        return [np.arange(3), np.eye(2, dtype=np.float32)]

    first, second = files.cached_arrays(path, ("a", "b"), make), files.cached_arrays(path, ("a", "b"), make)
    assert len(calls) == 1
    for one, other in zip(first, second, strict=True):
        assert one.dtype == other.dtype
        assert one.tolist() == other.tolist()
    assert [file.name for file in path.parent.iterdir()] == ["one.npz"]
    whole = path.read_bytes()
    for times, torn in enumerate((whole[: len(whole) // 2], b"", b"foreign"), start=2):
        path.write_bytes(torn)
        assert files.cached_arrays(path, ("a", "b"), make)[0].tolist() == [0, 1, 2]
        assert len(calls) == times
        assert path.read_bytes()[:2] == b"PK"
    np.savez(path, a=np.ones(1))
    assert files.cached_arrays(path, ("a", "b"), make)[0].tolist() == [0, 1, 2]
