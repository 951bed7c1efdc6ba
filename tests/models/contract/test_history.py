"""Scorers that read histories: what they are asked, and what an empty history gets."""

import warnings

import numpy as np
import pytest
import torch

from modalmix.data import Interactions, Sequences
from modalmix.models.contract import Query
from modalmix.models.contract.calibrated import Calibration, calibrate
from modalmix.models.contract.history import HistoryScorer, SequentialScorer, last_items
from modalmix.models.contract.retrieval import PairScorer, TwoStep

ITEMS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0], [-1.0, 3.0]])
POPULARITY = torch.tensor([3.0, 1.0, 2.0, 0.0])


class Encoder:
    """The mean vector of a history. Keeps what it was given."""

    def __init__(self) -> None:
        self.given: list[list[list[int]]] = []

    def __call__(self, history: torch.Tensor) -> torch.Tensor:
        self.given.append(history.tolist())
        real = (history >= 0).unsqueeze(2)
        return (ITEMS[history.clamp(min=0)] * real).sum(dim=1) / real.sum(dim=1)


def scorer(encode: Encoder | None = None, length: int = 3) -> SequentialScorer:
    user, item = np.array([0, 0, 0, 0, 2], dtype=np.int32), np.array([3, 0, 1, 2, 1], dtype=np.int32)
    known = Sequences.of(Interactions(user, item, 3, 4))
    return SequentialScorer(length, known, encode or Encoder(), ITEMS, POPULARITY)


def test_last_items_by_hand() -> None:
    history = torch.tensor([[5, 6, 7, 8], [1, -1, -1, -1], [-1, -1, -1, -1], [-1, 2, -1, 3]])
    assert last_items(history, 2).tolist() == [[7, 8], [1, -1], [-1, -1], [2, 3]]
    assert last_items(history, 9).tolist() == [[5, 6, 7, 8], [1, -1, -1, -1], [-1] * 4, [2, 3, -1, -1]]
    assert last_items(history[2:3], 9).tolist() == [[-1]]
    assert last_items(history[:0], 9).shape == (0, 1)


def test_scores_are_inner_products_with_what_the_encoder_makes() -> None:
    encode = Encoder()
    scores = scorer(encode)(Query(history=torch.tensor([[0, 1, -1], [2, -1, -1]])))
    torch.testing.assert_close(scores, torch.stack([(ITEMS[0] + ITEMS[1]) / 2, ITEMS[2]]) @ ITEMS.T)
    assert encode.given == [[[0, 1], [2, -1]]]


def test_known_users_stand_for_their_train_histories() -> None:
    encode = Encoder()
    by_user = scorer(encode)(Query(users=torch.tensor([2, 0])))
    assert encode.given == [[[1, -1, -1], [0, 1, 2]]], "the last three of user 0"
    by_history = scorer()(Query(history=torch.tensor([[1, -1, -1, -1], [3, 0, 1, 2]])))
    torch.testing.assert_close(by_user, by_history)


def test_nobody_known_is_answered_by_popularity_and_told_so() -> None:
    encode = Encoder()
    asked = Query(history=torch.tensor([[-1, -1], [2, -1]]))
    with pytest.warns(UserWarning, match="answered by popularity"):
        scores = scorer(encode)(asked)
    torch.testing.assert_close(scores[0], POPULARITY)
    torch.testing.assert_close(scores[1], ITEMS @ ITEMS[2])
    assert encode.given == [[[2]]], "the encoder is not asked about nobody"
    with pytest.warns(UserWarning, match="answered by popularity"):
        torch.testing.assert_close(scorer(encode)(Query(users=torch.tensor([1])))[0], POPULARITY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scorer()(Query(users=torch.tensor([0, 2])))


def test_an_index_can_serve_it() -> None:
    one, asked = scorer(), Query(history=torch.tensor([[0, 1], [3, 2]]))
    assert isinstance(one, PairScorer)
    scores = one(asked)
    torch.testing.assert_close(one.vectors(asked) @ one.item_vectors.T, scores)
    candidates = torch.tensor([[3, 0], [1, 1]])
    torch.testing.assert_close(one.pairs(asked, candidates), scores.gather(1, candidates))
    best = TwoStep(one, candidates=4).top(asked, 2)
    torch.testing.assert_close(best.scores, scores.topk(2).values)


def test_calibration_touches_cold_items_only_and_keeps_reading_histories() -> None:
    warm = torch.tensor([True, True, False])  # item 2 is cold, item 3 is new
    one, asked = scorer(), Query(history=torch.tensor([[0, 1], [3, 2]]))
    found = calibrate(one, warm, Calibration(scale=0.5, offset=2.0))
    assert isinstance(found, HistoryScorer)
    assert (found.length, found.n_items) == (3, 4)
    expected = one(asked)
    expected[:, 2:] = 0.5 * expected[:, 2:] + 2.0
    torch.testing.assert_close(found(asked), expected)
    assert calibrate(one, warm, Calibration()) is one
