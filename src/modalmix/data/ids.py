"""External ids at the edges, row numbers inside."""

from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import polars as pl
from jaxtyping import Bool, Int

from modalmix.errors import DataError, UnknownIdError
from modalmix.files import sha256_values

Ids = Sequence[int] | Sequence[str] | np.ndarray | pl.Series


class IdMap:
    """The external ids of users or items, in row order. Ids are integers or strings, unique, never null.

    Raises DataError when an id is null, repeated, or neither an integer nor a string.
    """

    def __init__(self, ids: Ids, kind: str = "item") -> None:
        """`ids` in row order; `kind` ("item" or "user") is the word used in messages."""
        series = pl.Series(kind, ids)
        if len(series) == 0:
            series = series.cast(pl.Int64)
        self.kind = kind
        self.series = canonical_ids(series, f"{kind} ids")
        if self.series.null_count():
            row = int(self.series.is_null().arg_max() or 0)
            raise DataError(f"{kind} id in row {row} is empty", fix="Every row needs an id.")
        if self.series.n_unique() != len(self.series):
            first = self.series.filter(self.series.is_duplicated())[0]
            raise DataError(f"{kind} id {first!r} stands in several rows", expected="each id once")

    def __len__(self) -> int:
        return len(self.series)

    def __repr__(self) -> str:
        return f"IdMap({len(self):,} {self.kind}s)"

    @property
    def is_text(self) -> bool:
        """Whether ids are strings."""
        return self.series.dtype == pl.String

    def find(self, ids: Ids) -> Int[np.ndarray, " ids"]:
        """The row of each id, -1 where it is unknown. '1' and 1.0 find the integer 1; '01' and 1.5 do not.

        Ids may be of several types; what cannot be an id, such as a list, is unknown.
        """
        asked = _series(ids)
        asked = asked.cast(pl.String, strict=False) if self.is_text else _integers(asked)
        found = asked.to_frame().join(self._lookup, on="id", how="left", maintain_order="left")
        return found["row"].fill_null(-1).to_numpy(writable=True)

    def rows(self, ids: Ids) -> Int[np.ndarray, " ids"]:
        """The row of each id. Raises UnknownIdError that names the first unknown ones."""
        rows = self.find(ids)
        if (rows < 0).any():
            missing = [id for id, row in zip(ids, rows, strict=True) if row < 0]
            raise UnknownIdError(
                f"{len(missing):,} {self.kind} id(s) are unknown",
                got=", ".join(repr(id) for id in missing[:5]) + (", ..." if len(missing) > 5 else ""),
                expected=f"ids such as {', '.join(repr(id) for id in self.series[:3].to_list())}",
            )
        return rows

    def ids(self, rows: Iterable[int] | np.ndarray) -> list[int] | list[str]:
        """The external ids of rows."""
        return self.series.gather(np.asarray(rows, dtype=np.int64)).to_list()

    def extend(self, ids: Ids) -> "IdMap":
        """These ids followed by new ones. Raises DataError when one is known already."""
        new = canonical_ids(pl.Series(self.kind, ids), f"{self.kind} ids")
        if new.dtype != self.series.dtype:
            raise DataError(f"new {self.kind} ids", got=str(new.dtype), expected=str(self.series.dtype))
        return IdMap(pl.concat([self.series, new]), self.kind)

    def extends(self, other: "IdMap") -> bool:
        """Whether `other`'s ids are the first rows of these, in the same order."""
        return other is self or (
            len(other) <= len(self)
            and other.series.dtype == self.series.dtype
            and bool((self.series[: len(other)] == other.series).all())
        )

    @cached_property
    def sha256(self) -> str:
        """Content hash of the ids and their order."""
        return sha256_values(self.series.to_list())

    @cached_property
    def _lookup(self) -> pl.DataFrame:
        return pl.DataFrame({"id": self.series, "row": np.arange(len(self), dtype=np.int64)})


def known(rows: Int[np.ndarray, " ids"]) -> Bool[np.ndarray, " ids"]:
    """Which rows from `IdMap.find` are known."""
    return rows >= 0


def canonical_ids(series: pl.Series, what: str) -> pl.Series:
    """Integer ids as Int64, everything written as String. `what` names them in messages.

    Raises DataError for another type, and for an integer that does not fit 64 bits with a sign.
    """
    if series.dtype in (pl.Categorical, pl.Enum, pl.String):
        return series.cast(pl.String)
    if not series.dtype.is_integer():
        raise DataError(what, got=f"dtype {series.dtype}", expected="integers or strings")
    whole = series.cast(pl.Int64, strict=False)
    if whole.null_count() > series.null_count():
        large = series.filter(whole.is_null() & series.is_not_null())[0]
        raise DataError(what, got=large, expected="integers below 2^63", fix="Give such ids as text.")
    return whole


def _series(ids: Ids) -> pl.Series:
    """Ids of one type as they are; of several, or of none that an id has, as text, which is how they are named."""
    try:
        asked = pl.Series("id", ids)
    except (TypeError, pl.exceptions.PolarsError):
        asked = None
    if asked is None or asked.dtype.is_nested() or asked.dtype == pl.Object:
        return pl.Series("id", [None if id is None else str(id) for id in ids], dtype=pl.String)
    return asked


def _integers(asked: pl.Series) -> pl.Series:
    """What was asked as Int64, null where it is not exactly such an integer: a cast would read '01' and 1.5 as 1."""
    if asked.dtype in (pl.Categorical, pl.Enum):
        asked = asked.cast(pl.String)
    whole = asked.cast(pl.Int64, strict=False)
    if asked.dtype == pl.String or asked.dtype.is_float():
        return whole.set(whole.cast(asked.dtype) != asked, None)
    return whole
