import numpy as np
import pytest

from modalmix.data.modality import Modality
from modalmix.errors import DataError


def test_nan_rows_and_zero_rows_are_absent():
    features = np.array([[1, 2], [np.nan, np.nan], [0, 0], [0, 3]], dtype=np.float16)
    modality = Modality.from_matrix("image", features)
    assert modality.present.tolist() == [True, False, False, True]
    assert modality.matrix().tolist() == [[1, 2], [0, 0], [0, 0], [0, 3]]
    assert modality.matrix().dtype == np.float32
    assert modality.matrix(np.array([3, 1])).tolist() == [[0, 3], [0, 0]]
    assert (len(modality), modality.dim) == (4, 2)


def test_declared_presence_hides_rows():
    modality = Modality.from_matrix("image", np.ones((2, 3)), present=np.array([True, False]))
    assert modality.matrix().sum(axis=1).tolist() == [3, 0]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.array([[1.0, np.nan], [1.0, 2.0]]), "NaN or Inf in row 0"),
        (np.array([[1.0, 1.0], [np.inf, np.inf]]), "NaN or Inf in row 1"),
        (np.array([[1, 2]]), "dtype int64"),
        (np.array([1.0]), r"shape \(1,\)"),
        (np.empty((3, 0)), r"shape \(3, 0\)"),
        (np.array([["a"]]), "dtype <U1"),
        (np.array([[1.0, 2.0], [1.0, 1e200]]), r"in row 1: got 1e\+200.*at most 1e\+15"),
        (np.array([[1.0, -3e19], [1.0, 1.0]], dtype=np.float32), r"in row 0: got 3e\+19.*at most 1e\+15"),
    ],
)
def test_bad_features(features, message, monkeypatch):
    monkeypatch.setattr("modalmix.data.modality._BLOCK_ROWS", 1)
    with pytest.raises(DataError, match=message):
        Modality.from_matrix("image", features)


def test_append():
    modality = Modality.from_matrix("image", np.ones((1, 2), dtype=np.float16))
    longer = modality.append(np.array([[2.0, 2.0], [np.nan, np.nan]]), None)
    assert longer.present.tolist() == [True, True, False]
    assert longer.features.dtype == np.float16
    with pytest.raises(DataError, match=r"expected \(n, 2\)"):
        modality.append(np.ones((1, 3)), None)


@pytest.mark.parametrize(("known", "given", "largest"), [("float16", 7e4, "65504"), ("float32", 1e39, r"1e\+15")])
def test_added_rows_that_the_dtype_cannot_hold_are_an_error(known, given, largest):
    modality = Modality.from_matrix("image", np.ones((1, 2), dtype=known))
    with pytest.raises(DataError, match=rf"features of 'image' in row 1: got .*expected at most {largest}"):
        modality.append(np.array([[2.0, 2.0], [1.0, -given]]), None)


def test_large_values_have_lengths():
    """The largest that is taken: nearest by cosine as any other."""
    modality = Modality.from_matrix("image", np.array([[1e15, 1e15], [65504, 0]], dtype=np.float32))
    assert np.isfinite(np.square(modality.matrix()).sum(axis=1)).all()
    assert Modality.from_matrix("image", np.array([[65504, -65504]], dtype=np.float16)).present.all()


def test_hash_follows_values_and_presence():
    one = Modality.from_matrix("image", np.ones((2, 2)))
    assert one.sha256 == Modality.from_matrix("image", np.ones((2, 2))).sha256
    assert one.sha256 != Modality.from_matrix("image", np.ones((2, 2)), present=np.array([True, False])).sha256
    assert one.sha256 != Modality.from_matrix("image", np.ones((2, 2), dtype=np.float32)).sha256
