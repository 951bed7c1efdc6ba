"""MMRec's folders: <name>.inter (userID, itemID, rating, timestamp, x_label) and <modality>_feat.npy, by row number.

i_id_mapping.csv and u_id_mapping.csv, where they are, give the original ids; else the row numbers are the ids.
"""

from pathlib import Path

import numpy as np
import polars as pl

from modalmix.data.build import make_dataset
from modalmix.data.dataset import Dataset
from modalmix.data.features import find_features, read_features
from modalmix.data.schema import ReadConfig
from modalmix.data.tables import read_table, read_text_table
from modalmix.errors import DataError

LABELS = {0: "train", 1: "valid", 2: "test"}
FEATURE_ENDING = "_feat"


def read_mmrec(path: Path | str, config: ReadConfig | None = None) -> Dataset:
    """The data set in an MMRec folder; image_feat.npy is the modality image, and so on, memory-mapped.

    Raises DataError, also for an x_label other than 0 (train), 1 (valid), 2 (test), and for settings columns.*: the
    format itself says which column is what.
    """
    folder, config = Path(path), config or ReadConfig()
    chosen = [name for name, column in config.columns.model_dump().items() if column is not None]
    if chosen:
        raise DataError(
            f"setting columns.{chosen[0]} with the MMRec folder {folder}",
            got=repr(getattr(config.columns, chosen[0])),
            fix="Leave it out: MMRec's files have columns of fixed names.",
        )
    file = find_interactions(folder)
    events = read_table(file)
    missing = {"userID", "itemID"} - set(events.columns)
    if missing:
        raise DataError(f"{file} has no column {min(missing)}", got=f"columns {', '.join(events.columns)}")
    features = {
        name.removesuffix(FEATURE_ENDING): feature_file
        for name, feature_file in find_features(folder).items()
        if name.endswith(FEATURE_ENDING)
    }
    rows = events["itemID"]  # integers, or text: see read_table
    if rows.null_count() or not rows.dtype.is_integer() or int(rows.min()) < 0:  # type: ignore[arg-type]
        raise DataError(f"{file} column itemID", expected="row numbers from 0")
    sizes = [len(read_features(feature_file, name)) for name, feature_file in features.items()]
    n_items = max([int(rows.max()) + 1, *sizes])  # type: ignore[arg-type]
    items = pl.DataFrame({"itemID": np.arange(n_items)})
    items = _with_ids(items, folder / "i_id_mapping.csv", "itemID", "item")
    users = _with_ids(events.select(pl.col("userID").unique()), folder / "u_id_mapping.csv", "userID", "user")
    events = events.join(items, on="itemID", maintain_order="left").join(users, on="userID", maintain_order="left")
    renamed = {"user": "user", "item": "item", "rating": "rating", "timestamp": "timestamp", "x_label": "split"}
    events = events.select(pl.col(old).alias(new) for old, new in renamed.items() if old in events.columns)
    if "split" in events.columns:
        events = events.with_columns(_labels(events["split"], file))
    return make_dataset(events, items, features, config, name=file.name.split(".")[0], source=folder)


def find_interactions(folder: Path) -> Path:
    """The one .inter file of a folder. Raises DataError when there is none, or several and none named as the folder."""
    found = sorted(folder.glob("*.inter"))
    named = folder / f"{folder.resolve().name}.inter"
    if named in found:
        return named
    if len(found) != 1:
        got = ", ".join(path.name for path in found) or "none"
        raise DataError(f"{folder} needs one .inter file", got=got, expected=named.name)
    return found[0]


def _labels(column: pl.Series, file: Path) -> pl.Series:
    unknown = column.filter(~column.is_in(list(LABELS)))
    if len(unknown):
        raise DataError(f"{file} column x_label", got=repr(unknown[0]), expected="0 (train), 1 (valid) or 2 (test)")
    return column.replace_strict(LABELS, return_dtype=pl.String).alias("split")


def _with_ids(table: pl.DataFrame, file: Path, number: str, kind: str) -> pl.DataFrame:
    """`table` with the column `kind`: the original id of each row number, the number itself without a mapping file."""
    if not file.is_file():
        return table.with_columns(pl.col(number).alias(kind))
    mapping = _read_mapping(file)
    others = [name for name in mapping.columns if name != number]
    if number not in mapping.columns or not others:
        raise DataError(f"{file}", got=f"columns {', '.join(mapping.columns)}", expected=f"an id and {number}")
    if mapping[number].dtype != table[number].dtype:  # one of them holds text
        raise DataError(
            f"{file} column {number}",
            got=mapping[number].dtype,
            expected=f"{table[number].dtype}, as in the .inter file",
        )
    mapping = mapping.select(pl.col(number), pl.col(others[0]).cast(pl.String).alias(kind))
    joined = table.join(mapping, on=number, how="left", maintain_order="left")
    unmapped = joined.filter(pl.col(kind).is_null())
    if len(unmapped) or len(joined) != len(table):
        got = f"{len(unmapped):,} without an id" if len(unmapped) else "a number twice"
        raise DataError(f"{file} does not give each {number} one id", got=got)
    return joined


def _read_mapping(file: Path) -> pl.DataFrame:
    """A mapping file of ids and numbers; its name says .csv, its separator is mostly a tab."""
    with open(file, encoding="utf-8", errors="replace") as lines:
        tabs = "\t" in lines.readline()
    if tabs:
        return read_text_table(file, "\t", None, as_text=(), is_id=lambda name: True)
    return read_table(file, is_id=lambda name: True)
