"""From tables and feature files to a data set. Every reader ends here."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from jaxtyping import Float32, Int64

from modalmix.data.catalog import TITLE_COLUMNS, Catalog
from modalmix.data.dataset import Dataset
from modalmix.data.features import modality_from, read_modalities, with_neighbors
from modalmix.data.filters import filter_dataset
from modalmix.data.ids import IdMap, canonical_ids
from modalmix.data.interactions import Interactions
from modalmix.data.schema import Columns, ReadConfig
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
    Times are kept as whole seconds; events that share a second are put in the order of their fractions.
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
    times = read_times(table, columns, "interactions")
    events = Interactions(
        user=users.find(user_ids).astype(np.int32),
        item=items.astype(np.int32),
        n_users=len(users),
        n_items=len(catalog),
        time=None if times is None else times.seconds.to_numpy(),
        rating=_rating(table, config),
    )
    labels = None if split_column is None else table[split_column].cast(pl.String).fill_null("").to_numpy()
    if times is not None and not times.are_whole:
        order = _by_fraction(times)  # whatever sorts events leaves equal times in the order of the rows
        events, labels = events.take(order), None if labels is None else labels[order]
    return Dataset(name, users, catalog, events, labels, counts={"events_read": len(table)})


def _ids(column: pl.Series, kind: str) -> pl.Series:
    """A column of ids. Raises DataError for an empty id, and for one that is neither an integer nor a string."""
    if column.null_count():
        row = column.is_null().arg_max()
        raise DataError(f"{kind} id in row {row} of the interactions is empty", fix="Every event needs both ids.")
    return canonical_ids(column, f"{kind} ids of the interactions")


class Times(NamedTuple):
    """When each event happened: whole seconds (or the given order), and numbers of the same order that keep fractions.

    Times that all lie in [0, 1] are shares of a span, not seconds: their ranks from 1 on stand for the seconds.
    """

    seconds: pl.Series
    exact: pl.Series

    @property
    def are_whole(self) -> bool:
        """Whether the seconds say all there is."""
        return bool((self.exact == self.seconds).all())


def read_times(table: pl.DataFrame, columns: Columns, source: str) -> Times | None:
    """The timestamp column of `source`, numbers or dates, else its order column, else None.

    Raises DataError for a column of another type, and for a row without a time.
    """
    name = columns.find(table, "timestamp", source) or columns.find(table, "order", source)
    if name is None:
        return None
    column = table[name]
    if column.dtype == pl.String:
        column = _times_of(column, name, source)
    is_date = column.dtype in (pl.Date, pl.Datetime)
    if not is_date and not column.dtype.is_numeric():
        raise DataError(f"{source} column '{name}'", got=f"dtype {column.dtype}", expected="numbers or dates")
    seconds = column.dt.epoch("s") if is_date else column.cast(pl.Int64, strict=False)  # null for NaN, Inf and 1e30
    if seconds.null_count():
        row = int(seconds.is_null().arg_max() or 0)
        raise DataError(
            f"{source} column '{name}' has no time in row {row}",
            got=repr(table[name][row]),
            expected="a date, or a number below 2^63, in every row",
        )
    if not is_date and column.is_between(0, 1).all() and not (column == seconds).all():
        seconds = column.rank("dense").cast(pl.Int64)
    return Times(seconds, column.to_physical())


def _by_fraction(times: Times) -> Int64[np.ndarray, " events"]:
    """The order of rows in which those that share a second take each other's places by their fractions."""
    seconds = times.seconds.to_numpy()
    order = np.empty(len(seconds), dtype=np.int64)
    order[np.argsort(seconds, kind="stable")] = np.lexsort((times.exact.rank("dense").to_numpy(), seconds))
    return order


def _times_of(column: pl.Series, name: str, source: str) -> pl.Series:
    """Numbers or dates written as text. Raises DataError when no row is either."""
    numbers = column.cast(pl.Float64, strict=False)
    if numbers.null_count() == column.null_count():
        return numbers
    try:
        return column.str.to_datetime(strict=False)
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{source} column '{name}'", got=repr(column[0]), expected="unix seconds, or dates such as 2026-01-31"
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
