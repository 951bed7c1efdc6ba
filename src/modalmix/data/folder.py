"""The folder of a data set.

    interactions.parquet   user, item, [timestamp | order], [rating], [split]
    items.parquet          item, title, description, categories (list), any more columns
    <modality>.npy         or .safetensors, one row an item; beside it, optionally, <modality>.json
    <modality>_knn10.npz   each item's most similar ones, for models over item graphs
    images/<item>.jpg      raw pictures, for the encoders

Tables may be .csv, .tsv, .jsonl (also .csv.gz, .tsv.gz) as well. Other files are left alone.
"""

from pathlib import Path

from modalmix.data.build import make_dataset
from modalmix.data.dataset import Dataset
from modalmix.data.features import find_features
from modalmix.data.neighbors import find_neighbors
from modalmix.data.schema import ReadConfig
from modalmix.data.tables import TABLE_SUFFIXES, find_table, read_table
from modalmix.errors import DataError


def read_folder(path: Path | str, config: ReadConfig | None = None) -> Dataset:
    """The data set in a folder; features stay on disk, memory-mapped. Raises DataError for anything it cannot trust."""
    folder = Path(path)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder" if folder.exists() else f"{folder} is not there")
    interactions, items = find_table(folder, "interactions"), find_table(folder, "items")
    if interactions is None:
        raise DataError(f"{folder} has no interactions", expected=f"interactions{', '.join(TABLE_SUFFIXES)}")
    config = config or ReadConfig()
    return make_dataset(
        read_table(interactions, is_id=config.columns.is_id),
        None if items is None else read_table(items, is_id=config.columns.is_id),
        find_features(folder),
        config,
        neighbors={} if items is None else find_neighbors(folder),
        name=folder.resolve().name,
        source=folder,
    )
