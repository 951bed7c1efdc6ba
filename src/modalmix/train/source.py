"""From a path to a data set with features: the one place where reading and encoding meet."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from modalmix.config import Config
from modalmix.data import Catalog, Dataset, Modality, ReadConfig, read_dataset, write_modality
from modalmix.encode import (
    AudioConfig,
    Encoded,
    ImageConfig,
    TextConfig,
    compose_text,
    encode_audio,
    encode_images,
    encode_text,
    text_columns,
)
from modalmix.errors import DataError

FILE_TYPES = {
    "image": (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif"),
    "audio": (".wav", ".flac", ".ogg", ".mp3"),
}
FOLDERS = {"image": ("images", "image"), "audio": ("audio", "sounds")}


class DataConfig(Config):
    """What to read, and which features to give the models."""

    features: Literal["auto", "raw", "files", "none"] = "auto"
    """raw: encode pictures, texts, sounds; files: take feature files; auto: files where there are any, else raw."""
    modalities: tuple[str, ...] | None = None
    """Names of the modalities to keep; all that are found without it."""
    reader: ReadConfig = ReadConfig()
    """Columns, filters and duplicates."""
    text: TextConfig = TextConfig()
    """How texts are encoded."""
    image: ImageConfig = ImageConfig()
    """How pictures are encoded."""
    audio: AudioConfig = AudioConfig()
    """How sounds are encoded."""


def open_dataset(path: Path | str, config: DataConfig | None = None) -> Dataset:
    """Read a data set and attach its features. Raises DataError, EncodeError.

    Raw content: a folder images/ (audio/) with one file an item, named by its id, and the text columns of the item
    table. A modality that has no raw content is taken from its feature file.
    """
    config = config or DataConfig()
    return with_features(read_dataset(path, config.reader), config)


def with_features(dataset: Dataset, config: DataConfig) -> Dataset:
    """The data set with the modalities that `config` asks for."""
    modalities: dict[str, Modality] = {}
    if config.features != "none":
        modalities = dict(dataset.catalog.modalities)
        if config.features == "raw" or (config.features == "auto" and not modalities):
            modalities |= encode_catalog(dataset, config)
    catalog = Catalog(dataset.catalog.items, modalities, dataset.catalog.table)
    if config.modalities is not None:
        missing = [name for name in config.modalities if name not in modalities]
        if missing:
            raise DataError(
                f"data set '{dataset.name}' has no modality '{missing[0]}'",
                expected=f"one of {', '.join(modalities) or '(none)'}",
                fix="Encode it from raw content with features=raw, or add a feature file.",
            )
        catalog = catalog.select(config.modalities)
    return replace(dataset, catalog=catalog, reading=_recorded(config))


def _recorded(config: DataConfig) -> dict[str, Any]:
    """The settings as another working folder can use them. Links stay: what they point to may have another suffix."""
    files = {name: path.absolute() for name, path in config.reader.modality_files.items()}
    return config.merge({"reader": {"modality_files": files}}).model_dump(mode="json")


def encode_catalog(dataset: Dataset, config: DataConfig) -> dict[str, Modality]:
    """Features of every kind of raw content the data set has (and `config.modalities` asks for)."""
    table = dataset.catalog.table
    contents: dict[str, Sequence[Path | str | None]] = {**raw_files(dataset)}
    columns = text_columns(table, config.text)
    if columns:
        contents["text"] = compose_text(table, columns)
    encoded = encode_content({name: one for name, one in contents.items() if _wanted(name, config)}, config)
    if "text" in encoded:
        provenance = {**encoded["text"].provenance, "columns": list(columns)}
        encoded["text"] = replace(encoded["text"], provenance=provenance)
    return encoded


def encode_content(contents: Mapping[str, Sequence[Path | str | None]], config: DataConfig) -> dict[str, Modality]:
    """Features of one content an item and modality: files of "image" and "audio", texts of "text"; None is absent.

    The one way from raw content to features, for a data set and for items added to it. Raises EncodeError.
    """
    encoded: dict[str, Encoded] = {}
    for name, content in contents.items():
        if name == "image":
            encoded[name] = encode_images(content, config.image)
        elif name == "audio":
            encoded[name] = encode_audio(content, config.audio)
        else:
            encoded[name] = encode_text(cast(Sequence[str | None], content), config.text)
    return {
        name: Modality.from_matrix(name, one.features, present=np.asarray(one.present), provenance=one.provenance)
        for name, one in encoded.items()
    }


def raw_files(dataset: Dataset) -> dict[str, list[Path | None]]:
    """Modality -> one path an item (None where there is no file), for the kinds of which there is any file."""
    if dataset.source is None or not dataset.source.is_dir():
        return {}
    ids = [str(id) for id in dataset.catalog.items.series.to_list()]
    found: dict[str, list[Path | None]] = {}
    for name, folders in FOLDERS.items():
        by_id = files_by_id([dataset.source / folder for folder in folders], FILE_TYPES[name])
        if by_id:
            found[name] = [by_id.get(id) for id in ids]
    return found


def files_by_id(folders: Iterable[Path], suffixes: Collection[str]) -> dict[str, Path]:
    """The files of these types by the item that they are named after; the first one where an item has several."""
    by_id: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.glob("*")):
            if path.suffix.lower() in suffixes:
                by_id.setdefault(path.stem, path)
    return by_id


def examine_raw(dataset: Dataset) -> list[str]:
    """What is odd about the raw files: items without one, empty ones, and files that belong to no item."""
    notes = []
    known = {str(id) for id in dataset.catalog.items.series.to_list()}
    for name, paths in raw_files(dataset).items():
        present = [path for path in paths if path is not None]
        empty = [path.name for path in present if path.stat().st_size == 0]
        folder = present[0].parent if present else None
        files = [path for path in folder.glob("*") if path.suffix.lower() in FILE_TYPES[name]] if folder else []
        strange = [path.name for path in files if path.stem not in known]
        if len(present) < len(paths):
            notes.append(f"{len(paths) - len(present):,} of {len(paths):,} items have no {name} file")
        if empty:
            notes.append(f"{len(empty):,} {name} files are empty, {empty[0]} for one")
        if strange:
            notes.append(f"{len(strange):,} {name} files belong to no item, {strange[0]} for one")
    return notes


def _wanted(name: str, config: DataConfig) -> bool:
    return config.modalities is None or name in config.modalities


def encode_to(dataset: Dataset, folder: Path, overwrite: bool = False) -> None:
    """Write each modality as NAME.npy (absent rows NaN) with NAME.json beside it. Raises DataError when one exists."""
    for modality in dataset.catalog.modalities.values():
        write_modality(modality, dataset.catalog.items, folder, overwrite=overwrite)
