"""Histories as sparse rows."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from modalmix.errors import QueryError
from modalmix.models.contract import Query
from modalmix.models.contract.histories import history_rows

KNOWN = sp.csr_matrix(np.array([[1, 0, 1], [0, 0, 0]], dtype=np.float32))


def test_known_users_bring_their_events() -> None:
    rows = history_rows(Query(users=torch.tensor([1, 0, 0])), KNOWN, 4)  # one item was added
    np.testing.assert_array_equal(rows.toarray(), [[0, 0, 0, 0], [1, 0, 1, 0], [1, 0, 1, 0]])
    assert KNOWN.shape == (2, 3)


def test_repeats_count_once_and_padding_not_at_all() -> None:
    rows = history_rows(Query(history=torch.tensor([[3, 1, 3], [0, -1, -1]])), KNOWN, 4)
    np.testing.assert_array_equal(rows.toarray(), [[0, 1, 0, 1], [1, 0, 0, 0]])
    assert rows.dtype == np.float32


def test_an_empty_history_is_an_error() -> None:
    with pytest.raises(QueryError, match="a history is empty"):
        history_rows(Query(history=torch.tensor([[0], [-1]])), KNOWN, 3)
