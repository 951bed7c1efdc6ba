"""A table with the columns and types of another: what is read from it later means what it meant there."""

from collections.abc import Mapping

import polars as pl

from modalmix.errors import DataError

_TEXT_TYPES = (pl.String, pl.Categorical, pl.Enum)
_SEPARATOR = "|"


def is_text(dtype: pl.DataType) -> bool:
    """Whether a column of this type holds text, or lists of text."""
    return (dtype.inner if isinstance(dtype, pl.List) else dtype) in _TEXT_TYPES


def as_lists(column: pl.Series) -> pl.Series:
    """A column of lists of text: a text is split at "|", since a CSV file holds no lists, another value stands alone.

    Names are stripped of spaces, empty ones left out.
    """
    lists = column if isinstance(column.dtype, pl.List) else column.cast(pl.String).str.split(_SEPARATOR)
    names = lists.cast(pl.List(pl.String)).list.eval(pl.element().str.strip_chars())
    return names.list.eval(pl.element().filter(pl.element() != ""))


def align(table: pl.DataFrame, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """The columns of `schema`, in its order and types, from `table`; null where it has no such column.

    Lists and text become one another, since a CSV file holds no lists: a text is split at "|", a list joined by ", ".
    Raises DataError for a column whose values cannot be of that type.
    """
    return pl.DataFrame(
        _typed(table[name], dtype) if name in table.columns else pl.Series(name, [None] * len(table), dtype=dtype)
        for name, dtype in schema.items()
    )


def _typed(column: pl.Series, dtype: pl.DataType) -> pl.Series:
    if dtype == pl.Null or column.dtype in (dtype, pl.Null):
        return column if dtype == pl.Null else column.cast(dtype)
    source = column
    try:
        if isinstance(dtype, pl.List) and column.dtype in _TEXT_TYPES:
            column = as_lists(column)
        if dtype in _TEXT_TYPES:
            dtype = pl.String()  # an Enum knows no new words
            if isinstance(column.dtype, pl.List):
                column = column.cast(pl.List(pl.String)).list.join(", ")
        typed = column.cast(dtype)
    except pl.exceptions.PolarsError as error:
        raise _mistyped(source, dtype) from error
    if dtype.is_integer() and column.dtype.is_float() and not typed.cast(column.dtype).equals(column):
        raise _mistyped(source, dtype)  # 2.5 would become 2
    return typed


def _mistyped(column: pl.Series, dtype: pl.DataType) -> DataError:
    return DataError(
        f"column '{column.name}' of the new table",
        got=f"{column.dtype}, {column.drop_nulls().head(1).to_list()} for one",
        expected=f"{dtype}, as in the data set",
        fix="Write it as the data set does, or leave the column out.",
    )
