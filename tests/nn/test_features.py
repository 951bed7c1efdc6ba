"""Column and row scaling of features."""

import numpy as np
import pytest
import torch
from sklearn.preprocessing import StandardScaler, normalize

from modalmix.nn.features import column_statistics, standardise, unit_rows


def test_equals_scikit_learn() -> None:
    x = np.random.default_rng(0).normal(3.0, 5.0, (50, 4)).astype(np.float32)
    ours = unit_rows(standardise(torch.from_numpy(x), *column_statistics(torch.from_numpy(x))))
    np.testing.assert_allclose(ours.numpy(), normalize(StandardScaler().fit_transform(x)), atol=1e-5)


def test_a_constant_column_becomes_zeros_whatever_its_value() -> None:
    x = torch.cat([torch.full((1000, 1), 0.1), torch.full((1000, 1), 1e6), torch.randn(1000, 1)], dim=1)
    done = standardise(x, *column_statistics(x))
    assert float(done[:, :2].abs().max()) < 1.0
    assert float(done[:, 2].std()) == pytest.approx(1.0, abs=1e-3)


def test_one_row_and_no_row() -> None:
    x = torch.tensor([[1.0, -2.0]])
    assert standardise(x, *column_statistics(x)).tolist() == [[0.0, 0.0]]
    with pytest.raises(ValueError, match="at least one row"):
        column_statistics(torch.zeros(0, 2))


def test_a_zero_row_stays_zero() -> None:
    assert unit_rows(torch.tensor([[0.0, 0.0], [3.0, 4.0]])).tolist() == [
        [0.0, 0.0],
        [pytest.approx(0.6), pytest.approx(0.8)],
    ]
