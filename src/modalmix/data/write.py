"""Write our folder format. A folder appears whole or not at all."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl

from modalmix.data.dataset import Dataset
from modalmix.data.features import find_features
from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.data.modality import Modality
from modalmix.data.neighbors import find_neighbors, owner_of, write_neighbors
from modalmix.data.tables import find_table
from modalmix.errors import DataError
from modalmix.files import atomic, sha256_file, write_json

_BLOCK_ROWS = 65_536


def write_folder(dataset: Dataset, path: Path | str, overwrite: bool = False) -> Path:
    """Write interactions.parquet, items.parquet and per modality <name>.npy (absent rows NaN) with <name>.json;
    its graph, where it has one, as <name>_knn<k>.npz.

    Written beside `path` and renamed, so that a full disk or a kill leaves the old folder or none. `overwrite` replaces
    a data set of these files; a folder with anything else in it (pictures, say) is never replaced.
    Raises DataError when the folder is there, or a write fails.
    """
    target = Path(path)
    _check_target(target, overwrite)
    try:
        with _whole_folder(target) as folder:
            dataset_table(dataset, dataset.interactions, dataset.labels).write_parquet(folder / "interactions.parquet")
            dataset.catalog.table.write_parquet(folder / "items.parquet")
            for modality in dataset.catalog.modalities.values():
                write_modality(modality, dataset.catalog.items, folder)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{target} cannot be written", got=error, fix="Nothing was changed.") from error
    return target


def write_modality(modality: Modality, items: IdMap, folder: Path, overwrite: bool = False) -> None:
    """Write <name>.npy, rows in the order of `items`, absent rows NaN, and <name>.json with dim, ids and sha256.

    Its graph, where it has one, is <name>_knn<k>.npz, in place of any of its name; without one such a file stays, as it
    may be given. Raises DataError when there is such a file and `overwrite` is not set.
    """
    file, sidecar = folder / f"{modality.name}.npy", folder / f"{modality.name}.json"
    graph = modality.neighbors
    old = None if graph is None else find_neighbors(folder).get(modality.name)
    for there in (file, sidecar, file.with_suffix(".safetensors"), *([old] if old else [])):
        if there.exists() and (not overwrite or there.suffix == ".safetensors"):
            raise DataError(f"{there} is there already", fix="Choose another folder, or overwrite.")
    with atomic(file) as temporary:
        _write_rows(modality, temporary)
    kept = {key: value for key, value in modality.provenance.items() if key not in ("ids", "dim", "sha256")}
    facts = {"dim": modality.dim, "sha256": sha256_file(file), "ids": items.series.to_list()}
    write_json(sidecar, {**kept, **facts})
    if graph is not None:
        path = folder / f"{modality.name}_knn{graph.k}.npz"
        write_neighbors(path, graph)
        if old is not None and old != path:  # of another k: two graphs of a name are an error
            old.unlink()


def dataset_table(dataset: Dataset, events: Interactions, labels: np.ndarray | None) -> pl.DataFrame:
    """Events under external ids: user, item, and timestamp or order, rating, split where there are."""
    columns = {
        "user": dataset.users.series.gather(events.user),
        "item": dataset.catalog.items.series.gather(events.item),
    }
    if events.time is not None:
        columns["timestamp" if events.in_seconds else "order"] = pl.Series(events.time)
    if events.rating is not None:
        columns["rating"] = pl.Series(events.rating)
    if labels is not None:
        columns["split"] = pl.Series(labels.tolist(), dtype=pl.String)
    return pl.DataFrame(columns)


def _write_rows(modality: Modality, file: Path) -> None:
    """The matrix block by block, so that a memory map is never whole in memory."""
    shape = (len(modality), modality.dim)
    with open(file, "wb") as out:
        header = {"descr": modality.features.dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, header)
        for start in range(0, len(modality), _BLOCK_ROWS):
            rows = np.array(modality.features[start : start + _BLOCK_ROWS])
            rows[~modality.present[start : start + _BLOCK_ROWS]] = np.nan
            out.write(rows.tobytes())


def _check_target(target: Path, overwrite: bool) -> None:
    """Raises DataError when writing there would lose something."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if not target.is_dir():
        raise DataError(f"{target} is a file", expected="a folder")
    if not overwrite:
        raise DataError(f"{target} is there already", fix="Choose another folder, or overwrite.")
    ours = {file for stem in ("interactions", "items") if (file := find_table(target, stem))}
    graphs = find_neighbors(target)
    for name, features in find_features(target).items():
        owner = owner_of(name, graphs)
        ours |= {features, features.with_suffix(".json"), *([graphs[owner]] if owner else [])}
    others = sorted(file.name for file in target.iterdir() if file not in ours)
    if others:
        raise DataError(f"{target} holds more than a data set", got=", ".join(others[:5]), fix="Choose another folder.")


@contextmanager
def _whole_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target`; on success it takes its place, on failure it is removed."""
    target = target.absolute()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        folder, old = temporary / "new", temporary / "old"
        folder.mkdir()
        yield folder
        if target.exists():
            os.replace(target, old)
        try:
            os.replace(folder, target)
        except OSError:
            if old.exists():
                os.replace(old, target)
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
