import numpy as np
import pytest

from modalmix.data import Modality
from modalmix.data.identical import row_keys


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_keys_are_equal_exactly_for_equal_rows(dtype):
    rng = np.random.default_rng(0)
    rows = rng.integers(0, 3, (2_000, 5)).astype(dtype) + 1  # 243 kinds of rows
    keys = row_keys(Modality.from_matrix("image", rows))
    kinds = np.unique(rows, axis=0, return_inverse=True)[1]
    assert len(np.unique(keys)) == kinds.max() + 1
    assert len(np.unique(np.stack([keys, kinds.astype(np.uint64)]), axis=1)[0]) == kinds.max() + 1


def test_columns_are_not_interchangeable():
    keys = row_keys(Modality.from_matrix("image", np.array([[1.0, 2.0], [2.0, 1.0]])))
    assert keys[0] != keys[1]
