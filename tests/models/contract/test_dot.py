"""The inner-product scorer by hand."""

import pytest
import torch

from modalmix.errors import QueryError
from modalmix.models.contract import DotScorer, Query

USERS = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
ITEMS = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])


def test_scores_are_inner_products() -> None:
    scores = DotScorer(USERS, ITEMS)(Query(users=torch.tensor([1, 0])))
    assert scores.tolist() == [[0, 3, 3], [2, 0, 1]]


def test_the_bias_is_added() -> None:
    scores = DotScorer(USERS, ITEMS, torch.tensor([10.0, 20.0, 30.0]))(Query(users=torch.tensor([0])))
    assert scores.tolist() == [[12, 20, 31]]


@pytest.mark.parametrize("bias", [None, torch.tensor([10.0, 20.0, 30.0])])
def test_scores_are_written_into_a_given_buffer(bias: torch.Tensor | None) -> None:
    scorer, query = DotScorer(USERS, ITEMS, bias), Query(users=torch.tensor([0, 1]))
    buffer = torch.full((2, 3), torch.nan)
    scores = scorer(query, out=buffer)
    assert scores.data_ptr() == buffer.data_ptr()
    assert torch.equal(buffer, scorer(query))


def test_a_history_is_the_mean_of_its_items_at_the_length_of_a_user() -> None:
    scorer = DotScorer(USERS, ITEMS)  # mean length of the users: (1 + 3) / 2
    vectors = scorer.vectors(Query(history=torch.tensor([[0, 1], [1, -1]])))
    torch.testing.assert_close(vectors[0], 2 * torch.tensor([2.0, 1.0]) / 5**0.5)
    torch.testing.assert_close(vectors[1], torch.tensor([0.0, 2.0]))
    torch.testing.assert_close(scorer(Query(history=torch.tensor([[1, -1]]))), torch.tensor([[0.0, 2.0, 2.0]]))


def test_a_repeat_in_a_history_counts_once() -> None:
    scorer = DotScorer(USERS, ITEMS)
    twice, once = scorer.vectors(Query(history=torch.tensor([[1, 0, 1], [0, 1, -1]])))
    assert torch.equal(twice, once)


def test_an_empty_history_is_an_error() -> None:
    with pytest.raises(QueryError, match="a history is empty"):
        DotScorer(USERS, ITEMS)(Query(history=torch.tensor([[0, 1], [-1, -1]])))


def test_vectors_need_no_gradient() -> None:
    scores = DotScorer(USERS.clone().requires_grad_(), ITEMS.clone().requires_grad_())(Query(users=torch.tensor([0])))
    assert not scores.requires_grad
