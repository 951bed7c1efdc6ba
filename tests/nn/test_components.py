"""Whitened principal components."""

import numpy as np
import pytest
import torch

from modalmix.nn.components import whitened_components


def test_columns_have_mean_0_variance_1_and_no_correlation() -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 6) @ torch.randn(6, 6) + 5.0
    found = whitened_components(x, torch.ones(300, dtype=torch.bool), 4)
    torch.testing.assert_close(found.mean(dim=0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.T @ found / 300, torch.eye(4), atol=1e-3, rtol=0)


def test_they_are_numpy_s_principal_components() -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 7, dtype=torch.float64) * torch.tensor([9.0, 5, 4, 3, 2, 1, 0.5])
    found = whitened_components(x, torch.ones(50, dtype=torch.bool), 3).numpy()
    left, _, _ = np.linalg.svd(x.numpy() - x.numpy().mean(axis=0), full_matrices=False)
    expected = left[:, :3] * np.sqrt(50)
    signs = np.sign((expected * found).sum(axis=0))
    np.testing.assert_allclose(found, expected * signs, atol=1e-9)


def test_only_the_rows_to_learn_from_count() -> None:
    torch.manual_seed(0)
    x = torch.randn(40, 5)
    learn = torch.arange(40) < 30
    other = torch.cat([x[:30], 100 * torch.randn(10, 5)])
    torch.testing.assert_close(whitened_components(x, learn, 3)[:30], whitened_components(other, learn, 3)[:30])


def test_directions_without_variance_are_left_out() -> None:
    torch.manual_seed(0)
    x = torch.randn(40, 2) @ torch.randn(2, 6) + 1.0
    learn = torch.ones(40, dtype=torch.bool)
    assert whitened_components(x, learn, 5).shape == (40, 2)
    assert whitened_components(torch.ones(4, 3), learn[:4], 2).shape[0] == 4
    assert whitened_components(torch.ones(4, 3), learn[:4], 2).isfinite().all()


def test_no_row_to_learn_from() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        whitened_components(torch.ones(4, 3), torch.zeros(4, dtype=torch.bool), 2)
