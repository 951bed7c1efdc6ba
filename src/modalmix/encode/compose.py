"""The text of an item, written from the columns of the item table."""

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from modalmix.errors import EncodeError, nearest

# never user tags: people tag what they have seen, so that for a cold item the tags are its future
TEXT_COLUMNS = (
    *("title", "name", "brand", "artist", "author", "categories", "genres"),
    *("description", "abstract", "overview", "plot", "summary", "text", "text_keywords"),
)
LABELLED = frozenset({"brand", "artist", "author", "categories", "genres"})
_TEXT_TYPES = (pl.String, pl.Categorical, pl.Enum)


def text_columns(table: pl.DataFrame, columns: Sequence[str] | None = None) -> tuple[str, ...]:
    """The columns to write texts from: those asked for, else those of TEXT_COLUMNS that the table has as words.

    Numbers are not words: a list of unnamed category ids is passed over. Raises EncodeError for a column that is asked
    for and missing, or that holds no words.
    """
    if columns is None:
        return tuple(name for name in TEXT_COLUMNS if name in table.columns and _has_words(table.schema[name]))
    for name in columns:
        if name not in table.columns:
            raise EncodeError(f"the item table has no column '{name}'", fix=nearest(name, table.columns))
        if not _has_words(table.schema[name]):
            raise EncodeError(f"column '{name}'", got=str(table.schema[name]), expected="text, or lists of text")
    return tuple(columns)


def compose_text(table: pl.DataFrame | Mapping[str, Any], columns: Sequence[str] | None = None) -> list[str | None]:
    """One text an item, None where all columns are empty: 'Toy Story (1995). Categories: Adventure. Led by Woody, ...'

    Lists are joined by commas, names and kinds are labelled by their column, every part ends as a sentence.
    Raises EncodeError as `text_columns`.
    """
    table = table if isinstance(table, pl.DataFrame) else pl.DataFrame(dict(table))
    columns = text_columns(table, columns)
    if not columns:
        return [None] * len(table)
    parts = [_sentence(name, table.schema[name]) for name in columns]
    text = pl.concat_str(parts, separator=" ", ignore_nulls=True)
    return table.select(pl.when(text != "").then(text).alias("text"))["text"].to_list()


def _has_words(dtype: pl.DataType) -> bool:
    return isinstance(dtype.inner if isinstance(dtype, pl.List) else dtype, _TEXT_TYPES)


def _sentence(name: str, dtype: pl.DataType) -> pl.Expr:
    """The column as a sentence, null where it is empty."""
    if isinstance(dtype, pl.List):
        text = pl.col(name).cast(pl.List(pl.String)).list.drop_nulls().list.join(", ")
    else:
        text = pl.col(name).cast(pl.String)
        text = text.str.replace_all("|", ", ", literal=True) if name in LABELLED else text
    text = text.str.strip_chars()
    label = f"{name.replace('_', ' ').capitalize()}: " if name in LABELLED or isinstance(dtype, pl.List) else ""
    end = pl.when(text.str.contains(r"[.!?…]$")).then(pl.lit("")).otherwise(pl.lit("."))
    return pl.when(text != "").then(pl.lit(label) + text + end)
