"""Tables in CSV, TSV, JSON lines and Parquet, and data sets made of one or two of them."""

from collections.abc import Callable, Collection
from pathlib import Path

import polars as pl

from modalmix.data.build import make_dataset
from modalmix.data.dataset import Dataset
from modalmix.data.schema import Columns, ReadConfig
from modalmix.errors import DataError

SEPARATORS = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".item": "\t", ".user": "\t"}
ATOMIC = (".inter", ".item", ".user")  # RecBole and MMRec: tabs, and a quote is a letter
JSON_LINES = (".jsonl", ".ndjson")
TABLE_SUFFIXES = (".parquet", ".csv", ".tsv", *JSON_LINES, ".csv.gz", ".tsv.gz")


def read_table(
    path: Path | str, as_text: Collection[str] = (), is_id: Callable[[str], bool] | None = None
) -> pl.DataFrame:
    """The table in a .parquet, .csv, .tsv, .jsonl or .ndjson file; .csv and .tsv may be gzipped (.gz).

    In text files a column becomes integers only where that loses nothing: '007' stays a string, and so do the columns
    named in `as_text`. Columns of ids become nothing but integers, so '1e5' and '1.10' stay strings there; `is_id` says
    of a name whether it is one, by default whether it is a usual name.
    Raises DataError for a missing, empty, non-UTF-8 or unreadable file.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path} is not there" if not path.exists() else f"{path} is not a file")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty", got="0 bytes", expected="a table")
    suffix, is_id = _suffix(path), is_id or Columns().is_id
    try:
        if suffix == ".parquet":
            table = pl.read_parquet(path, glob=False)  # a folder may be named 'shop [new]'
        elif suffix in JSON_LINES:
            with path.open("rb") as file:
                table = pl.read_ndjson(file, infer_schema_length=None)
        else:
            table = read_text_table(path, SEPARATORS[suffix], None if suffix in ATOMIC else '"', as_text, is_id)
    except (pl.exceptions.PolarsError, UnicodeError, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise _unreadable(path, suffix, error) from error
    if any("\ufffd" in name for name in table.columns):  # polars puts the replacement sign into broken headers
        raise _not_utf8(path)
    if len(table) == 0:
        raise DataError(f"{path} has no rows", got=f"only the columns {', '.join(table.columns) or '(none)'}")
    return table


def read_text_table(
    path: Path, separator: str, quote: str | None, as_text: Collection[str], is_id: Callable[[str], bool]
) -> pl.DataFrame:
    """A separated text file with a header, typed as `read_table` says. Raises polars errors."""
    # everything as text first: a guess from the first rows would turn '007' into 7 and fail further down
    text = pl.read_csv(path, separator=separator, infer_schema=False, quote_char=quote, glob=False)
    return text.select(
        column if column.name in as_text else as_integers(column) if is_id(column.name) else as_number(column)
        for column in text.iter_columns()
    )


def as_integers(column: pl.Series) -> pl.Series:
    """A text column as integers where every value is written as they are, else as it is: '007', '+7' and '1e5' stay."""
    whole = column.cast(pl.Int64, strict=False)
    lossless = whole.null_count() == column.null_count() and (whole.cast(pl.String) == column).all()
    return whole if lossless else column


def as_number(column: pl.Series) -> pl.Series:
    """A text column as numbers or truth values where every value is one, else as it is."""
    if column.cast(pl.Int64, strict=False).null_count() == column.null_count():
        return as_integers(column)  # '007' among integers is no number
    numbers = column.cast(pl.Float64, strict=False)
    if numbers.null_count() == column.null_count():
        return numbers
    words = column.str.to_lowercase()
    if words.is_in(["true", "false"]).all() and column.null_count() < len(column):
        return (words == "true").alias(column.name)
    return column


def read_tables(
    interactions: Path | str, items: Path | str | None = None, config: ReadConfig | None = None, name: str | None = None
) -> Dataset:
    """A data set from an interactions file and, if there is one, an items file.

    Features come from `config.modality_files`. Raises DataError.
    """
    interactions = Path(interactions)
    config = config or ReadConfig()
    return make_dataset(
        read_table(interactions, is_id=config.columns.is_id),
        None if items is None else read_table(items, is_id=config.columns.is_id),
        config=config,
        name=name or interactions.name.split(".")[0],
        source=interactions,
    )


def find_table(folder: Path, stem: str) -> Path | None:
    """The table file of that stem in a folder, None where there is none. Raises DataError when there are several."""
    found = [folder / f"{stem}{suffix}" for suffix in TABLE_SUFFIXES if (folder / f"{stem}{suffix}").is_file()]
    if len(found) > 1:
        raise DataError(
            f"{folder} has several {stem} tables", got=", ".join(path.name for path in found), expected="one"
        )
    return found[0] if found else None


def _suffix(path: Path) -> str:
    """The known suffix of a table file, .gz taken off. Raises DataError."""
    unpacked = path.with_suffix("") if path.suffix == ".gz" else path
    known = (".parquet", *JSON_LINES, *SEPARATORS)
    if unpacked.suffix not in known or (path.suffix == ".gz" and unpacked.suffix not in SEPARATORS):
        raise DataError(f"{path} is not a known kind of table", expected=f"a name ending in {', '.join(known)}")
    return unpacked.suffix


def _unreadable(path: Path, suffix: str, error: Exception) -> DataError:
    """What went wrong, in our words."""
    message = str(error).splitlines()[0]
    if "utf-8" in message.lower() or "utf8" in message.lower() or isinstance(error, UnicodeError):
        return _not_utf8(path)
    return DataError(f"{path} cannot be read as {suffix[1:]}", got=message)


def _not_utf8(path: Path) -> DataError:
    return DataError(f"{path} is not UTF-8 text", fix="Save it again as UTF-8.")
