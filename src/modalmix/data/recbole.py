"""RecBole's atomic files: tab-separated <name>.inter and <name>.item whose header gives each field a type.

    user_id:token   item_id:token   rating:float   timestamp:float          in .inter
    item_id:token   movie_title:token_seq   genre:token_seq                 in .item

Benchmark splits are read too: <name>.train.inter, <name>.valid.inter, <name>.test.inter. The fields of .user are not
used by any model here and stay where they are.
"""

from pathlib import Path

import polars as pl

from modalmix.data.build import make_dataset
from modalmix.data.catalog import TITLE_COLUMNS
from modalmix.data.dataset import Dataset
from modalmix.data.mmrec import find_interactions
from modalmix.data.schema import ReadConfig
from modalmix.data.tables import read_table
from modalmix.errors import DataError

TYPES = ("token", "token_seq", "float", "float_seq")
PARTS = ("train", "valid", "test")
SENTENCES = ("title", "name", "description", "overview", "abstract")  # sequences of words that are read as one text


def read_recbole(path: Path | str, config: ReadConfig | None = None) -> Dataset:
    """The data set in a folder of atomic files.

    As in RecBole, items that only the interactions name belong to the catalogue too: below the others, by id.
    Raises DataError.
    """
    folder = Path(path)
    parts = {part: sorted(folder.glob(f"*.{part}.inter")) for part in PARTS}
    if all(len(files) == 1 for files in parts.values()):
        tables = [read_atomic(files[0]).with_columns(split=pl.lit(part)) for part, files in parts.items()]
        events, name = pl.concat(tables, how="vertical_relaxed"), parts["train"][0].name.removesuffix(".train.inter")
    else:
        file = find_interactions(folder)
        events, name = read_atomic(file), file.name.removesuffix(".inter")
    config = config or ReadConfig()
    item_file = folder / f"{name}.item"
    items = _all_items(_with_title(read_atomic(item_file)), events, config) if item_file.is_file() else None
    return make_dataset(events, items, config=config, name=name, source=folder)


def read_atomic(path: Path) -> pl.DataFrame:
    """One atomic file, columns without their types: token as integer or text, float as number, the others as lists.

    Sequences are separated by spaces; titles and descriptions stay one text. Raises DataError.
    """
    table = read_table(path, is_id=lambda header: header.endswith(":token"))
    columns = []
    for header in table.columns:
        name, _, kind = header.rpartition(":")
        if not name or kind not in TYPES:
            raise DataError(f"{path} header '{header}'", expected=f"name:type, type one of {', '.join(TYPES)}")
        columns.append(_typed(table[header].alias(name), kind, path))
    return pl.DataFrame(columns)


def is_atomic(path: Path) -> bool:
    """Whether the header of a file has typed fields."""
    with open(path, encoding="utf-8", errors="replace") as lines:
        return all(header.rpartition(":")[2] in TYPES for header in lines.readline().rstrip("\r\n").split("\t"))


def _typed(column: pl.Series, kind: str, path: Path) -> pl.Series:
    """A column read as text or numbers, in the type its header gives."""
    if kind == "token":
        return column
    if kind == "float":
        try:
            return column.cast(pl.Float64)
        except pl.exceptions.PolarsError as error:
            raise DataError(
                f"{path} field '{column.name}'", got="text", expected="numbers, as its header says"
            ) from error
    text = column.cast(pl.String)
    if kind == "token_seq" and column.name.rpartition("_")[2] in SENTENCES:
        return text
    words = text.fill_null("").str.split(" ").list.eval(pl.element().filter(pl.element() != ""))
    return words if kind == "token_seq" else words.cast(pl.List(pl.Float64))


def _with_title(items: pl.DataFrame) -> pl.DataFrame:
    """The items with a column `title`, where one ends in _title."""
    if any(name in items.columns for name in TITLE_COLUMNS):
        return items
    title = next((name for name in items.columns if name.endswith("_title")), None)
    return items if title is None else items.rename({title: "title"})


def _all_items(items: pl.DataFrame, events: pl.DataFrame, config: ReadConfig) -> pl.DataFrame:
    """The items and, below them, those that only the interactions name."""
    item = config.columns.require(items, "item", "the .item file")
    ids = events[config.columns.require(events, "item", "the .inter file")]
    if ids.dtype != items[item].dtype:
        items, ids = items.with_columns(pl.col(item).cast(pl.String)), ids.cast(pl.String)
    unlisted = ids.filter(~ids.is_in(items[item].implode())).unique().sort()
    return pl.concat([items, unlisted.alias(item).to_frame()], how="diagonal")
