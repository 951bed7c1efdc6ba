"""Feature files: <modality>.npy (memory-mapped) or .safetensors, with an optional JSON sidecar that says whence."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float

from modalmix.data.catalog import Catalog
from modalmix.data.ids import IdMap
from modalmix.data.modality import Modality
from modalmix.data.neighbors import owner_of, read_neighbors
from modalmix.data.schema import ReadConfig
from modalmix.errors import DataError, nearest
from modalmix.files import read_json, sha256_file

FEATURE_SUFFIXES = (".npy", ".safetensors")


def find_features(folder: Path) -> dict[str, Path]:
    """Feature files of a folder by modality name. Raises DataError when a modality has two files."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in FEATURE_SUFFIXES and not path.name.startswith("."):
            if path.stem in found:
                raise DataError(
                    f"modality '{path.stem}' has two files", got=f"{found[path.stem].name}, {path.name}", expected="one"
                )
            found[path.stem] = path
    return found


def read_modalities(
    catalog: Catalog, found: Mapping[str, Path], config: ReadConfig, without: tuple[str, ...] = ()
) -> dict[str, Modality]:
    """The modalities that the settings ask for, from the files found and `config.modality_files`.

    Modalities named in `without` are at hand already. Raises DataError for a name without a file.
    """
    files = {**found, **config.modality_files}
    wanted = tuple(files) if config.modalities is None else config.modalities
    for name in wanted:
        if name not in files and name not in without:
            known = nearest(name, files) if files else "There are no feature files."
            raise DataError(f"there is no modality '{name}'", fix=known)
    return {name: read_modality(name, files[name], catalog) for name in wanted if name not in without}


def read_modality(name: str, path: Path, catalog: Catalog) -> Modality:
    """The features of one modality, rows in the order of the catalogue.

    The sidecar may give `ids` (one a row; items without a row are absent) and `sha256` of the feature file (checked).
    A column has_<name> of the items table, where there is one, says who has the modality. Raises DataError.
    """
    path = Path(path)
    sidecar = _read_sidecar(path)
    features = read_features(path, name)
    if "sha256" in sidecar and sidecar["sha256"] != sha256_file(path):
        raise DataError(
            f"{path} is not the file its sidecar describes",
            got="another sha256",
            expected=str(sidecar["sha256"]),
            fix="Encode again, or take sha256 out of the JSON.",
        )
    if "dim" in sidecar and features.ndim == 2 and sidecar["dim"] != features.shape[1]:
        raise DataError(f"{path}", got=f"dim {features.shape[1]}", expected=f"dim {sidecar['dim']} as its sidecar says")
    if "ids" in sidecar:
        features = _in_catalog_order(features, IdMap(sidecar["ids"]), catalog.items, path)
    return modality_from(name, features, catalog, {key: value for key, value in sidecar.items() if key != "ids"})


def modality_from(
    name: str,
    features: Float[np.ndarray, "items dim"],
    catalog: Catalog,
    provenance: Mapping[str, Any] | None = None,
) -> Modality:
    """A checked modality, absent also where the column has_<name> of the items table says so. Raises DataError."""
    modality = Modality.from_matrix(name, features, provenance=provenance)
    column = f"has_{name}"
    if column not in catalog.table.columns or len(modality) != len(catalog):  # Catalog says what the length lacks
        return modality
    dtype = catalog.table[column].dtype
    if dtype != pl.Boolean and not dtype.is_integer():
        raise DataError(f"items column '{column}'", got=f"dtype {dtype}", expected="true or false")
    declared = catalog.table[column].cast(pl.Boolean).fill_null(False).to_numpy()
    return replace(modality, present=modality.present & declared)


def with_neighbors(modalities: Mapping[str, Modality], files: Mapping[str, Path]) -> dict[str, Modality]:
    """The modalities, each with the graph it takes (`owner_of`); a file that none takes is not read.

    Raises DataError for a wrong graph, or one with another number of rows than there are items.
    """
    found = dict(modalities)
    for name, modality in modalities.items():
        owner = owner_of(name, files)
        if owner is None:
            continue
        graph = read_neighbors(files[owner])
        if len(graph) != len(modality):
            raise DataError(
                f"graph file {files[owner]}", got=f"{len(graph):,} rows", expected=f"{len(modality):,}, one an item"
            )
        found[name] = replace(modality, neighbors=graph)
    return found


def read_features(path: Path, name: str) -> Float[np.ndarray, "rows dim"]:
    """The matrix in a .npy file (memory-mapped) or .safetensors file (tensor `name`, `features` or the only one).

    Raises DataError when the file is missing or not such a file.
    """
    if not path.is_file():
        raise DataError(f"feature file {path} is not there")
    if path.suffix not in FEATURE_SUFFIXES:
        raise DataError(f"feature file {path}", expected=f"a name ending in {' or '.join(FEATURE_SUFFIXES)}")
    try:
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False)
        return _read_safetensors(path, name)
    except DataError:
        raise
    except Exception as error:  # numpy and safetensors raise a dozen kinds for a torn or foreign file
        raise DataError(f"feature file {path} cannot be read", got=str(error).splitlines()[0]) from error


def _read_safetensors(path: Path, name: str) -> np.ndarray:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        keys = list(file.keys())
        key = next((key for key in (name, "features") if key in keys), keys[0] if len(keys) == 1 else None)
        if key is None:
            raise DataError(f"{path} holds several tensors", got=", ".join(keys), expected=f"one named '{name}'")
        return file.get_tensor(key)


def _read_sidecar(path: Path) -> dict[str, Any]:
    """The JSON beside a feature file, empty where there is none. Raises DataError."""
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file():
        return {}
    try:
        values = read_json(sidecar)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{sidecar} is not JSON", got=error) from error
    if not isinstance(values, dict):
        raise DataError(f"{sidecar}", got=type(values).__name__, expected="a mapping with encoder, dim, ids, sha256")
    return values


def _in_catalog_order(features: np.ndarray, ids: IdMap, items: IdMap, path: Path) -> np.ndarray:
    """Rows by item of the catalogue, NaN for items that have none. Raises DataError when no id is known."""
    if len(ids) != len(features):
        raise DataError(
            f"{path}", got=f"{len(features):,} rows", expected=f"{len(ids):,} rows, one an id of its sidecar"
        )
    rows = ids.find(items.series)
    if len(items) == len(ids) and np.array_equal(rows, np.arange(len(ids))):
        return features  # stays memory-mapped
    if not (rows >= 0).any():
        raise DataError(
            f"no id of {path.with_suffix('.json').name} is in the catalogue",
            got=", ".join(repr(id) for id in ids.series[:3]),
            expected=f"ids such as {', '.join(repr(id) for id in items.series[:3])}",
        )
    ordered = np.asarray(features[np.maximum(rows, 0)])
    ordered[rows < 0] = np.nan
    return ordered
