"""The candidates of an evaluation: which items are ranked for whom, and which of them are relevant."""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from jaxtyping import Int64

from modalmix.data.split import Holdout
from modalmix.errors import EvaluateError
from modalmix.evaluation.settings import Mask, PoolName

Rows = Int64[np.ndarray, " rows"]


@dataclass(frozen=True, eq=False)
class Pool:
    """Candidate items and the users who have a relevant one among them."""

    items: Rows | None
    """Item rows of the pool, ascending; None is all of them."""
    size: int
    """Items in the pool."""
    users: Rows
    """Users with a relevant item in the pool, ascending."""
    positives: sp.csr_matrix
    """`users` x pool: the relevant items. A held-out item that the mask removes for the user is not among them."""
    rankable: Rows
    """Candidates of each of `users`: the pool without the items the mask removes."""
    positives_masked: int
    """Held-out pairs left out because the mask removes the item for that user."""

    @property
    def relevant(self) -> Rows:
        """Number of relevant items of each user."""
        return np.diff(self.positives.indptr).astype(np.int64)


def masked_items(holdout: Holdout, mask: Mask) -> sp.csr_matrix:
    """Users x items: 1 where the mask of that name removes an item for a user."""
    if mask == "none":
        return sp.csr_matrix((holdout.positives.n_users, holdout.positives.n_items), dtype=np.float32)
    return holdout.seen.csr if mask == "seen" else holdout.train.csr


def make_pool(holdout: Holdout, name: PoolName, mask: Mask) -> Pool:
    """The pool of that name. Raises EvaluateError when no user has a relevant item in it."""
    masked, held_out = masked_items(holdout, mask), holdout.positives.csr
    items = None if name == "all" else np.flatnonzero(holdout.warm == (name == "warm"))
    if items is not None:
        masked, held_out = masked[:, items], held_out[:, items]
    positives = sp.csr_matrix(held_out - held_out.multiply(masked))
    positives.eliminate_zeros()
    positives.sort_indices()
    users = np.flatnonzero(np.diff(positives.indptr))
    if len(users) == 0:
        raise EvaluateError(
            f"nothing to evaluate in the {holdout.name} split: no user has a relevant item in the pool '{name}'",
            got=f"{len(holdout.positives):,} held-out interactions, {held_out.nnz:,} of them with an item of the pool",
            fix="Check the split and the mask, or leave that pool out.",
        )
    size = held_out.shape[1]
    rankable = size - np.diff(masked.indptr)[users].astype(np.int64)
    return Pool(items, size, users, positives[users], rankable, held_out.nnz - positives.nnz)
