"""What users have met as a set: the items behind a query as a sparse matrix, and models that follow them."""

from typing import Protocol, runtime_checkable

import numpy as np
import scipy.sparse as sp

from modalmix.errors import QueryError
from modalmix.models.contract.query import Query, Scorer


@runtime_checkable
class FollowingScorer(Scorer, Protocol):
    """A Scorer that scores a known user by what this one has met alone, so that new events need no training.

    Query(users=...) stands for the train events. Where events have an order the evaluator has it follow those known
    at that time, as scorers do that read histories in order.
    """

    def following(self, met: sp.csr_matrix) -> Scorer:
        """This scorer where users have met this: [users, training items], 1 where they have."""
        ...


def history_rows(query: Query, known: sp.csr_matrix, n_items: int) -> sp.csr_matrix:
    """One row a query, 1 where it has met the item: [batch, items]. A repeat counts once, padding not at all.

    Args:
        known: train events [users, training items]; a user without any has an empty row.
        n_items: of the scorer's catalogue, which may have more than the training items.

    Raises QueryError for an empty history.
    """
    if query.users is not None:
        rows = known[query.users.cpu().numpy()]
        rows.resize(len(query), n_items)
        return rows
    assert query.history is not None
    history = query.history.cpu().numpy()
    row, place = np.nonzero(history >= 0)
    if len(np.unique(row)) < len(history):
        raise QueryError("a history is empty", expected="at least one item", fix="Ask popularity instead.")
    ones = np.ones(len(row), dtype=np.float32)
    matrix = sp.csr_matrix((ones, (row, history[row, place])), shape=(len(history), n_items))
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix
