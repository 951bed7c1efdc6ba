import os
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest

from modalmix.data import Columns, ReadConfig, make_split, read_folder
from modalmix.errors import DataError


def test_a_small_folder_by_eye(folder):
    data = read_folder(folder)
    assert data.name == "small"
    assert data.source == folder
    assert data.users.series.to_list() == ["u1", "u2", "u3"]
    assert data.catalog.items.series.to_list() == ["c", "a", "b", "d"]
    assert data.interactions.user.tolist() == [1, 0, 0, 1, 0, 2]
    assert data.interactions.item.tolist() == [1, 2, 1, 0, 0, 1]
    assert data.interactions.time[0] == 1_000_000_005
    assert data.interactions.rating.tolist() == [5, 1, 4, 3, 5, 2]
    assert data.catalog.titles(range(4)) == ["Chair", "Apple", "b", "Drum"]
    assert data.catalog.table["categories"].to_list()[1] == ["y", "x"]
    # b: has_image is False; d: a row of NaN
    assert data.catalog.modality("image").present.tolist() == [True, True, False, False]
    assert data.counts == {"events_read": 6, "duplicates_merged": 0}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_tables_in_other_formats_give_the_same_data(folder, suffix):
    expected = read_folder(folder)
    for name in ("interactions", "items"):
        table = pl.read_parquet(folder / f"{name}.parquet")
        (folder / f"{name}.parquet").unlink()
        if suffix == ".jsonl":
            table.write_ndjson(folder / f"{name}.jsonl")
        else:
            table = table.drop("categories", strict=False)
            table.write_csv(folder / f"{name}{suffix}", separator="," if suffix == ".csv" else "\t")
    assert read_folder(folder).sha256 == expected.sha256
    assert read_folder(folder).catalog.sha256 == expected.catalog.sha256


def test_duplicates_are_merged_to_the_earliest_and_counted(folder):
    table = pl.read_parquet(folder / "interactions.parquet")
    later = table.with_columns(timestamp=pl.col("timestamp") + 100, rating=pl.lit(9.0))
    pl.concat([later, table]).write_parquet(folder / "interactions.parquet")
    data = read_folder(folder)
    assert data.counts["duplicates_merged"] == 6
    assert data.interactions.rating.tolist() == [5, 1, 4, 3, 5, 2]


def test_npz_and_other_files_are_left_alone(folder):
    (folder / "graph.npz").write_bytes(b"junk")
    (folder / "README.md").write_text("hello")
    assert set(read_folder(folder).catalog.modalities) == {"image"}
    assert read_folder(folder, ReadConfig(modalities=())).catalog.modalities == {}


def test_no_items_table(folder):
    (folder / "items.parquet").unlink()
    with pytest.raises(DataError, match=r"belong to no known items. Add items.parquet"):
        read_folder(folder)
    assert read_folder(folder, ReadConfig(modalities=())).catalog.items.series.to_list() == ["a", "b", "c"]


def test_bad_folders(folder, tmp_path):
    with pytest.raises(DataError, match="is not there"):
        read_folder(tmp_path / "nothing")
    with pytest.raises(DataError, match="is not a folder"):
        read_folder(folder / "items.parquet")
    pl.read_parquet(folder / "items.parquet").select("item").write_csv(folder / "items.csv")
    with pytest.raises(DataError, match=r"several items tables: got items.parquet, items.csv"):
        read_folder(folder)
    (folder / "items.csv").unlink()
    (folder / "interactions.parquet").unlink()
    with pytest.raises(DataError, match="has no interactions"):
        read_folder(folder)


def test_an_empty_interactions_file(folder):
    (folder / "interactions.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"interactions.parquet is empty: got 0 bytes"):
        read_folder(folder)


def test_one_user_and_one_item(tmp_path):
    pl.DataFrame({"user": ["u"], "item": ["i"]}).write_parquet(tmp_path / "interactions.parquet")
    data = read_folder(tmp_path)
    assert (len(data.users), len(data.catalog)) == (1, 1)
    assert len(make_split(data).train) == 1


REAL = {
    "amazon-baby": (19_445, 7_050, 118_551, 20_559, 21_682),
    "amazon-sports": (35_598, 18_357, 218_409, 37_899, 40_029),
    "amazon-clothing": (39_387, 23_033, 197_338, 40_150, 41_189),
    "amazon-beauty": (22_363, 12_101, 153_776, 22_363, 22_363),
    "tiktok": (9_308, 6_710, 59_541, 3_051, 6_130),
    "citeulike": (5_551, 16_980, 132_073, 19_802 + 16_471, 20_158 + 16_482),
    "movielens-posters": (671, 9_066, None, None, None),
}


@pytest.mark.realdata
@pytest.mark.parametrize("name", REAL)
def test_real_data_has_the_counts_of_its_readme(real_data, name):
    data = read_folder(real_data(name))
    users, items, *parts = REAL[name]
    assert (len(data.users), len(data.catalog)) == (users, items)
    assert data.counts["duplicates_merged"] == 0
    split = make_split(data)
    if name == "movielens-posters":
        assert len(data.interactions) == 100_004
        assert data.catalog.modality("image").present.sum() == 5_877
        assert data.catalog.modality("text").present.all()
        assert split.kind == "random"
    else:
        assert [len(split.train), len(split.valid), len(split.test)] == parts
        assert split.kind == "as-given"
    assert split.cold_split == (name == "citeulike")
    assert sum(map(len, (split.train, split.valid, split.test))) == len(data.interactions)


@pytest.mark.realdata
def test_reading_and_splitting_sports_is_quick(real_data):
    path = real_data("amazon-sports")
    start = time.process_time()
    make_split(read_folder(path))
    assert time.process_time() - start < 2.0


def test_importing_the_data_layer_stays_light():
    program = "import sys, modalmix.data; print(*sys.modules)"
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={**os.environ}
    )
    loaded = set(out.stdout.split())
    assert not loaded & {"torch", "scipy", "rich", "safetensors", "pandas", "transformers", "PIL"}


def test_half_precision_stays_on_disk(folder):
    np.save(folder / "image.npy", np.ones((4, 3), dtype=np.float16))
    features = read_folder(folder).catalog.modality("image").features
    assert isinstance(features, np.memmap)
    assert features.dtype == np.float16


def test_ids_of_a_named_column_stay_as_written(tmp_path):
    (tmp_path / "interactions.csv").write_text("user,sku\n1,1.10\n1,1.1\n")
    data = read_folder(tmp_path, ReadConfig(columns=Columns(item="sku")))
    assert data.catalog.items.series.to_list() == ["1.1", "1.10"]
