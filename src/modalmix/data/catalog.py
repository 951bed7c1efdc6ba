"""The catalogue: items, their table (titles, categories, ...) and their modalities."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl

from modalmix.data.ids import IdMap
from modalmix.data.modality import Modality
from modalmix.errors import DataError, ModelError, nearest
from modalmix.files import sha256_values

TITLE_COLUMNS = ("title", "name")


@dataclass(frozen=True, eq=False)
class Catalog:
    """All items, warm and cold, in row order. `table` has one row an item, its first column is `item`."""

    items: IdMap
    modalities: Mapping[str, Modality] = field(default_factory=dict)
    table: pl.DataFrame = field(default_factory=pl.DataFrame)

    def __post_init__(self) -> None:
        for modality in self.modalities.values():
            if len(modality) != len(self):
                missing = self.items.ids([len(modality)]) if len(modality) < len(self) else []
                raise DataError(
                    f"features of '{modality.name}'",
                    got=f"{len(modality):,} rows",
                    expected=f"{len(self):,} rows, one an item",
                    fix=(f"First item without a row: {missing[0]!r}. " if missing else "")
                    + "Fill the row of an item without content with NaN.",
                )
        if self.table.width == 0:
            object.__setattr__(self, "table", pl.DataFrame({"item": self.items.series}))
        if len(self.table) != len(self):
            raise DataError("item table", got=f"{len(self.table):,} rows", expected=f"{len(self):,} rows")

    def __len__(self) -> int:
        return len(self.items)

    def modality(self, name: str) -> Modality:
        """The modality of that name. Raises ModelError naming the ones there are."""
        if name not in self.modalities:
            raise ModelError(f"the catalogue has no modality '{name}'", fix=nearest(name, self.modalities))
        return self.modalities[name]

    def select(self, names: Iterable[str]) -> "Catalog":
        """The same items with only the named modalities. Raises ModelError for an unknown name."""
        return Catalog(self.items, {name: self.modality(name) for name in names}, self.table)

    def titles(self, rows: Iterable[int] | np.ndarray) -> list[str]:
        """The title of each row, or its id as text where there is none."""
        rows = np.asarray(rows, dtype=np.int64)
        ids = [str(id) for id in self.items.ids(rows)]
        columns = [name for name in TITLE_COLUMNS if name in self.table.columns]
        if not columns:
            return ids
        titles = self.table.select(pl.coalesce(columns).gather(rows)).to_series()  # added items may name it otherwise
        return [title or id for title, id in zip(titles, ids, strict=True)]

    def extend(self, table: pl.DataFrame, features: Mapping[str, np.ndarray]) -> "Catalog":
        """This catalogue with new items below. Row k of each matrix belongs to row k of `table` (column `item`).

        A modality without a matrix is absent for the new items. Raises DataError for a known id, a wrong dim or name.
        """
        unknown = set(features) - set(self.modalities)
        if unknown:
            raise DataError(f"new items have modality '{min(unknown)}'", fix=nearest(min(unknown), self.modalities))
        items = self.items.extend(table["item"])
        added = table.with_columns(self.items.extend(table["item"]).series[len(self) :].alias("item"))
        modalities = {}
        for name, modality in self.modalities.items():
            absent = np.full((len(table), modality.dim), np.nan, dtype=np.float32)
            modalities[name] = modality.append(features.get(name, absent), None)
        return Catalog(items, modalities, pl.concat([self.table, added], how="diagonal_relaxed"))

    @cached_property
    def sha256(self) -> str:
        """Content hash of ids and modalities."""
        return sha256_values(self.items.sha256, {name: m.sha256 for name, m in sorted(self.modalities.items())})
