"""Scorers that read histories: what they are asked, and what an empty history gets."""

import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from modalmix.data import Interactions, Sequences
from modalmix.models.contract import Query
from modalmix.models.contract.calibrated import Calibration, calibrate
from modalmix.models.contract.history import HistoryScorer, SequentialScorer, last_events
from modalmix.models.contract.retrieval import PairScorer, TwoStep
from modalmix.models.contract.transitions import TransitionPrior
from modalmix.nn.transitions import TransitionFilter

ITEMS = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0], [-1.0, 3.0]])
POPULARITY = torch.tensor([3.0, 1.0, 2.0, 0.0])


class Encoder:
    """The mean vector of a history. Keeps what it was given."""

    def __init__(self) -> None:
        self.given: list[list[list[int]]] = []
        self.times: list[list[list[int]] | None] = []

    def __call__(self, history: torch.Tensor, times: torch.Tensor | None) -> torch.Tensor:
        self.given.append(history.tolist())
        self.times.append(None if times is None else times.tolist())
        real = (history >= 0).unsqueeze(2)
        return (ITEMS[history.clamp(min=0)] * real).sum(dim=1) / real.sum(dim=1)


def scorer(encode: Encoder | None = None, length: int = 3) -> SequentialScorer:
    user, item = np.array([0, 0, 0, 0, 2], dtype=np.int32), np.array([3, 0, 1, 2, 1], dtype=np.int32)
    known = Sequences.of(Interactions(user, item, 3, 4))
    return SequentialScorer(length, known, encode or Encoder(), ITEMS, POPULARITY)


def test_last_events_by_hand() -> None:
    history = torch.tensor([[5, 6, 7, 8], [1, -1, -1, -1], [-1, -1, -1, -1], [-1, 2, -1, 3]])
    assert last_events(history, None, 2).items.tolist() == [[7, 8], [1, -1], [-1, -1], [2, 3]]
    assert last_events(history, None, 9).items.tolist() == [[5, 6, 7, 8], [1, -1, -1, -1], [-1] * 4, [2, 3, -1, -1]]
    assert last_events(history[2:3], None, 9).items.tolist() == [[-1]]
    assert last_events(history[:0], None, 9).items.shape == (0, 1)


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


def timed_scorer(encode: Encoder, length: int = 3, reads_times: bool = True) -> SequentialScorer:
    """User 0 met 3, 0, 1, 2 at 10, 20, 40, 80, user 2 met 1 at 5, user 1 nothing."""
    user, item = np.array([0, 0, 0, 0, 2], dtype=np.int32), np.array([3, 0, 1, 2, 1], dtype=np.int32)
    known = Sequences.of(Interactions(user, item, 3, 4, np.array([10, 20, 40, 80, 5])))
    return SequentialScorer(length, known, encode, ITEMS, POPULARITY, reads_times=reads_times)


def test_times_stay_beside_their_items() -> None:
    history, times = torch.tensor([[5, 6, 7, 8], [1, -1, -1, -1], [-1, 2, -1, 3]]), torch.arange(1, 13).view(3, 4)
    found = last_events(history, times, 2)
    assert found.items.tolist() == [[7, 8], [1, -1], [2, 3]]
    assert found.times is not None
    assert found.times.tolist() == [[3, 4], [5, 0], [10, 12]]


def test_who_reads_times_gets_them_where_they_are_known() -> None:
    encode = Encoder()
    one = timed_scorer(encode)
    one(Query(users=torch.tensor([2, 0])))
    assert encode.times.pop() == [[5, 0, 0], [20, 40, 80]]
    one(Query(history=torch.tensor([[3, 0, 1, 2]]), times=torch.tensor([[1, 2, 3, 4]])))
    assert encode.times.pop() == [[2, 3, 4]]
    one(Query(history=torch.tensor([[3, 0]])))
    assert encode.times.pop() is None
    with pytest.warns(UserWarning, match="answered by popularity"):
        one(Query(users=torch.tensor([1, 0])))
    assert encode.times.pop() == [[20, 40, 80]], "of those who are encoded"
    asked = one.ask(one.known, np.array([0, 2]))
    assert asked.times is not None
    assert asked.times.tolist() == [[20, 40, 80], [5, 0, 0]]
    calibrated = calibrate(one, torch.tensor([True, True, False, False]), Calibration(scale=0.5))
    calibrated(asked)
    assert encode.times.pop() == [[20, 40, 80], [5, 0, 0]]


