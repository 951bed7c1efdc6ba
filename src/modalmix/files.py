"""Files that are never torn, and content hashes that name them."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

CACHE_VARIABLE = "MODALMIX_CACHE"
_BLOCK = 1 << 22


def cache_folder() -> Path:
    """Where encoded features and graphs are kept: $MODALMIX_CACHE, else modalmix/ in the user's cache folder."""
    chosen = os.environ.get(CACHE_VARIABLE)
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(chosen) if chosen else base / "modalmix"


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """A temporary path beside `path`; on success it is synced and renamed over it, on failure it is removed.

    A reader sees the old file or the new one, never a part: also after a kill or on a full disk.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # the suffix stays last: several writers choose the format by it
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def cached_arrays(path: Path, names: Sequence[str], make: Callable[[], Iterable[np.ndarray]]) -> list[np.ndarray]:
    """The arrays of these names in an .npz file; what `make` gives is kept there where the file is missing or torn."""
    if path.is_file():
        try:
            with np.load(path, allow_pickle=False) as file:
                return [file[name] for name in names]
        except Exception:  # numpy and zipfile raise a dozen kinds for a torn file: made again
            path.unlink(missing_ok=True)
    arrays: dict[str, Any] = dict(zip(names, make(), strict=True))
    with atomic(path) as temporary:
        np.savez(temporary, **arrays)
    return list(arrays.values())


def write_json(path: Path | str, value: Any) -> None:
    """Write JSON atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def read_json(path: Path | str) -> Any:
    """Read JSON. Raises OSError or json.JSONDecodeError."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def sha256_file(path: Path | str) -> str:
    """The SHA-256 of a file's bytes, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_array(array: np.ndarray) -> str:
    """The SHA-256 of an array's dtype, shape and values, read in blocks of rows."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    rows = max(1, _BLOCK // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        digest.update(np.ascontiguousarray(array[start : start + rows]).data)
    return digest.hexdigest()


def sha256_values(*values: Any) -> str:
    """The SHA-256 of JSON-able values: the key of a cache entry made from them."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()


def _sync_folder(folder: Path) -> None:
    """Make a rename durable (POSIX)."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
