"""Queries."""

import pytest
import torch

from modalmix.errors import QueryError
from modalmix.models.contract import Query


def test_length_is_that_of_what_is_given() -> None:
    assert len(Query(users=torch.arange(3))) == 3
    assert len(Query(history=torch.tensor([[0, 1], [2, -1]]))) == 2


@pytest.mark.parametrize("given", [{}, {"users": torch.arange(1), "history": torch.zeros(1, 1, dtype=torch.int64)}])
def test_exactly_one_of_users_and_history(given: dict[str, torch.Tensor]) -> None:
    with pytest.raises(QueryError, match="exactly one"):
        Query(**given)
