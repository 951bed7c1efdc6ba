"""One modality of the catalogue: a feature matrix, who has it, and where it came from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from modalmix.data.neighbors import Neighbors
from modalmix.errors import DataError
from modalmix.files import sha256_array

_BLOCK_ROWS = 65_536
_LARGEST = 1e15  # the squared length of a row, and the variance of a column, stay finite in float32


@dataclass(frozen=True, eq=False)
class Modality:
    """Features of one modality, one row an item. A missing picture is absent, never a zero vector that pretends.

    `features` may be a memory map and of half precision; read it through `matrix`, which returns float32 with absent
    rows as zeros. `present[i]` is False where the item has no such content. `provenance` says encoder, source, date.
    `neighbors` is the graph that came with the data, None where there is none: models then make one of the features.
    """

    name: str
    features: Float[np.ndarray, "items dim"]
    present: Bool[np.ndarray, " items"]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    neighbors: Neighbors | None = None

    @classmethod
    def from_matrix(
        cls,
        name: str,
        features: Float[np.ndarray, "items dim"],
        *,
        present: Bool[np.ndarray, " items"] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> "Modality":
        """Check a matrix and find the absent rows: all NaN (marked absent) or all zero.

        Raises DataError for a wrong dtype or shape, for NaN or Inf inside a row that has other values, and for values
        beyond 1e15, of which float32 cannot take lengths.
        """
        if features.ndim != 2 or features.shape[1] == 0:
            raise DataError(f"features of '{name}'", got=f"shape {features.shape}", expected="(items, dim), dim > 0")
        if not np.issubdtype(features.dtype, np.floating):
            raise DataError(f"features of '{name}'", got=f"dtype {features.dtype}", expected="float16, 32 or 64")
        has_values = np.empty(len(features), dtype=bool)
        for start in range(0, len(features), _BLOCK_ROWS):
            block = np.asarray(features[start : start + _BLOCK_ROWS])
            finite = np.isfinite(block).all(axis=1)
            broken = ~finite & ~np.isnan(block).all(axis=1)
            if broken.any():
                row = start + int(broken.argmax())
                raise DataError(
                    f"features of '{name}' hold NaN or Inf in row {row}",
                    expected="finite values",
                    fix="To mark an item absent, fill its whole row with NaN.",
                )
            largest = np.maximum(block.max(axis=1), -block.min(axis=1)).astype(np.float64)
            too_large = finite & (largest > _LARGEST)
            if too_large.any():
                row = int(too_large.argmax())
                raise DataError(
                    f"features of '{name}' in row {start + row}",
                    got=f"{largest[row]:g}",
                    expected=f"at most {_LARGEST:g}",
                    fix="To mark an item absent, fill its whole row with NaN.",
                )
            has_values[start : start + len(block)] = finite & block.any(axis=1)
        if present is not None:
            if present.shape != has_values.shape:
                raise DataError(f"presence of '{name}'", got=f"{len(present)} rows", expected=f"{len(has_values)} rows")
            has_values &= present
        return cls(name, features, has_values, dict(provenance or {}))

    def __len__(self) -> int:
        return len(self.features)

    @property
    def dim(self) -> int:
        """Length of a feature row."""
        return int(self.features.shape[1])

    def matrix(self, rows: Int[np.ndarray, " rows"] | slice | None = None) -> Float32[np.ndarray, "rows dim"]:
        """A float32 copy of the given rows (all without `rows`); absent rows are zeros."""
        chosen = slice(None) if rows is None else rows
        values = np.array(self.features[chosen], dtype=np.float32)
        values[~self.present[chosen]] = 0.0
        return values

    def append(self, features: Float[np.ndarray, "new dim"], present: Bool[np.ndarray, " new"] | None) -> "Modality":
        """This modality with rows added below, in its dtype. Raises DataError for another dim, and for values too large
        for that dtype."""
        if features.ndim != 2 or features.shape[1] != self.dim:
            raise DataError(
                f"new features of '{self.name}'", got=f"shape {features.shape}", expected=f"(n, {self.dim})"
            )
        new = Modality.from_matrix(self.name, features, present=present)
        with np.errstate(over="ignore"):
            added = features.astype(self.features.dtype)
        too_large = np.isinf(added).any(axis=1)
        if too_large.any():
            row = int(too_large.argmax())
            raise DataError(
                f"new features of '{self.name}' in row {row}",
                got=f"{np.abs(features[row]).max():g}",
                expected=f"at most {np.finfo(added.dtype).max:g}, the largest {added.dtype}, as known features are",
            )
        both = np.concatenate([np.asarray(self.features), added])
        graph = None if self.neighbors is None else self.neighbors.append(len(new))
        return Modality(self.name, both, np.concatenate([self.present, new.present]), self.provenance, graph)

    @cached_property
    def sha256(self) -> str:
        """Content hash of features, presence and neighbours."""
        graph = "" if self.neighbors is None else self.neighbors.sha256[:8]
        return sha256_array(self.features) + sha256_array(self.present)[:8] + graph
