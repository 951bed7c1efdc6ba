"""The recall of two steps against the exact lists, in a world where it is known."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from modalmix.data.split import Holdout
from modalmix.errors import EvaluateError
from modalmix.evaluation import retrieval_curve
from modalmix.models.contract import DotScorer, Query

USERS, ITEMS = 6, 12


class Blurred:
    """User u's items by score: u, u + 1, ... (mod 12). The inner products rank the first `wrong` of them last."""

    prior = None

    def __init__(self, wrong: int = 0) -> None:
        place = (torch.arange(ITEMS) - torch.arange(USERS).unsqueeze(1)) % ITEMS
        self.table = -place.float()
        self.near = torch.where(place < wrong, -100.0, self.table)

    @property
    def item_vectors(self) -> Tensor:
        return torch.eye(ITEMS)

    def vectors(self, query: Query) -> Tensor:
        return self.near[query.users]

    def __call__(self, query: Query) -> Tensor:
        return self.table[query.users]

    def pairs(self, query: Query, candidates: Tensor) -> Tensor:
        return self(query).gather(1, candidates)


@pytest.fixture
def holdout(holdout_of: Callable[..., Holdout]) -> Holdout:
    """User u met item u, their best, in training; user 5 has nothing held out."""
    return holdout_of([(u, 9) for u in range(5)], [(u, u) for u in range(USERS)], USERS, ITEMS)


@pytest.mark.parametrize("chunk", [1, 2, 128])
def test_recall_by_hand(holdout: Holdout, chunk: int) -> None:
    """Without the item met, places 1, 2, ... are exact; place 1 is ranked last by the inner products."""
    curve = retrieval_curve(Blurred(wrong=2), holdout, (4, 10, 12), (1, 4), chunk=chunk)
    assert (curve.users, curve.items, curve.chunk) == (5, ITEMS, chunk)
    assert [dict(point.recall) for point in curve.points] == [{1: 0.0, 4: 0.75}, {1: 0.0, 4: 0.75}, {1: 1.0, 4: 1.0}]
    assert [point.scored for point in curve.points] == [4, 10, 11]
    assert all(point.cpu_ms >= 0 for point in curve.points)


def test_the_mask_says_what_may_be_listed(holdout: Holdout) -> None:
    """With what was met, places 0 and 1 are the ones that are missed."""
    (point,) = retrieval_curve(Blurred(wrong=2), holdout, (4,), (4,), mask="none").points
    assert dict(point.recall) == {4: 0.5}


def test_inner_products_that_are_the_score_find_all(holdout: Holdout) -> None:
    (point,) = retrieval_curve(Blurred(), holdout, (4,), (1, 4)).points
    assert dict(point.recall) == {1: 1.0, 4: 1.0}


def test_a_list_longer_than_what_is_left_counts_what_there_is(holdout: Holdout) -> None:
    (point,) = retrieval_curve(Blurred(wrong=2), holdout, (12,), (12,)).points
    assert dict(point.recall) == {12: 1.0}
    assert point.scored == 11


def test_users_are_drawn_by_the_seed(random_world: Callable[..., tuple[Holdout, np.ndarray]]) -> None:
    world, scores = random_world(users=60, items=40)

    class Recorded(Blurred):
        def __init__(self) -> None:
            self.table = self.near = torch.from_numpy(scores)
            self.asked: set[int] = set()

        @property
        def item_vectors(self) -> Tensor:
            return torch.eye(40)

        def __call__(self, query: Query) -> Tensor:
            assert query.users is not None
            self.asked |= set(query.users.tolist())
            return self.table[query.users]

    asked = []
    for seed in (0, 0, 1):
        scorer = Recorded()
        curve = retrieval_curve(scorer, world, (5,), (5,), users=10, seed=seed)
        assert (curve.users, len(scorer.asked)) == (10, 10)
        assert scorer.asked <= set(world.positives.user.tolist())
        asked.append(scorer.asked)
    assert asked[0] == asked[1] != asked[2]


def test_rows_and_json(holdout: Holdout) -> None:
    curve = retrieval_curve(Blurred(wrong=2), holdout, (4, 10), (1, 4))
    rows = curve.rows()
    assert [row["candidates"] for row in rows] == ["4", "10", "all"]
    assert (rows[0]["recall@4"], rows[-1]["recall@4"], rows[-1]["scored"]) == (0.75, 1.0, ITEMS)
    assert curve.to_dict()["points"][0]["recall"] == {1: 0.0, 4: 0.75}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"candidates": (3,), "ks": (4,)}, r"k.*got ks \[4\], candidates \[3\]"),
        ({"candidates": (13,), "ks": (13,)}, "12 items"),
        ({"candidates": (5,), "ks": ()}, "ks"),
        ({"candidates": (), "ks": (1,)}, "candidates"),
        ({"candidates": (5,), "ks": (1,), "users": 0}, "users"),
    ],
)
def test_what_cannot_be_measured_is_refused(holdout: Holdout, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(EvaluateError, match=message):
        retrieval_curve(Blurred(), holdout, **settings)


def test_a_model_that_scores_all_items_at_once_is_refused(holdout: Holdout) -> None:
    with pytest.raises(EvaluateError, match="two steps"):
        retrieval_curve(DotScorer(torch.ones(USERS, 1), torch.ones(ITEMS, 1)), holdout, (5,), (1,))
