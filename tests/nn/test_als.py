"""ALS against its objective, and against the exact solution of a half step."""

import os
import warnings
from itertools import pairwise

import implicit.utils
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from modalmix.nn.als import als_factors, fold_in_users

DIM, REG, ALPHA = 4, 2.0, 5.0


@pytest.fixture
def met() -> sp.csr_matrix:
    met = (np.random.default_rng(0).random((40, 25)) < 0.2).astype(np.float32)
    met[:, [3, 24]] = 0.0  # cold items
    met[19, 0] = 1.0
    met[7] = 0.0  # the only user without an event
    return sp.csr_matrix(met)


def objective(met: sp.csr_matrix, users: torch.Tensor, items: torch.Tensor) -> float:
    """The docstring's formula over all pairs, in double precision."""
    p, u, v = met.toarray().astype(np.float64), users.double().numpy(), items.double().numpy()
    confidence = np.where(p > 0, ALPHA, 1.0)
    return float((confidence * (p - u @ v.T) ** 2).sum() + REG * ((u**2).sum() + (v**2).sum()))


def best_items(met: sp.csr_matrix, users: torch.Tensor) -> np.ndarray:
    """argmin over V of the objective for these users, an item at a time."""
    p, u = met.toarray().astype(np.float64), users.double().numpy()
    rows = []
    for column in p.T:
        weighted = u * np.where(column > 0, ALPHA, 1.0)[:, None]
        rows.append(np.linalg.solve(weighted.T @ u + REG * np.eye(DIM), weighted.T @ column))
    return np.stack(rows)


def factors(met: sp.csr_matrix, iterations: int = 15, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return als_factors(met, DIM, REG, ALPHA, iterations, seed)


def test_the_objective_falls(met: sp.csr_matrix) -> None:
    values = [objective(met, *factors(met, iterations)) for iterations in (1, 2, 4, 8, 16)]
    assert all(later < earlier * (1 + 1e-6) for earlier, later in pairwise(values))
    nothing = objective(met, torch.zeros(40, DIM), torch.zeros(25, DIM))
    assert values[-1] < 0.8 * nothing


def test_at_the_end_neither_side_can_do_better(met: sp.csr_matrix) -> None:
    users, items = factors(met, 200)
    np.testing.assert_allclose(items, best_items(met, users), atol=2e-3)
    np.testing.assert_allclose(users, best_items(met.T.tocsr(), items), atol=2e-3)


def test_rows_without_events_are_zeros(met: sp.csr_matrix) -> None:
    users, items = factors(met)
    assert (users.dtype, users.shape, items.dtype, items.shape) == (torch.float32, (40, DIM), torch.float32, (25, DIM))
    assert torch.nonzero(~users.any(dim=1)).flatten().tolist() == [7]
    assert torch.nonzero(~items.any(dim=1)).flatten().tolist() == [3, 24]


def test_the_same_seed_gives_the_same_bits(met: sp.csr_matrix) -> None:
    first, second, other = factors(met), factors(met), factors(met, seed=1)
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert not torch.allclose(first[1], other[1])


def test_the_number_of_threads_does_not_matter(met: sp.csr_matrix) -> None:
    before, single = torch.get_num_threads(), factors(met)
    try:
        torch.set_num_threads(2)
        double = factors(met)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(single[0], double[0])
    assert torch.equal(single[1], double[1])


def test_the_order_of_items_does_not_matter(met: sp.csr_matrix) -> None:
    order = np.random.default_rng(1).permutation(25)
    users, items = factors(met)
    permuted_users, permuted_items = factors(met[:, order].tocsr())
    torch.testing.assert_close(permuted_users, users, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(permuted_items, items[order], atol=1e-4, rtol=1e-4)


def test_the_matrix_given_stays_as_it_was(met: sp.csr_matrix) -> None:
    before = met.copy()
    factors(met)
    assert (met != before).nnz == 0


def test_users_folded_in_are_the_exact_half_step(met: sp.csr_matrix) -> None:
    items = torch.randn(25, DIM, generator=torch.Generator().manual_seed(0))
    users = fold_in_users(met, items, REG, ALPHA)
    np.testing.assert_allclose(users, best_items(met.T.tocsr(), items), atol=1e-4)
    assert torch.nonzero(~users.any(dim=1)).flatten().tolist() == [7]


def test_a_user_folded_in_by_hand() -> None:
    """One item of factor v met: u = alpha v / (alpha v^2 + reg); another, not met, of factor w adds w^2 below."""
    users = fold_in_users(sp.csr_matrix([[1.0, 0.0]]), torch.tensor([[2.0], [3.0]]), REG, ALPHA)
    assert users.item() == pytest.approx(ALPHA * 2.0 / (ALPHA * 4.0 + 9.0 + REG), rel=1e-5)


def test_folding_in_where_all_met_items_are_zeros_is_zeros(met: sp.csr_matrix) -> None:
    assert not bool(fold_in_users(met, torch.zeros(25, DIM), REG, ALPHA).any())


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="BLAS has one thread there")
def test_the_threads_of_blas_are_held_back_and_given_back(met: sp.csr_matrix, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the library warns, and is slow."""
    monkeypatch.setattr(implicit.utils, "_checked_blas_config", False)  # it warns once a process
    with threadpool_limits(2, "blas"), warnings.catch_warnings():
        warnings.simplefilter("error")
        _, items = als_factors(met, DIM, REG, ALPHA, iterations=2, seed=0)
        fold_in_users(met, items, REG, ALPHA)
        assert 2 in {one["num_threads"] for one in threadpool_info() if one["user_api"] == "blas"}
