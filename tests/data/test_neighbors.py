"""Neighbour graphs from file to catalogue, and back."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from modalmix.data import ReadConfig, describe, description_table, examine, read_folder, write_folder, write_modality
from modalmix.data.drop import drop_modality
from modalmix.data.features import with_neighbors
from modalmix.data.modality import Modality
from modalmix.data.neighbors import Neighbors, find_neighbors, owner_of, read_neighbors, write_neighbors
from modalmix.data.perturb import noise, shuffle
from modalmix.errors import DataError

# items c, a, b, d of the small folder; b and d have no image
ROWS = np.array([[0, 1], [1, 0], [2, -1], [3, 0]], dtype=np.int32)
WEIGHTS = np.array([[1, 0.5], [1, 0.5], [1, 0], [1, 0.25]], dtype=np.float32)


@pytest.fixture
def graph() -> Neighbors:
    return Neighbors(ROWS, WEIGHTS)


@pytest.fixture
def with_graph(folder: Path) -> Path:
    np.savez(folder / "image_knn2.npz", neighbors=ROWS.astype(np.int64), norm_weight=WEIGHTS.astype(np.float64))
    return folder


def test_a_file_with_either_name_of_weights_or_without(tmp_path):
    for name in ("weights", "norm_weight"):
        np.savez(tmp_path / "x_knn2.npz", neighbors=ROWS, **{name: WEIGHTS})
        read = read_neighbors(tmp_path / "x_knn2.npz")
        assert read.rows.tolist() == ROWS.tolist()
        assert read.weights.tolist() == WEIGHTS.tolist()
        assert (len(read), read.k, read.rows.dtype, read.weights.dtype) == (4, 2, np.int32, np.float32)
    np.savez(tmp_path / "x_knn2.npz", neighbors=ROWS)
    assert read_neighbors(tmp_path / "x_knn2.npz").weights.tolist() == [[1, 1], [1, 1], [1, 0], [1, 1]]


def test_weights_where_no_neighbour_is_listed_mean_nothing(tmp_path):
    weights = WEIGHTS.copy()
    weights[2, 1] = np.nan
    np.savez(tmp_path / "x_knn2.npz", neighbors=ROWS, weights=weights)
    assert read_neighbors(tmp_path / "x_knn2.npz").weights.tolist() == WEIGHTS.tolist()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"other": ROWS}, r"got other, expected `neighbors` \[items, k\]"),
        ({}, "got nothing"),
        ({"neighbors": ROWS.astype(np.float32)}, "expected `neighbors`"),
        ({"neighbors": ROWS[0]}, "expected `neighbors`"),
        ({"neighbors": ROWS, "weights": WEIGHTS[:, :1]}, r"weights of .*got shape \(4, 1\), expected shape \(4, 2\)"),
        ({"neighbors": ROWS + 1}, r"names item row 4: expected rows 0\.\.3, or -1"),
        ({"neighbors": ROWS - 1}, "names item row -2"),
        ({"neighbors": np.array([[0, 1], [1, 1]])}, "got a neighbour twice in row 1"),
        ({"neighbors": ROWS, "weights": np.full((4, 2), np.nan)}, "got NaN or Inf"),
        ({"neighbors": ROWS, "weights": np.full((4, 2), 1e300)}, "got NaN or Inf"),
        ({"neighbors": ROWS, "weights": np.where(ROWS == 2, -0.5, 1)}, r"got -0\.5 in row 2, expected none negative"),
        ({"neighbors": ROWS, "weights": np.full((4, 2), "a")}, "got dtype <U1, expected numbers"),
    ],
)
def test_what_is_no_graph(tmp_path, arrays, message):
    np.savez(tmp_path / "x_knn2.npz", **arrays)
    with pytest.raises(DataError, match=message):
        read_neighbors(tmp_path / "x_knn2.npz")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04torn"])
def test_a_torn_file(tmp_path, content):
    (tmp_path / "x_knn2.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"graph file .*x_knn2.npz cannot be read"):
        read_neighbors(tmp_path / "x_knn2.npz")
    np.savez(tmp_path / "x_knn2.npz", neighbors=np.array([[object()]]))
    with pytest.raises(DataError, match="cannot be read"):
        read_neighbors(tmp_path / "x_knn2.npz")


def test_files_by_name(tmp_path):
    for name in ("image_knn10", "big_text_knn5", "audio_knn", "knn10", "image_knn10x", "features"):
        (tmp_path / f"{name}.npz").touch()
    assert {name: path.name for name, path in find_neighbors(tmp_path).items()} == {
        "image": "image_knn10.npz",
        "big_text": "big_text_knn5.npz",
        "audio": "audio_knn.npz",
    }
    (tmp_path / "image_knn5.npz").touch()
    with pytest.raises(DataError, match=r"modality 'image' has two graphs: got image_knn10.npz, image_knn5.npz"):
        find_neighbors(tmp_path)


def test_whose_graph_a_modality_takes():
    graphs = ["image", "image_big", "text"]
    assert owner_of("image", graphs) == "image"
    assert owner_of("image_spectral64", graphs) == "image"
    assert owner_of("image_big_64", graphs) == "image_big"
    assert owner_of("images", graphs) is None
    assert owner_of("image", ["image_big"]) is None


def test_keep_by_hand(graph):
    kept = graph.keep(np.array([True, False, True, True]))
    assert kept.rows.tolist() == [[0, -1], [1, -1], [2, 0]]
    assert kept.weights.tolist() == [[1, 0.5], [1, 0], [1, 0.25]]
    assert graph.rows.tolist() == ROWS.tolist()


def test_append_by_hand(graph):
    longer = graph.append(2)
    assert longer.rows.tolist() == [*ROWS.tolist(), [-1, -1], [-1, -1]]
    assert longer.weights.tolist() == [*WEIGHTS.tolist(), [0, 0], [0, 0]]
    assert (longer.rows.dtype, longer.weights.dtype) == (np.int32, np.float32)


def test_a_graph_comes_with_its_modality(with_graph):
    np.save(with_graph / "image_small.npy", np.ones((4, 3), dtype=np.float32))
    np.save(with_graph / "text.npy", np.ones((4, 3), dtype=np.float32))
    modalities = read_folder(with_graph).catalog.modalities
    for name in ("image", "image_small"):
        assert modalities[name].neighbors.rows.tolist() == ROWS.tolist()
        assert modalities[name].neighbors.weights.tolist() == WEIGHTS.tolist()
    assert modalities["text"].neighbors is None


def test_a_file_that_no_modality_takes_is_not_read(with_graph):
    (with_graph / "sound_knn3.npz").write_bytes(b"torn")
    assert read_folder(with_graph).catalog.modality("image").neighbors is not None
    (with_graph / "image_knn2.npz").write_bytes(b"torn")
    assert read_folder(with_graph, ReadConfig(modalities=())).catalog.modalities == {}
    with pytest.raises(DataError, match="cannot be read"):
        read_folder(with_graph)


def test_a_graph_of_another_length_is_an_error(folder):
    np.savez(folder / "image_knn2.npz", neighbors=ROWS[:2])
    with pytest.raises(DataError, match=r"image_knn2.npz: got 2 rows, expected 4, one an item"):
        read_folder(folder)
    modality = Modality.from_matrix("image", np.ones((2, 3), dtype=np.float32))
    assert with_neighbors({"image": modality}, {"image": folder / "image_knn2.npz"})["image"].neighbors.k == 2


def test_without_an_items_table_no_row_is_known(with_graph):
    (with_graph / "image.json").write_text(json.dumps({"ids": ["c", "a", "b", "d"]}))
    (with_graph / "items.parquet").unlink()
    assert read_folder(with_graph).catalog.modality("image").neighbors is None
    assert "graph file image_knn2.npz is not read: without an items table" in "\n".join(examine(with_graph).warnings)


def test_the_graph_follows_the_items_that_a_core_keeps(with_graph):
    smaller = read_folder(with_graph, ReadConfig(item_core=1))  # d has no event
    assert smaller.catalog.items.series.to_list() == ["c", "a", "b"]
    assert smaller.catalog.modality("image").neighbors.rows.tolist() == [[0, 1], [1, 0], [2, -1]]


def test_the_graph_follows_items_added_and_content_dropped(with_graph):
    catalog = read_folder(with_graph).catalog
    longer = catalog.extend(pl.DataFrame({"item": ["new"]}), {"image": np.ones((1, 2), dtype=np.float32)})
    assert longer.modality("image").neighbors.rows.tolist() == [*ROWS.tolist(), [-1, -1]]
    dropped = drop_modality(catalog, "image", 0.5, np.random.default_rng(0)).modality("image")
    assert dropped.present.sum() == 1
    assert dropped.neighbors is catalog.modality("image").neighbors
    assert dropped.matrix().any(axis=1).sum() == 1


def test_features_that_are_not_the_items_own_come_without_the_graph(with_graph):
    for changed in (noise(read_folder(with_graph), "image", 0), shuffle(read_folder(with_graph), "image", 0)):
        assert changed.catalog.modality("image").neighbors is None


def test_hashes_know_the_graph(with_graph, graph):
    data = read_folder(with_graph)
    modality = data.catalog.modality("image")
    bare = replace(modality, neighbors=None)
    heavier = replace(modality, neighbors=Neighbors(ROWS, WEIGHTS * 2))
    turned = replace(modality, neighbors=Neighbors(ROWS[:, ::-1].copy(), WEIGHTS))
    assert len({one.sha256 for one in (modality, bare, heavier, turned)}) == 4
    assert modality.sha256 == replace(modality, neighbors=graph).sha256
    catalogs = [replace(data.catalog, modalities={"image": one}) for one in (modality, bare, heavier, turned)]
    assert len({catalog.sha256 for catalog in catalogs}) == 4


def test_round_trip_of_a_graph(graph, tmp_path):
    write_neighbors(tmp_path / "x_knn2.npz", graph)
    assert read_neighbors(tmp_path / "x_knn2.npz").sha256 == graph.sha256
    with np.load(tmp_path / "x_knn2.npz") as file:
        assert set(file.files) == {"neighbors", "weights"}


def test_round_trip_of_a_folder(with_graph, tmp_path):
    np.save(with_graph / "image_small.npy", np.ones((4, 3), dtype=np.float32))
    data = read_folder(with_graph)
    write_folder(data, tmp_path / "copy")
    names = {path.name for path in (tmp_path / "copy").glob("*.npz")}
    assert names == {"image_knn2.npz", "image_small_knn2.npz"}
    again = read_folder(tmp_path / "copy").catalog
    for name, modality in data.catalog.modalities.items():
        assert again.modality(name).neighbors.sha256 == modality.neighbors.sha256


def test_overwriting_a_folder(with_graph):
    data = read_folder(with_graph)
    write_folder(data, with_graph, overwrite=True)
    assert read_folder(with_graph).catalog.modality("image").neighbors.rows.tolist() == ROWS.tolist()
    bare = data.catalog.select(())
    write_folder(replace(data, catalog=bare), with_graph, overwrite=True)
    assert {path.name for path in with_graph.iterdir()} == {"interactions.parquet", "items.parquet"}
    np.savez(with_graph / "image_knn2.npz", neighbors=ROWS)  # of no modality there: not ours to replace
    with pytest.raises(DataError, match=r"holds more than a data set: got image_knn2.npz"):
        write_folder(data, with_graph, overwrite=True)


def test_overwriting_a_modality(with_graph, graph, tmp_path):
    data = read_folder(with_graph)
    modality, items = data.catalog.modality("image"), data.catalog.items
    np.savez(tmp_path / "image_knn7.npz", neighbors=np.tile(np.arange(4), (4, 1)))
    with pytest.raises(DataError, match=r"image_knn7.npz is there already"):
        write_modality(modality, items, tmp_path)
    assert not (tmp_path / "image.npy").exists()
    write_modality(modality, items, tmp_path, overwrite=True)
    assert sorted(path.name for path in tmp_path.glob("image*")) == ["image.json", "image.npy", "image_knn2.npz"]
    write_modality(modality, items, tmp_path, overwrite=True)
    assert read_neighbors(tmp_path / "image_knn2.npz").sha256 == graph.sha256
    write_modality(replace(modality, neighbors=None), items, tmp_path, overwrite=True)
    assert (tmp_path / "image_knn2.npz").exists()  # perhaps it was given, and cannot be made again


def test_describe_and_validate_name_the_graph(with_graph):
    facts = describe(read_folder(with_graph))
    assert facts["modalities"]["image"]["neighbors"] == 2
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(description_table(facts))
    assert re.search(r"2-d, 50.0% of the items, graph of 2 neighbours", console.export_text())
    assert examine(with_graph).facts["modalities"]["image"]["neighbors"] == 2


def test_validate_finds_what_is_wrong_with_graphs(with_graph):
    rows = np.array([[0, 3], [1, -1], [2, -1], [3, 0]])  # c - d, who has no image; a alone
    np.savez(with_graph / "image_knn2.npz", neighbors=rows)
    (with_graph / "sound_knn3.npz").touch()
    text = "\n".join(examine(with_graph).warnings)
    assert "1 items that have 'image' have no neighbour in its graph" in text
    assert "4 edges of the graph of 'image' touch items without it and do not count" in text
    assert "graph file sound_knn3.npz belongs to no modality" in text
    assert "image_knn2.npz" not in text
    assert "image_knn2.npz" not in "\n".join(examine(with_graph, ReadConfig(modalities=())).warnings)
    np.savez(with_graph / "image_knn2.npz", neighbors=rows[:3])
    assert "names item row 3" in examine(with_graph).problems[0]


def test_validate_has_nothing_to_say_of_a_good_graph(folder):
    before = examine(folder).warnings
    np.savez(folder / "image_knn2.npz", neighbors=np.array([[0, 1], [1, 0], [-1, -1], [-1, -1]]))
    assert examine(folder).warnings == before


@pytest.mark.realdata
def test_real_graphs(real_data):
    data = read_folder(real_data("amazon-baby"))
    for name in ("image_spectral64", "text_spectral64"):
        graph = data.catalog.modality(name).neighbors
        assert graph.rows.shape == (7050, 10)
        assert (graph.rows == np.arange(7050)[:, None]).any(axis=1).mean() > 0.99
        assert graph.weights.min() > 0
