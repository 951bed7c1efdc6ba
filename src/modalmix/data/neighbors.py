"""Neighbour graphs that come with the data: <modality>_knn<k>.npz, each item's most similar ones.

`neighbors` [items, k] holds item rows, most similar first, -1 where an item has fewer; `weights` or `norm_weight`
[items, k] how similar they are, none negative, 1 where the file has neither. They stand for features that the data set
does not hold.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Float32, Int32

from modalmix.errors import DataError
from modalmix.files import atomic, sha256_array, sha256_values

_NAME = re.compile(r"(?P<modality>.+)_knn\d*")
_WEIGHTS = ("weights", "norm_weight")


@dataclass(frozen=True, eq=False)
class Neighbors:
    """Row i: the neighbours of item i, most similar first (itself, where the file lists it), -1 for none."""

    rows: Int32[np.ndarray, "items k"]
    weights: Float[np.ndarray, "items k"]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def k(self) -> int:
        """Most neighbours an item has."""
        return int(self.rows.shape[1])

    @cached_property
    def sha256(self) -> str:
        """Content hash."""
        return sha256_values(sha256_array(self.rows), sha256_array(self.weights))

    def keep(self, items: Bool[np.ndarray, " items"]) -> "Neighbors":
        """The graph among the items to keep, which move up; the others are nobody's neighbour."""
        place = np.where(items, np.cumsum(items) - 1, -1).astype(np.int32)
        rows = self.rows[items]
        return Neighbors(np.where(rows >= 0, place[rows], -1).astype(np.int32), self.weights[items])

    def append(self, new: int) -> "Neighbors":
        """With items added below, who have no neighbours and are nobody's."""
        rows = np.full((new, self.k), -1, dtype=np.int32)
        weights = np.zeros((new, self.k), dtype=self.weights.dtype)
        return Neighbors(np.concatenate([self.rows, rows]), np.concatenate([self.weights, weights]))


def find_neighbors(folder: Path) -> dict[str, Path]:
    """Neighbour files of a folder by the name before `_knn`. Raises DataError when there are two of a name."""
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*.npz")):
        match = _NAME.fullmatch(path.stem)
        if match is None:
            continue
        name = match["modality"]
        if name in found:
            raise DataError(f"modality '{name}' has two graphs", got=f"{found[name].name}, {path.name}", expected="one")
        found[name] = path
    return found


def read_neighbors(path: Path) -> Neighbors:
    """The graph in a file. Raises DataError when it cannot be read, or is not one."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # numpy and zipfile raise a dozen kinds for a torn or foreign file
        raise DataError(f"graph file {path} cannot be read", got=str(error).splitlines()[0]) from error
    rows = arrays.get("neighbors")
    if rows is None or rows.ndim != 2 or not np.issubdtype(rows.dtype, np.integer):
        raise DataError(f"graph file {path}", got=", ".join(arrays) or "nothing", expected="`neighbors` [items, k]")
    weights = next((arrays[name] for name in _WEIGHTS if name in arrays), np.ones(rows.shape, dtype=np.float32))
    if weights.shape != rows.shape:
        raise DataError(f"weights of {path}", got=f"shape {weights.shape}", expected=f"shape {rows.shape}")
    if rows.size and (rows.max() >= len(rows) or rows.min() < -1):
        raise DataError(
            f"graph file {path} names item row {rows.max() if rows.max() >= len(rows) else rows.min()}",
            expected=f"rows 0..{len(rows) - 1}, or -1 for none",
        )
    ordered = np.sort(rows, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if twice.any():
        raise DataError(f"graph file {path}", got=f"a neighbour twice in row {twice.any(axis=1).argmax()}")
    return Neighbors(rows.astype(np.int32), _checked(weights, rows >= 0, path))


def write_neighbors(path: Path, graph: Neighbors) -> None:
    """Write `neighbors` and `weights`, as `read_neighbors` reads them."""
    with atomic(path) as temporary:
        np.savez_compressed(temporary, neighbors=graph.rows, weights=graph.weights)


def owner_of(modality: str, graphs: Iterable[str]) -> str | None:
    """Whose graph a modality takes: the longest name that it is, or begins with before an underscore; None for none.

    `image_knn10` belongs to `image` and to `image_spectral64`.
    """
    return max((name for name in graphs if f"{modality}_".startswith(f"{name}_")), key=len, default=None)


def _checked(weights: np.ndarray, listed: Bool[np.ndarray, "items k"], path: Path) -> Float32[np.ndarray, "items k"]:
    """Weights of neighbours as float32, 0 where none is listed. Raises DataError."""
    if weights.dtype.kind not in "fiu":
        raise DataError(f"weights of {path}", got=f"dtype {weights.dtype}", expected="numbers")
    with np.errstate(over="ignore"):
        weights = np.where(listed, weights, 0).astype(np.float32)
    if not np.isfinite(weights).all():
        raise DataError(f"weights of {path}", got="NaN or Inf", expected="finite numbers")
    if (weights < 0).any():
        row = int((weights < 0).any(axis=1).argmax())
        raise DataError(f"weights of {path}", got=f"{weights[row].min():g} in row {row}", expected="none negative")
    return weights