def test_who_does_not_read_times_never_sees_them() -> None:
    encode = Encoder()
    one = timed_scorer(encode, reads_times=False)
    one(Query(users=torch.tensor([0])))
    one(Query(history=torch.tensor([[3, 0]]), times=torch.tensor([[1, 2]])))
    assert encode.times == [None, None]
    assert one.ask(one.known, np.array([0])).times is None


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


def test_popularity_answers_as_it_is_where_cold_items_are_calibrated() -> None:
    calibrated = calibrate(scorer(), torch.tensor([True, True, False, False]), Calibration(scale=0.5, offset=9.0))
    with pytest.warns(UserWarning, match="answered by popularity"):
        scores = calibrated(Query(history=torch.tensor([[-1], [2]])))
    torch.testing.assert_close(scores[0], POPULARITY)
    torch.testing.assert_close(scores[1, 2:], (ITEMS @ ITEMS[2])[2:] * 0.5 + 9.0)


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


def with_prior(trust: float = 2.0) -> SequentialScorer:
    """After item 3 comes item 0, after 0 item 1: W has 1 there. Of earlier items of a history half is heard."""
    weights = sp.csr_matrix(np.array([[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]], dtype=np.float32))
    plain = scorer()
    prior = TransitionPrior(TransitionFilter(weights, 0.5), torch.full((4,), trust))
    return SequentialScorer(3, plain.known, plain.encode, ITEMS, POPULARITY, transitions=prior)


SAID = torch.tensor([[0.5, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])  # of the histories 3, 0 and 1, 2
ASKED = Query(history=torch.tensor([[3, 0], [1, 2]]))


def test_a_prior_is_added_to_all_scores_and_to_pairs() -> None:
    one = with_prior()
    expected = scorer()(ASKED) + 2.0 * SAID
    torch.testing.assert_close(one(ASKED), expected)
    candidates = torch.tensor([[0, 3], [1, 2]])
    torch.testing.assert_close(one.pairs(ASKED, candidates), expected.gather(1, candidates))


def test_a_prior_names_candidates_of_its_own() -> None:
    """Item 1 is last but one by inner products of the history 3, 0, and first with the prior."""
    one = with_prior(trust=50.0)
    assert isinstance(one, PairScorer)
    alone, both = TwoStep(scorer(), candidates=1), TwoStep(one, candidates=1)
    assert alone.top(ASKED, 1).rows[0].item() != 1
    assert both.top(ASKED, 1).rows[0].item() == 1
    torch.testing.assert_close(both.top(ASKED, 1).scores[0, 0], one(ASKED)[0].max())


def test_a_prior_is_trusted_as_far_as_told() -> None:
    one, plain = with_prior(), scorer()(ASKED)
    torch.testing.assert_close(one.trusting(3.0)(ASKED), plain + 6.0 * SAID)
    torch.testing.assert_close(one.trusting(0.0)(ASKED), plain)
    assert one.trusting(0.0).prior is None, "no candidates of its own either"
    torch.testing.assert_close(one(ASKED), plain + 2.0 * SAID)  # the scorer itself stays as it is
    without = scorer()
    assert without.trusting(3.0) is without


def test_a_prior_is_calibrated_with_the_scores_of_cold_items() -> None:
    warm, calibration = torch.tensor([True, False, True, True]), Calibration(scale=0.5, offset=9.0, prior=3.0)
    expected = scorer()(ASKED) + 6.0 * SAID
    expected[:, 1] = 0.5 * expected[:, 1] + 9.0
    torch.testing.assert_close(calibrate(with_prior(), warm, calibration)(ASKED), expected)
    found = calibrate(with_prior(), torch.ones(4, dtype=torch.bool), Calibration(prior=3.0))(ASKED)
    torch.testing.assert_close(found, scorer()(ASKED) + 6.0 * SAID)


def test_nobody_known_is_answered_by_popularity_with_a_prior_too() -> None:
    with pytest.warns(UserWarning, match="answered by popularity"):
        scores = with_prior()(Query(history=torch.tensor([[-1, -1]])))
    torch.testing.assert_close(scores[0], POPULARITY)
