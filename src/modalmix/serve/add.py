"""Items added to a fitted run: read, encoded as the data set was, and put below the rows of its catalogue."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from modalmix.data import Catalog, Dataset, IdMap, Modality, ReadConfig, read_table
from modalmix.data.align import align, is_text
from modalmix.data.build import catalog_of, to_polars
from modalmix.data.catalog import TITLE_COLUMNS
from modalmix.data.features import modality_from, read_modality
from modalmix.data.schema import KNOWN_NAMES
from modalmix.encode import EncoderConfig, compose_text, text_columns
from modalmix.errors import DataError, EncodeError, nearest
from modalmix.train.source import FILE_TYPES, DataConfig, encode_content, files_by_id

Table = Any  # a DataFrame of polars or pandas, a list of dicts, or the path of a table
Files = Path | str | Sequence[Path | str | None]
Features = Mapping[str, np.ndarray | Path | str]
# what two provenances must agree in; precision and storage are taken over
_IDENTITY = ("encoder", "weights", "pooling", "normalisation", "preprocessing", "max_length")
_NAMED = 5


def extend_catalog(
    catalog: Catalog, dataset: Dataset, table: Table, files: Mapping[str, Files], features: Features
) -> Catalog:
    """`catalog` with the items of `table` below.

    Args:
        catalog: that of `dataset`, or one that extends it.
        dataset: says how content is encoded, and which columns texts are written from.
        table: see `Run.add_items`.
        files: "image" or "audio" -> a folder, or one path a row.
        features: modality -> matrix or feature file, rows as in `table`.

    Raises DataError, EncodeError.
    """
    config = DataConfig.parse(dataset.reading)
    new = _read(table, catalog, config.reader)
    _check_ids(new.items, catalog.items)
    for name in (*files, *features):
        if name not in catalog.modalities:
            fix = nearest(name, catalog.modalities) if catalog.modalities else "It has none."
            raise DataError(f"new items have modality '{name}', data set '{dataset.name}' does not", fix=fix)
        if name in files and name in features:
            raise DataError(f"modality '{name}' of the new items is given twice", got="files and features")
    given = {name: _given(catalog.modalities[name], value, new) for name, value in features.items()}
    raw = _raw_content(new, dataset, files, config, without=tuple(given))
    modalities = given | _encoded(raw, dataset.catalog.modalities, config)
    added = align(new.table, _schema(new.table, catalog))
    return catalog.extend(added, {name: modality.matrix() for name, modality in modalities.items()})


def warn_without_content(catalog: Catalog, start: int, modalities: Sequence[str]) -> None:
    """Name the items from row `start` on that have none of the modalities a model reads."""
    if not modalities:
        return
    bare = ~np.any([catalog.modality(name).present[start:] for name in modalities], axis=0)
    if bare.any():
        names = ", ".join(repr(id) for id in catalog.items.ids(start + np.flatnonzero(bare)[:_NAMED]))
        warnings.warn(
            f"{bare.sum():,} of {len(bare):,} new items have no {' and no '.join(modalities)}: a content model scores "
            f"them as the mean item. First: {names}",
            stacklevel=3,
        )


def _read(table: Table, catalog: Catalog, config: ReadConfig) -> Catalog:
    """The new items, their table, and no modality. Columns that the data set has as text are read as text."""
    id_columns = {*KNOWN_NAMES["item"], config.columns.item or "item"}
    if isinstance(table, str | Path):
        as_text = {name for name, dtype in catalog.table.schema.items() if is_text(dtype)} | set(TITLE_COLUMNS)
        as_text = as_text | id_columns if catalog.items.is_text else as_text - id_columns
        return catalog_of(read_table(table, as_text), config)
    new = catalog_of(to_polars(table), config)
    if isinstance(table, list):  # polars makes text of a number beside a text
        kinds = {type(row[name]).__name__ for row in table for name in id_columns if row.get(name) is not None}
        if len(kinds) > 1:
            raise DataError("ids of the new items are of several types", got=", ".join(sorted(kinds)), expected="one")
    return new


def _check_ids(new: IdMap, known: IdMap) -> None:
    if new.is_text != known.is_text:
        words = {True: "text", False: "integers"}
        raise DataError(
            "ids of the new items", got=words[new.is_text], expected=f"{words[known.is_text]}, as known ids"
        )
    there = new.series.filter(pl.Series(known.find(new.series) >= 0))
    if len(there):
        raise DataError(
            f"{len(there):,} of {len(new):,} new items are in the catalogue already",
            got=", ".join(repr(id) for id in there[:_NAMED]) + (", ..." if len(there) > _NAMED else ""),
            fix="Add an item once; the content of a known one is the data set's.",
        )


def _given(modality: Modality, value: np.ndarray | Path | str, new: Catalog) -> Modality:
    """Features of the new items, checked against the data set's."""
    if isinstance(value, str | Path):
        given = read_modality(modality.name, Path(value), new)
    else:
        given = modality_from(modality.name, np.asarray(value), new)
    Catalog(new.items, {modality.name: given})  # one row an item
    if given.dim != modality.dim:
        raise DataError(
            f"features '{modality.name}' of the new items",
            got=f"dim {given.dim}",
            expected=f"dim {modality.dim}, as in the data set",
            fix="Encode them with the encoder of the data set.",
        )
    _check_encoder(modality, given)
    return given


