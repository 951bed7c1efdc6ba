"""Read a data set of any known format."""

from pathlib import Path
from typing import Literal

from modalmix.data.build import make_dataset
from modalmix.data.dataset import Dataset
from modalmix.data.folder import read_folder
from modalmix.data.mmrec import read_mmrec
from modalmix.data.recbole import is_atomic, read_atomic, read_recbole
from modalmix.data.schema import ReadConfig
from modalmix.data.tables import TABLE_SUFFIXES, find_table, read_tables
from modalmix.errors import DataError

Format = Literal["folder", "mmrec", "recbole", "file"]


def read_dataset(path: Path | str, config: ReadConfig | None = None) -> Dataset:
    """The data set at `path`: our folder, an MMRec or RecBole folder, or one file of interactions. Raises DataError."""
    path = Path(path)
    match detect_format(path):
        case "folder":
            return read_folder(path, config)
        case "mmrec":
            return read_mmrec(path, config)
        case "recbole":
            return read_recbole(path, config)
    if path.suffix == ".inter" and is_atomic(path):
        return make_dataset(read_atomic(path), config=config, name=path.stem, source=path)
    return read_tables(path, config=config)


def detect_format(path: Path | str) -> Format:
    """Which format a path has, by the names of its files and the header of an .inter file. Raises DataError."""
    path = Path(path)
    if path.is_file():
        return "file"
    if not path.is_dir():
        raise DataError(f"{path} is not there", expected="a folder or a file of interactions")
    if find_table(path, "interactions"):
        return "folder"
    atomic_files = sorted(path.glob("*.inter"))
    if not atomic_files:
        names = sorted(file.name for file in path.iterdir())
        raise DataError(
            f"{path} is not a data set",
            got=", ".join(names[:5]) + (", ..." if len(names) > 5 else "") or "an empty folder",
            expected=f"interactions{', '.join(TABLE_SUFFIXES)}, or a .inter file of MMRec or RecBole",
        )
    return "recbole" if is_atomic(atomic_files[0]) else "mmrec"
