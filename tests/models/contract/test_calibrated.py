"""Calibrated scorers by hand: cold items on another scale, warm ones untouched."""

import pytest
import torch

from modalmix.models.contract import Calibration, DotScorer, Query, Scorer, calibrate
from modalmix.models.contract.calibrated import CalibratedPairScorer, CalibratedScorer
from modalmix.models.contract.retrieval import TwoStep

USERS = torch.tensor([[1.0, 0.0], [0.0, 3.0]])
ITEMS = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
BIAS = torch.tensor([10.0, 20.0, 30.0])
WARM = torch.tensor([True, False, True])
QUERY = Query(users=torch.tensor([0, 1]))
TWICE_AND_FIVE = Calibration(scale=2.0, offset=5.0)


class Table:
    """A scorer that is no DotScorer."""

    def __init__(self) -> None:
        self.scores = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 3.0]])

    def __call__(self, query: Query) -> torch.Tensor:
        assert query.users is not None
        return self.scores[query.users]


def test_without_a_change_the_scorer_is_given_back() -> None:
    scorer = DotScorer(USERS, ITEMS)
    assert calibrate(scorer, WARM, Calibration()) is scorer


def test_a_dot_scorer_stays_one() -> None:
    flags = torch.tensor([False, True, False])
    found = calibrate(DotScorer(USERS, ITEMS, without_content=flags), WARM, TWICE_AND_FIVE)
    assert isinstance(found, DotScorer)
    assert found.without_content is flags
    assert found(QUERY).tolist() == [[2, 5, 1], [0, 11, 3]]  # column 1 was 0 and 3


def test_the_bias_of_a_cold_item_is_part_of_its_score() -> None:
    found = calibrate(DotScorer(USERS, ITEMS, BIAS), WARM, TWICE_AND_FIVE)
    assert found(QUERY).tolist() == [[12, 45, 31], [10, 51, 33]]  # column 1 was 20 and 23


@pytest.mark.parametrize("calibration", [Calibration(2.0, 0.0), Calibration(1.0, -3.0), TWICE_AND_FIVE])
def test_any_other_scorer_gets_the_same_numbers(calibration: Calibration) -> None:
    dot, other = calibrate(DotScorer(USERS, ITEMS), WARM, calibration), calibrate(Table(), WARM, calibration)
    assert isinstance(other, CalibratedScorer)
    torch.testing.assert_close(other(QUERY), dot(QUERY))


@pytest.mark.parametrize("scorer", [DotScorer(USERS, ITEMS), Table()])
def test_items_below_the_known_ones_are_cold(scorer: Scorer) -> None:
    assert calibrate(scorer, WARM[:2], TWICE_AND_FIVE)(QUERY).tolist() == [[2, 5, 7], [0, 11, 11]]


def test_the_scorer_that_was_given_stays_as_it_was() -> None:
    dot, table = DotScorer(USERS, ITEMS, BIAS), Table()
    before = dot(QUERY)
    for scorer in (dot, table):
        calibrate(scorer, WARM, TWICE_AND_FIVE)(QUERY).fill_(torch.nan)
    assert torch.equal(dot(QUERY), before)
    assert torch.isfinite(table.scores).all()


def test_half_precision_stays_half() -> None:
    found = calibrate(DotScorer(USERS.bfloat16(), ITEMS.bfloat16()), WARM, TWICE_AND_FIVE)
    assert found(QUERY).dtype == torch.bfloat16
    assert found(QUERY).tolist() == [[2, 5, 1], [0, 11, 3]]


@pytest.mark.parametrize("scorer", [DotScorer(USERS, ITEMS), DotScorer(USERS, ITEMS, BIAS)])
def test_an_offset_does_not_touch_a_folded_in_history(scorer: DotScorer) -> None:
    history = Query(history=torch.tensor([[0, 1], [2, -1]]))
    found = calibrate(scorer, WARM, Calibration(offset=5.0))
    torch.testing.assert_close(found(history), scorer(history) + torch.tensor([0.0, 5.0, 0.0]))


class Pairs:
    """A scorer of pairs: inner products and a prior, and 7 more that only exact scores know."""

    def __init__(self, prior: bool = True) -> None:
        self.item_vectors = ITEMS
        self.prior = (lambda query: torch.tensor([[0.5, 4.0, 0.0]]).expand(len(query), -1)) if prior else None

    def vectors(self, query: Query) -> torch.Tensor:
        return USERS[query.users]

    def __call__(self, query: Query) -> torch.Tensor:
        added = 7.0 if self.prior is None else 7.0 + self.prior(query)
        return self.vectors(query) @ ITEMS.T + added

    def pairs(self, query: Query, candidates: torch.Tensor) -> torch.Tensor:
        return self(query).gather(1, candidates)


@pytest.mark.parametrize("warm", [WARM, WARM[:2]])
@pytest.mark.parametrize("prior", [True, False])
def test_a_scorer_of_pairs_stays_one(warm: torch.Tensor, prior: bool) -> None:
    """Item 1 is cold, and the one below the known ones."""
    scorer = Pairs(prior)
    found, plain = calibrate(scorer, warm, TWICE_AND_FIVE), CalibratedScorer(scorer, warm, TWICE_AND_FIVE)
    assert isinstance(found, CalibratedPairScorer)
    torch.testing.assert_close(found(QUERY), plain(QUERY))
    candidates = torch.tensor([[2, 1], [0, 1]])
    torch.testing.assert_close(found.pairs(QUERY, candidates), plain(QUERY).gather(1, candidates))
    near = found.vectors(QUERY) @ found.item_vectors.T
    if found.prior is not None:
        near = near + found.prior(QUERY)
    cold = torch.tensor([False, True, len(warm) == 2])
    missing = torch.where(cold, 14.0, 7.0)  # what only exact scores know
    torch.testing.assert_close(near + missing, plain(QUERY))
    assert torch.equal(TwoStep(found, 3).top(QUERY, 1).rows[:, 0], plain(QUERY).argmax(dim=1))