def _raw_content(
    new: Catalog, dataset: Dataset, files: Mapping[str, Files], config: DataConfig, without: tuple[str, ...]
) -> dict[str, Sequence[Path | str | None]]:
    """Modality -> one file or text an item, where there is any. Raises DataError for files that nothing can encode."""
    modalities = dataset.catalog.modalities
    contents: dict[str, Sequence[Path | str | None]] = {}
    for name, given in files.items():
        if not _encoder_known(modalities[name]):
            raise DataError(
                f"files of '{name}' cannot be encoded: the data set has features of an unknown encoder",
                fix=f"Give features={{'{name}': matrix}}.",
            )
        contents[name] = _paths(name, given, new.items)
    if "text" in modalities and "text" not in without:
        texts = _texts(new, dataset, config)
        if _encoder_known(modalities["text"]):
            contents["text"] = texts
        elif any(texts):
            warnings.warn(
                "the texts of the new items are not read: the data set has text features of an unknown encoder. "
                "Give features={'text': matrix}",
                stacklevel=4,
            )
    return {name: content for name, content in contents.items() if any(one is not None for one in content)}


def _texts(new: Catalog, dataset: Dataset, config: DataConfig) -> list[str | None]:
    """The texts of the new items, from the columns of the data set's texts."""
    table = dataset.catalog.table
    columns = dataset.catalog.modalities["text"].provenance.get("columns") or text_columns(table, config.text)
    return compose_text(align(new.table, {name: table.schema.get(name, pl.String()) for name in columns}), columns)


def _paths(name: str, given: Files, items: IdMap) -> list[Path | str | None]:
    """One path an item, from a folder or a list. A listed file that is missing is absent, and encoding says so."""
    if isinstance(given, str | Path):
        if not Path(given).is_dir():
            raise DataError(f"{name} files of the new items", got=str(given), expected="a folder, or a list of paths")
        by_id = files_by_id([Path(given)], FILE_TYPES[name])
        return [by_id.get(str(id)) for id in items.series.to_list()]
    if len(given) != len(items):
        raise DataError(f"{name} files of the new items", got=f"{len(given):,} paths", expected=f"{len(items):,}")
    return list(given)


def _encoded(
    contents: Mapping[str, Sequence[Path | str | None]], modalities: Mapping[str, Modality], config: DataConfig
) -> dict[str, Modality]:
    """Features by the encoders and settings of the data set's. Raises EncodeError when they are other ones by now."""
    settings: dict[str, EncoderConfig] = {"image": config.image, "text": config.text, "audio": config.audio}
    used = {name: _settings_of(modalities[name], settings[name]) for name in contents}
    encoded = encode_content(contents, config.replace(**{name: one.model_dump() for name, one in used.items()}))
    for name, modality in encoded.items():
        _check_encoder(modalities[name], modality)
    return encoded


def _settings_of(modality: Modality, config: EncoderConfig) -> EncoderConfig:
    """The settings with everything that the provenance of the data set's features names."""
    recorded = modality.provenance
    return config.replace(**{name: recorded[name] for name in type(config).model_fields if name in recorded})


def _encoder_known(modality: Modality) -> bool:
    return "encoder" in modality.provenance and "weights" in modality.provenance


def _check_encoder(known: Modality, new: Modality) -> None:
    """Raise EncodeError where both say whence, and not the same."""
    for name in _IDENTITY:
        before, now = known.provenance.get(name), new.provenance.get(name)
        if before is not None and now is not None and before != now:
            raise EncodeError(
                f"'{known.name}' of the new items comes from another encoder: its {name} differs",
                got=now,
                expected=before,
                fix="Encode them as the data set was, or encode and train again.",
            )


def _schema(table: pl.DataFrame, catalog: Catalog) -> dict[str, pl.DataType]:
    """The columns of the catalogue's table, and a title of the new items."""
    titles = {name: pl.String() for name in TITLE_COLUMNS if name in table.columns}
    return {**titles, **catalog.table.schema}
