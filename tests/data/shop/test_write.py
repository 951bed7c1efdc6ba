"""Writing a shop: what is in the folder, that it is new, whole, and the same for the same seed."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from PIL import Image

from modalmix.data.folder import read_folder
from modalmix.data.shop import STATES, Shop, ShopConfig, plant, write_shop
from modalmix.data.shop.truth import GROUPS
from modalmix.errors import DataError
from modalmix.files import sha256_file

CONFIG = ShopConfig(users=40, items=60, missing_image=0.25, noise_image=0.2, missing_text=0.1, image_size=32)


@pytest.fixture(scope="module")
def shop() -> Shop:
    return plant(CONFIG)


@pytest.fixture(scope="module")
def written(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shops") / "new" / "shop"
    write_shop(shop, folder)
    return folder


def hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_file(path) for path in folder.rglob("*") if path.is_file()}


def test_the_folder_reads_back(shop: Shop, written: Path) -> None:
    read = read_folder(written)
    events, catalog = shop.dataset.interactions, shop.dataset.catalog
    assert read.catalog.table.select(catalog.table.columns).equals(catalog.table)
    assert events.time is not None
    pairs = zip(shop.dataset.users.ids(events.user), catalog.items.ids(events.item), events.time, strict=True)
    met, time = read.interactions, read.interactions.time
    assert time is not None
    again = zip(read.users.ids(met.user), read.catalog.items.ids(met.item), time, strict=True)
    assert sorted(again) == sorted(pairs)


def test_a_picture_for_each_item_that_has_one(shop: Shop, written: Path) -> None:
    present = np.flatnonzero(shop.truth.image != STATES.index("missing"))
    names = {path.stem for path in (written / "images").iterdir()}
    assert len(names) == 45
    assert names == set(shop.dataset.catalog.items.ids(present))
    picture = Image.open(io.BytesIO((written / "images" / f"A{present[0]:04}.jpg").read_bytes()))
    picture.load()
    assert picture.size == (32, 32)


def test_the_truth_is_beside_it(shop: Shop, written: Path) -> None:
    names = ("items", "users", "events")
    items, users, events = (pl.read_parquet(written / "truth" / f"{name}.parquet") for name in names)
    assert items["image"].to_list() == [STATES[state] for state in shop.truth.image]
    assert users["group"].to_list() == [GROUPS[group] for group in shop.truth.group]
    assert events["random"].to_numpy().tolist() == shop.random.tolist()
    row = items.row(7, named=True)
    title = shop.dataset.catalog.table["title"][7].lower()
    assert all(row[word] in title for word in ("material", "style", "theme"))
    assert plant(ShopConfig.read(written / "truth" / "shop.yaml")).dataset.sha256 == shop.dataset.sha256


def test_another_process_writes_the_same_bytes(written: Path, tmp_path: Path) -> None:
    shop = f"plant(ShopConfig.parse({CONFIG.model_dump()}))"
    code = f"from modalmix.data.shop import *; write_shop({shop}, {str(tmp_path / 'again')!r})"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert hashes(tmp_path / "again") == hashes(written)


def test_an_existing_folder_is_refused_and_left_alone(shop: Shop, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "notes.txt").write_text("keep")
    with pytest.raises(DataError, match="is there already"):
        write_shop(shop, folder)
    assert hashes(tmp_path).keys() == {"mine/notes.txt"}
    file = tmp_path / "file"
    file.write_text("keep")
    with pytest.raises(DataError, match="is there already"):
        write_shop(shop, file)
    with pytest.raises(DataError, match="cannot be written"):
        write_shop(shop, file / "below")


def test_a_full_disk_leaves_nothing(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[int] = []

    def full(path: Path, data: bytes) -> int:
        writes.append(len(data))
        if len(writes) > 10:
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(DataError, match="No space left"):
        write_shop(shop, tmp_path / "shop")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_appears_meanwhile_is_not_replaced(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def appears(path: Path, data: bytes) -> int:
        (tmp_path / "shop").mkdir(exist_ok=True)
        (tmp_path / "shop" / "other.txt").touch()
        return len(data)

    monkeypatch.setattr(Path, "write_bytes", appears)
    with pytest.raises(DataError, match="cannot be written"):
        write_shop(shop, tmp_path / "shop")
    assert [path.name for path in tmp_path.rglob("*")] == ["shop", "other.txt"]
