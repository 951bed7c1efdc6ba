"""Small holdouts and scorers with known scores."""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from modalmix.data.catalog import Catalog
from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.data.split import Holdout
from modalmix.models.contract import Query

Pairs = Sequence[tuple[int, int]]


class TableScorer:
    """Scores read from a users x items table."""

    def __init__(self, table: object) -> None:
        self.table = torch.as_tensor(table)
        self.queries: list[int] = []

    def __call__(self, query: Query) -> Float[Tensor, "batch items"]:
        assert query.users is not None
        self.queries += query.users.tolist()
        return self.table[query.users]


def build_holdout(positives: Pairs, train: Pairs, users: int, items: int, valid: Pairs | None = None) -> Holdout:
    """A validation holdout, or a test holdout where `valid` is given. User 3 is "u3", item 5 is "i5"."""

    def interactions(pairs: Pairs) -> Interactions:
        rows = np.array(pairs, dtype=np.int32).reshape(-1, 2)
        return Interactions(rows[:, 0].copy(), rows[:, 1].copy(), users, items)

    known = interactions(train)
    return Holdout(
        name="valid" if valid is None else "test",
        positives=interactions(positives),
        seen=known if valid is None else known + interactions(valid),
        train=known,
        catalog=Catalog(IdMap([f"i{row}" for row in range(items)])),
        users=IdMap([f"u{row}" for row in range(users)], "user"),
    )


def of_order(hits: Sequence[bool], n_relevant: int, k: int) -> dict[str, float]:
    """Every metric of one ranked list, as a textbook writes it."""
    hits = [bool(hit) for hit in hits[:k]]
    ranks = [rank for rank, hit in enumerate(hits, start=1) if hit]
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, n_relevant) + 1))
    return {
        "recall": len(ranks) / n_relevant,
        "recall_capped": len(ranks) / min(k, n_relevant),
        "precision": len(ranks) / k,
        "hitrate": float(bool(ranks)),
        "mrr": 1 / ranks[0] if ranks else 0.0,
        "ndcg": sum(1 / math.log2(rank + 1) for rank in ranks) / ideal,
        "map": sum((place + 1) / rank for place, rank in enumerate(ranks)) / min(k, n_relevant),
    }


def mean_over_all_orders(scores: Sequence[float], relevant: set[int], k: int) -> dict[str, float]:
    """The mean of every metric over all orders that the scores allow."""
    orders = [
        order
        for order in itertools.permutations(range(len(scores)))
        if all(scores[a] >= scores[b] for a, b in itertools.pairwise(order))
    ]
    values = [of_order([item in relevant for item in order], len(relevant), k) for order in orders]
    return {name: sum(value[name] for value in values) / len(values) for name in values[0]}


@pytest.fixture(scope="session")
def over_all_orders() -> Callable[[Sequence[float], set[int], int], dict[str, float]]:
    return mean_over_all_orders


@pytest.fixture
def holdout_of() -> Callable[..., Holdout]:
    return build_holdout


@pytest.fixture
def table_scorer() -> type[TableScorer]:
    return TableScorer


@pytest.fixture
def random_world() -> Callable[..., tuple[Holdout, np.ndarray]]:
    """A holdout where users have 0 to 4 held-out items among items they have not met, and distinct scores."""

    def build(users: int = 60, items: int = 40, seed: int = 0) -> tuple[Holdout, np.ndarray]:
        rng = np.random.default_rng(seed)
        train, positives = [], []
        for user in range(users):
            order = rng.permutation(items)
            known, held_out = rng.integers(0, 6), rng.integers(0, 5)
            train += [(user, int(item)) for item in order[:known]]
            positives += [(user, int(item)) for item in order[known : known + held_out]]
        scores = rng.permuted(np.tile(np.arange(items, dtype=np.float32), (users, 1)), axis=1)
        return build_holdout(positives, train, users, items), scores

    return build
