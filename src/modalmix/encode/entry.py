"""One entry of the feature cache: a matrix that appears whole or not at all, and the shards it is made of.

features/<modality>-<encoder>/<contents>/
    shards/<contents of the shard>.npy   while encoding: what a killed run resumes from
    features.npy                         [rows, dim], absent rows NaN
    contents.npy                         [rows, 32] SHA-256 of each content, zeros where absent
    provenance.json                      written last: the entry is complete
"""

import fcntl
import hashlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8

from modalmix.encode.content import Content
from modalmix.errors import EncodeError
from modalmix.files import CACHE_VARIABLE, atomic, cache_folder, read_json, sha256_file, sha256_values, write_json

DIGEST_BYTES = 32
_BLOCK_ROWS = 4096
_KEY_LETTERS = 16
Place = tuple[Float[np.ndarray, "rows dim"], int]


@dataclass(frozen=True, eq=False)
class Encoded:
    """Features of one modality, one row a content. `features` is memory-mapped, absent rows are NaN."""

    features: Float[np.ndarray, "rows dim"]
    present: Bool[np.ndarray, " rows"]
    provenance: Mapping[str, Any]
    path: Path
    from_cache: bool


@dataclass(frozen=True)
class Entry:
    """The folder of one entry. Every write raises EncodeError when the disk refuses; what was there stays whole."""

    folder: Path

    @classmethod
    def of(cls, modality: str, identity: Mapping[str, Any], contents: Sequence[Content]) -> "Entry":
        """The entry of these contents under this encoder: another content, order, weight or setting is another."""
        encoder = sha256_values(dict(identity))[:_KEY_LETTERS]
        name = hashlib.sha256(_digests(contents).tobytes()).hexdigest()[:_KEY_LETTERS]
        return cls(cache_folder() / "features" / f"{modality}-{encoder}" / name)

    @property
    def shards(self) -> Path:
        """Where the parts are kept while encoding."""
        return self.folder / "shards"

    def read(self, from_cache: bool = True) -> Encoded | None:
        """The finished entry; None when there is none, or somebody damaged it."""
        try:
            provenance = read_json(self.folder / "provenance.json")
            features = np.load(self.folder / "features.npy", mmap_mode="r")
            digests = np.load(self.folder / "contents.npy")
            whole = features.shape == (provenance["rows"], provenance["dim"]) and len(digests) == len(features)
        except (OSError, EOFError, ValueError, KeyError, TypeError):
            return None
        if not whole:
            return None
        return Encoded(features, digests.any(axis=1), provenance, self.folder, from_cache)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone in this entry: a second process waits, then finds it finished. A killed owner leaves no lock."""
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = open(self.folder / ".lock", "w")  # noqa: SIM115 closed below
            fcntl.flock(lock, fcntl.LOCK_EX)
        with lock:
            for stray in self.folder.rglob(".*.*"):  # temporary files of a killed run
                stray.unlink(missing_ok=True)
            yield

    def read_shard(self, contents: Sequence[Content]) -> tuple[Float[np.ndarray, "rows dim"], dict[str, str]] | None:
        """A finished shard and the reasons of its unreadable contents (hex digest -> reason), or None."""
        path = self._shard(contents)
        try:
            values, reasons = np.load(path, mmap_mode="r"), read_json(path.with_suffix(".json"))
        except (OSError, EOFError, ValueError):
            return None
        return (values, reasons) if len(values) == len(contents) else None

    def write_shard(
        self, contents: Sequence[Content], values: Float[np.ndarray, "rows dim"], reasons: Mapping[str, str]
    ) -> None:
        """Keep a finished shard."""
        path = self._shard(contents)
        with _writing(self.folder):
            write_json(path.with_suffix(".json"), dict(reasons))  # first: the matrix says that both are there
            with atomic(path) as temporary:
                np.save(temporary, values)

    def known(self, wanted: set[bytes]) -> dict[bytes, Place]:
        """Digest -> its row in a finished entry of the same encoder: new items cost only themselves."""
        found: dict[bytes, Place] = {}
        for folder in sorted(self.folder.parent.iterdir()):
            done = Entry(folder).read() if folder != self.folder and wanted else None
            if done is None:
                continue
            for row, digest in enumerate(map(bytes, np.load(folder / "contents.npy"))):
                if digest in wanted:
                    found.setdefault(digest, (done.features, row))
        return found

    def write(
        self,
        contents: Sequence[Content],
        places: Mapping[bytes, Place],
        dim: int,
        dtype: str,
        provenance: Mapping[str, Any],
    ) -> None:
        """Assemble the matrix from the rows that `places` names, block by block, then drop the shards."""
        digests = _digests(contents)
        digests[[content.digest not in places for content in contents]] = 0
        with _writing(self.folder):
            # written in sequence, not through a memory map: a full disk is an error then, not a dead process
            with atomic(self.folder / "features.npy") as temporary, open(temporary, "wb") as file:
                header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (len(contents), dim)}
                np.lib.format.write_array_header_1_0(file, header)
                for start in range(0, len(contents), _BLOCK_ROWS):
                    file.write(_block(contents[start : start + _BLOCK_ROWS], places, dim, dtype).tobytes())
            with atomic(self.folder / "contents.npy") as temporary:
                np.save(temporary, digests)
            size = {"rows": len(contents), "dim": dim, "dtype": dtype}
            write_json(
                self.folder / "provenance.json",
                {**provenance, **size, "sha256": sha256_file(self.folder / "features.npy")},
            )
        shutil.rmtree(self.shards, ignore_errors=True)

    def _shard(self, contents: Sequence[Content]) -> Path:
        name = hashlib.sha256(b"".join(content.digest for content in contents)).hexdigest()
        return self.shards / f"{name[:_KEY_LETTERS]}.npy"


def _digests(contents: Sequence[Content]) -> UInt8[np.ndarray, "rows 32"]:
    joined = b"".join(content.digest or bytes(DIGEST_BYTES) for content in contents)
    return np.frombuffer(bytearray(joined), dtype=np.uint8).reshape(len(contents), DIGEST_BYTES)


def _block(
    contents: Sequence[Content], places: Mapping[bytes, Place], dim: int, dtype: str
) -> Float[np.ndarray, "rows dim"]:
    block = np.full((len(contents), dim), np.nan, dtype=dtype)
    for row, content in enumerate(contents):
        if content.digest in places:
            source, place = places[content.digest]
            block[row] = source[place]
    return block


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EncodeError(
            f"features cannot be written to {folder}",
            got=error.strerror or error,
            fix=f"Free some space or set {CACHE_VARIABLE} to another folder, then run again: finished parts are kept.",
        ) from error
