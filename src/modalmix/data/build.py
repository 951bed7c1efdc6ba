"""From tables and feature files to a data set. Every reader ends here."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float32, Int64

from modalmix.data.catalog import TITLE_COLUMNS, Catalog
from modalmix.data.dataset import Dataset
from modalmix.data.features import modality_from, read_modalities, with_neighbors
from modalmix.data.filters import filter_dataset
from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.data.schema import ReadConfig
from modalmix.errors import DataError


def make_dataset(
    interactions: pl.DataFrame,
    items: pl.DataFrame | None = None,
    features: Mapping[str, Path | np.ndarray] | None = None,
    config: ReadConfig | None = None,
    *,
    neighbors: Mapping[str, Path] | None = None,
    name: str = "data",
    source: Path | None = None,
) -> Dataset:
    """A data set from tables, features (files, or matrices with one row an item of `items`) and neighbour files.

    The catalogue is the rows of `items` in their order, cold items included; without `items`, the sorted ids of the
    interactions. Users are the sorted ids of the interactions. The filters of `config` are applied last.
    Raises DataError for a missing column, an empty or unknown id, features that do not fit, and when no event is left.
    """
    config = config or ReadConfig()
    catalog = _catalog(interactions, items, config)
    dataset = _events(interactions, catalog, config, name)
    arrays = {key: value for key, value in (features or {}).items() if isinstance(value, np.ndarray)}
    files = {key: value for key, value in (features or {}).items() if not isinstance(value, np.ndarray)}
    if items is None:
        _need_ids({key: file for key, file in files.items() if config.modalities is None or key in config.modalities})
    modalities = {key: modality_from(key, value, catalog) for key, value in arrays.items()}
    modalities |= read_modalities(catalog, files, config, without=tuple(modalities))
    modalities = with_neighbors(modalities, neighbors or {})
    full = replace(dataset, catalog=Catalog(catalog.items, modalities, catalog.table), source=source)
    return filter_dataset(full, config)


def _need_ids(files: Mapping[str, Path]) -> None:
    """Raise DataError for a feature file that does not say which row is whose, where no items table does either."""
    for name, file in files.items():
        sidecar = file.with_suffix(".json")
        if not sidecar.is_file() or "ids" not in sidecar.read_text(encoding="utf-8", errors="replace"):
            raise DataError(
                f"the rows of {file} ('{name}') belong to no known items",
                fix=f"Add items.parquet with one row an item in that order, or `ids` in {sidecar.name}.",
            )


def _catalog(interactions: pl.DataFrame, items: pl.DataFrame | None, config: ReadConfig) -> Catalog:
    """The items and their table, `item` first."""
    if items is None:
        column = config.columns.require(interactions, "item", "interactions")
        return Catalog(IdMap(_ids(interactions[column], "item").unique().sort()))
    return catalog_of(items, config)


def catalog_of(items: pl.DataFrame, config: ReadConfig) -> Catalog:
    """The items of a table in its order, without modalities; the column of ids becomes `item` and stands first.

    Raises DataError for a table without rows or without that column, and for empty, repeated or mistyped ids.
    """
    if len(items) == 0:
        raise DataError("the items table has no rows")
    named = config.columns.item in items.columns  # the settings may name the column of the interactions only
    column = (config.columns if named else config.columns.replace(item=None)).require(items, "item", "items")
    ids = IdMap(items[column])
    titles = [pl.col(title).cast(pl.String) for title in TITLE_COLUMNS if title in items.columns and title != column]
    table = items.with_columns(titles).drop(column)
    if "item" in table.columns:  # another column of that name would clash with the ids
        table = table.rename({"item": "item_"})
    return Catalog(ids, {}, pl.DataFrame({"item": ids.series}).hstack(table))


def _events(table: pl.DataFrame, catalog: Catalog, config: ReadConfig, name: str) -> Dataset:
    """The interactions as row numbers, every event of the table."""
    columns = config.columns
    user_column = columns.require(table, "user", "interactions")
    item_column = columns.require(table, "item", "interactions")
    if len(table) == 0:
        raise DataError("the interactions table has no rows")
    user_ids = _ids(table[user_column], "user")
    users = IdMap(user_ids.unique().sort(), "user")
    items = catalog.items.find(_ids(table[item_column], "item"))
    if (items < 0).any():
        unknown = table[item_column].filter(pl.Series(items < 0)).unique(maintain_order=True)
        raise DataError(
            f"{len(unknown):,} item id(s) of the interactions are not in the items table",
            got=", ".join(repr(id) for id in unknown[:5]) + (", ..." if len(unknown) > 5 else ""),
            expected=f"ids such as {', '.join(repr(id) for id in catalog.items.series[:3])}",
            fix="Add them to the items table, or take their events out.",
        )
    split_column = columns.find(table, "split", "interactions")
    events = Interactions(
        user=users.find(user_ids).astype(np.int32),
        item=items.astype(np.int32),
        n_users=len(users),
        n_items=len(catalog),
        time=_time(table, config),
        rating=_rating(table, config),
    )
    labels = None if split_column is None else table[split_column].cast(pl.String).fill_null("").to_numpy()
    return Dataset(name, users, catalog, events, labels, counts={"events_read": len(table)})


def _ids(column: pl.Series, kind: str) -> pl.Series:
    """A column of ids. Raises DataError for an empty id."""
    if column.null_count():
        row = column.is_null().arg_max()
        raise DataError(f"{kind} id in row {row} of the interactions is empty", fix="Every event needs both ids.")
    if column.dtype.is_integer():
        return column.cast(pl.Int64)
    if column.dtype in (pl.String, pl.Categorical, pl.Enum):
        return column.cast(pl.String)
    raise DataError(f"{kind} ids of the interactions", got=f"dtype {column.dtype}", expected="integers or strings")


def _time(table: pl.DataFrame, config: ReadConfig) -> Int64[np.ndarray, " events"] | None:
    """Unix seconds from the timestamp column, else the order column as it is, else None."""
    columns = config.columns
    name = columns.find(table, "timestamp", "interactions") or columns.find(table, "order", "interactions")
    if name is None:
        return None
    column = table[name]
    if column.dtype == pl.String:
        column = _times_of(column, name)
    if column.dtype in (pl.Date, pl.Datetime):
        column = column.dt.epoch("s")
    if not column.dtype.is_numeric():
        raise DataError(f"interactions column '{name}'", got=f"dtype {column.dtype}", expected="numbers or dates")
    usable = column.is_not_null() & column.cast(pl.Float64).is_finite().fill_null(False)
    if not usable.all():
        raise DataError(
            f"interactions column '{name}' has no time in row {usable.arg_min()}",
            got=repr(table[name][usable.arg_min() or 0]),
            expected="a number or date in every row",
        )
    return column.cast(pl.Int64).to_numpy()


def _times_of(column: pl.Series, name: str) -> pl.Series:
    """Numbers or dates written as text. Raises DataError when no row is either."""
    numbers = column.cast(pl.Float64, strict=False)
    if numbers.null_count() == column.null_count():
        return numbers
    try:
        return column.str.to_datetime(strict=False)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"interactions column '{name}'", got=repr(column[0]), expected="unix seconds, or dates such as 2026-01-31"
        ) from error


def _rating(table: pl.DataFrame, config: ReadConfig) -> Float32[np.ndarray, " events"] | None:
    """Ratings, NaN where unknown, None without such a column."""
    name = config.columns.find(table, "rating", "interactions")
    if name is None:
        return None
    if not (table[name].dtype.is_numeric() or table[name].dtype in (pl.Boolean, pl.Null)):
        raise DataError(f"interactions column '{name}'", got=f"dtype {table[name].dtype}", expected="numbers")
    return table[name].cast(pl.Float32).fill_null(float("nan")).to_numpy()


def from_frames(interactions: Any, items: Any = None, config: ReadConfig | None = None, name: str = "data") -> Dataset:
    """A data set from polars or pandas DataFrames. Raises DataError."""
    return make_dataset(to_polars(interactions), None if items is None else to_polars(items), config=config, name=name)


def to_polars(frame: Any) -> pl.DataFrame:
    """A DataFrame of either library, or a list of one mapping a row, as a DataFrame of polars. Raises DataError."""
    try:
        if isinstance(frame, pl.DataFrame):
            return frame
        if isinstance(frame, pl.LazyFrame):
            return frame.collect()
        if type(frame).__module__.startswith("pandas"):
            return pl.from_pandas(frame)
        if isinstance(frame, list) and all(isinstance(row, Mapping) for row in frame):
            return pl.from_dicts(frame, infer_schema_length=None) if frame else pl.DataFrame()
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:  # pyarrow's errors are of the last two kinds
        raise DataError("a table in memory cannot be read", got=str(error).splitlines()[0]) from error
    raise DataError(
        "a table in memory",
        got=type(frame).__name__,
        expected="a polars or pandas DataFrame, or a list of one dict a row",
    )
