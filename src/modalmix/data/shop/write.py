"""A planted shop as a data folder, with raw pictures and texts and the truth beside them."""

import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl

from modalmix.data.shop.attributes import LOOKS, WORDS
from modalmix.data.shop.pictures import to_jpeg
from modalmix.data.shop.planted import Shop
from modalmix.data.shop.truth import GROUPS, STATES
from modalmix.errors import DataError


def write_shop(shop: Shop, folder: Path | str) -> None:
    """Write a new folder, whole or not at all:

        interactions.parquet   user, item, timestamp (unix seconds)
        items.parquet          item, title, description, categories
        images/<item>.jpg      one an item that has a picture
        truth/                 shop.yaml (the settings), items, users and events .parquet: the known answer

    Raises DataError when the folder exists or cannot be written.
    """
    with _new_folder(Path(folder)) as temporary:
        events = _events(shop)
        events.write_parquet(temporary / "interactions.parquet")
        shop.dataset.catalog.table.write_parquet(temporary / "items.parquet")
        _write_pictures(shop, temporary / "images")
        _write_truth(shop, events, temporary / "truth")


def _events(shop: Shop) -> pl.DataFrame:
    """The events under external ids."""
    events, dataset = shop.dataset.interactions, shop.dataset
    return pl.DataFrame(
        {
            "user": dataset.users.series.gather(events.user),
            "item": dataset.catalog.items.series.gather(events.item),
            "timestamp": events.time,
        }
    )


def _write_pictures(shop: Shop, folder: Path) -> None:
    folder.mkdir()
    for row, item in enumerate(shop.dataset.catalog.items.series):
        picture = shop.picture(row)
        if picture is not None:
            (folder / f"{item}.jpg").write_bytes(to_jpeg(picture))


def _write_truth(shop: Shop, events: pl.DataFrame, folder: Path) -> None:
    """All that `plant` knows, under external ids and the names of the values."""
    folder.mkdir()
    truth = shop.truth
    looks = {name: np.array(values)[truth.look[:, at]] for at, (name, values) in enumerate(LOOKS.items())}
    words = {name: np.array(values)[truth.words[:, at]] for at, (name, values) in enumerate(WORDS.items())}
    states = {"image": np.array(STATES)[truth.image], "text": np.array(STATES)[truth.text]}
    rest = {"cluster": truth.cluster, "popularity": truth.popularity}
    items = pl.DataFrame({"item": shop.dataset.catalog.items.series, **looks, **words, **rest, **states})
    users = pl.DataFrame({"user": shop.dataset.users.series, "group": np.array(GROUPS)[truth.group]})
    items.write_parquet(folder / "items.parquet")
    users.write_parquet(folder / "users.parquet")
    events.with_columns(random=pl.Series(shop.random)).write_parquet(folder / "events.parquet")
    shop.config.write(folder / "shop.yaml")


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, renamed to it on success and removed on failure. Raises DataError."""
    if folder.exists():
        raise DataError(f"{folder} is there already", fix="Name a new folder, or remove this one first.")
    temporary = folder.parent / f".{folder.name}.{uuid.uuid4().hex[:8]}"
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.rename(folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be written", got=error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
