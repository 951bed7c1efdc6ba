import json

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import save_file

from modalmix.data import Catalog, IdMap, ReadConfig
from modalmix.data.features import find_features, read_features, read_modalities, read_modality
from modalmix.errors import DataError
from modalmix.files import sha256_file

CATALOG = Catalog(IdMap(["a", "b", "c"]))
ROWS = np.arange(1, 7, dtype=np.float32).reshape(3, 2)


def test_npy_is_memory_mapped(tmp_path):
    np.save(tmp_path / "image.npy", ROWS)
    modality = read_modality("image", tmp_path / "image.npy", CATALOG)
    assert isinstance(modality.features, np.memmap)
    assert modality.matrix().tolist() == ROWS.tolist()


@pytest.mark.parametrize("tensors", [{"image": ROWS, "x": ROWS * 0}, {"features": ROWS, "x": ROWS * 0}, {"only": ROWS}])
def test_safetensors(tmp_path, tensors):
    save_file(tensors, tmp_path / "image.safetensors")
    assert read_modality("image", tmp_path / "image.safetensors", CATALOG).matrix().tolist() == ROWS.tolist()


def test_safetensors_with_several_strange_tensors(tmp_path):
    save_file({"x": ROWS, "y": ROWS}, tmp_path / "image.safetensors")
    with pytest.raises(DataError, match="several tensors: got x, y, expected one named 'image'"):
        read_features(tmp_path / "image.safetensors", "image")


def test_ids_in_the_sidecar_put_rows_in_catalogue_order(tmp_path):
    np.save(tmp_path / "image.npy", ROWS)
    sidecar = {"encoder": "clip", "dim": 2, "ids": ["c", "x", "a"], "sha256": sha256_file(tmp_path / "image.npy")}
    (tmp_path / "image.json").write_text(json.dumps(sidecar))
    modality = read_modality("image", tmp_path / "image.npy", CATALOG)
    assert modality.matrix().tolist() == [[5, 6], [0, 0], [1, 2]]
    assert modality.present.tolist() == [True, False, True]
    assert modality.provenance["encoder"] == "clip"
    assert "ids" not in modality.provenance


def test_ids_in_catalogue_order_stay_mapped(tmp_path):
    np.save(tmp_path / "image.npy", ROWS)
    (tmp_path / "image.json").write_text(json.dumps({"ids": ["a", "b", "c"]}))
    assert isinstance(read_modality("image", tmp_path / "image.npy", CATALOG).features, np.memmap)


@pytest.mark.parametrize(
    ("sidecar", "message"),
    [
        ({"ids": ["a"]}, "got 3 rows, expected 1 rows, one an id"),
        ({"ids": ["x", "y", "z"]}, "no id of image.json is in the catalogue: got 'x', 'y', 'z'"),
        ({"ids": ["a", "a", "b"]}, "'a' stands in several rows"),
        ({"sha256": "0" * 64}, "is not the file its sidecar describes"),
        ({"dim": 3}, "got dim 2, expected dim 3"),
        ([1], "got list, expected a mapping"),
    ],
)
def test_bad_sidecars(tmp_path, sidecar, message):
    np.save(tmp_path / "image.npy", ROWS)
    (tmp_path / "image.json").write_text(json.dumps(sidecar))
    with pytest.raises(DataError, match=message):
        read_modality("image", tmp_path / "image.npy", CATALOG)


def test_a_torn_sidecar(tmp_path):
    np.save(tmp_path / "image.npy", ROWS)
    (tmp_path / "image.json").write_text('{"dim": 2')
    with pytest.raises(DataError, match="image.json is not JSON"):
        read_modality("image", tmp_path / "image.npy", CATALOG)


@pytest.mark.parametrize("name", ["image.npy", "image.safetensors"])
@pytest.mark.parametrize("content", [b"", b"\x93NUMPY junk", b"junk"])
def test_torn_feature_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match="cannot be read"):
        read_features(tmp_path / name, "image")


def test_a_cut_feature_file(tmp_path):
    np.save(tmp_path / "image.npy", ROWS)
    whole = (tmp_path / "image.npy").read_bytes()
    (tmp_path / "image.npy").write_bytes(whole[:-4])
    with pytest.raises(DataError, match="cannot be read"):
        read_features(tmp_path / "image.npy", "image")


def test_pickled_objects_are_refused(tmp_path):
    np.save(tmp_path / "image.npy", np.array([{"a": 1}]), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        read_features(tmp_path / "image.npy", "image")


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.ones((2, 3)), "got 2 rows, expected 3 rows, one an item. First item without a row: 'c'"),
        (np.ones((4, 3)), "got 4 rows, expected 3 rows"),
        (np.ones((3, 2), dtype=np.int64), "dtype int64"),
        (np.ones(3), "shape"),
        (np.array([[1, 2], [np.nan, 1], [1, 2]]), "NaN or Inf in row 1"),
        (np.array([[1, 2], [np.inf, 1], [1, 2]]), "NaN or Inf in row 1"),
    ],
)
def test_features_that_do_not_fit(tmp_path, features, message):
    np.save(tmp_path / "image.npy", features)
    with pytest.raises(DataError, match=message):
        Catalog(CATALOG.items, read_modalities(CATALOG, {"image": tmp_path / "image.npy"}, ReadConfig()))


def test_the_presence_column(tmp_path):
    np.save(tmp_path / "image.npy", ROWS)
    table = pl.DataFrame({"item": ["a", "b", "c"], "has_image": [True, False, None]})
    modality = read_modality("image", tmp_path / "image.npy", Catalog(CATALOG.items, {}, table))
    assert modality.present.tolist() == [True, False, False]
    words = Catalog(CATALOG.items, {}, table.with_columns(has_image=pl.lit("yes")))
    with pytest.raises(DataError, match="'has_image': got dtype String, expected true or false"):
        read_modality("image", tmp_path / "image.npy", words)


def test_which_files_are_features(tmp_path):
    for name in ("image.npy", "text.safetensors", "graph.npz", ".image.part.npy", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert find_features(tmp_path) == {"image": tmp_path / "image.npy", "text": tmp_path / "text.safetensors"}
    (tmp_path / "image.safetensors").write_bytes(b"")
    with pytest.raises(DataError, match="'image' has two files: got image.npy, image.safetensors"):
        find_features(tmp_path)


def test_which_modalities_are_read(tmp_path):
    np.save(tmp_path / "image.npy", ROWS)
    found = {"image": tmp_path / "image.npy", "broken": tmp_path / "missing.npy"}
    assert set(read_modalities(CATALOG, found, ReadConfig(modalities=("image",)))) == {"image"}
    override = ReadConfig(modality_files={"broken": tmp_path / "image.npy"})
    assert set(read_modalities(CATALOG, found, override)) == {"image", "broken"}
    with pytest.raises(DataError, match="there is no modality 'imag'. Did you mean 'image'?"):
        read_modalities(CATALOG, found, ReadConfig(modalities=("imag",)))
    with pytest.raises(DataError, match="missing.npy is not there"):
        read_modalities(CATALOG, found, ReadConfig())
