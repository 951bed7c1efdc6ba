"""Implicit-feedback alternating least squares (Hu, Koren & Volinsky 2008), by the library `implicit`.

min over U, V of sum over all u, i of c_ui (p_ui - <U_u, V_i>)^2 + reg (|U|^2 + |V|^2),
p_ui = 1 and c_ui = alpha where u met i, p_ui = 0 and c_ui = 1 elsewhere
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float
from torch import Tensor


@contextmanager
def _solver(dim: int, reg: float, alpha: float, **settings: Any) -> Iterator[Any]:
    """The library's solver in as many threads as torch has, those of BLAS held back: it warns of them otherwise."""
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, "blas"):
        yield AlternatingLeastSquares(
            factors=dim,
            regularization=reg,
            alpha=alpha,
            num_threads=torch.get_num_threads(),
            dtype=np.float32,
            **settings,
        )


def als_factors(
    met: sp.csr_matrix, dim: int, reg: float, alpha: float, iterations: int, seed: int
) -> tuple[Float[Tensor, "users dim"], Float[Tensor, "items dim"]]:
    """Factors of users and items; `met` [users, items] is 1 where a user met an item. A row without events is zeros.

    The same bits for the same seed: each factor is solved by itself, whatever the number of threads.
    """
    draw = np.random.default_rng(seed).standard_normal((met.shape[0], dim)) / dim
    with _solver(dim, reg, alpha, iterations=iterations, random_state=seed) as solver:
        solver.item_factors = (met.T @ draw).astype(np.float32)  # so that the order of the items does not matter
        solver.fit(met.astype(np.float32), show_progress=False)
    users, items = torch.from_numpy(solver.user_factors), torch.from_numpy(solver.item_factors)
    users[torch.from_numpy(np.diff(met.indptr) == 0)] = 0.0
    items[torch.from_numpy(met.getnnz(axis=0) == 0)] = 0.0
    return users, items


def fold_in_users(
    met: sp.csr_matrix, items: Float[Tensor, "items dim"], reg: float, alpha: float
) -> Float[Tensor, "users dim"]:
    """User factors given item factors, exactly: one half step of ALS. A user without events gets zeros."""
    with _solver(items.shape[1], reg, alpha) as solver:
        solver.item_factors = np.ascontiguousarray(items.numpy())
        return torch.from_numpy(solver.recalculate_user(np.arange(met.shape[0]), met.astype(np.float32)))


def fold_in_with_new_items(
    met: sp.csr_matrix, items: Float[Tensor, "items dim"], learnt: Bool[Tensor, " items"], reg: float, alpha: float
) -> Float[Tensor, "users dim"]:
    """`fold_in_users` where some items were not there when the factors were learnt: nobody has left those aside.

    (sum over learnt i of V_i V_i' + sum over met j of (c_j V_j V_j') + reg I) U = alpha sum over met j of V_j;
    c_j = alpha - 1 for a learnt item, alpha for another.
    """
    known = items[learnt]
    everybody = known.T @ known + reg * torch.eye(items.shape[1])
    users = items.new_zeros(met.shape[0], items.shape[1])
    for row, (start, end) in enumerate(itertools.pairwise(met.indptr)):
        own = torch.from_numpy(met.indices[start:end]).long()
        v = items[own]
        weight = alpha - learnt[own].to(v.dtype).unsqueeze(1)
        users[row] = torch.linalg.solve(everybody + v.T @ (weight * v), alpha * v.sum(dim=0))
    return users
