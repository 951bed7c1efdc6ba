"""Queries."""

import pytest
import torch

from modalmix.errors import QueryError
from modalmix.models.contract import Query
from modalmix.models.contract.query import distinct


def test_length_is_that_of_what_is_given() -> None:
    assert len(Query(users=torch.arange(3))) == 3
    assert len(Query(history=torch.tensor([[0, 1], [2, -1]]))) == 2


@pytest.mark.parametrize("given", [{}, {"users": torch.arange(1), "history": torch.zeros(1, 1, dtype=torch.int64)}])
def test_exactly_one_of_users_and_history(given: dict[str, torch.Tensor]) -> None:
    with pytest.raises(QueryError, match="exactly one"):
        Query(**given)


def test_times_belong_to_the_items_of_a_history() -> None:
    history = torch.tensor([[3, 4], [1, -1]])
    asked = Query(history=history, times=torch.tensor([[5, 9], [7, 0]]))
    assert asked.times is not None
    assert len(asked) == 2
    with pytest.raises(QueryError, match="a time for each of its items"):
        Query(history=history, times=torch.tensor([5, 9]))
    with pytest.raises(QueryError, match="beside users"):
        Query(users=torch.arange(2), times=torch.tensor([[5], [9]]))


def test_a_repeat_is_padding() -> None:
    history = torch.tensor([[5, 2, 5, 2, 5], [3, -1, 3, 0, -1], [1, 2, 3, 4, 0]])
    assert distinct(history).tolist() == [[5, 2, -1, -1, -1], [3, -1, -1, 0, -1], [1, 2, 3, 4, 0]]
    assert distinct(torch.zeros(2, 0, dtype=torch.int64)).shape == (2, 0)
