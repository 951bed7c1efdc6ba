"""The model of counted transitions: against loops, known users and histories, and what nothing leads to."""

import numpy as np
import pytest
import torch

from modalmix.data.catalog import Catalog
from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.data.split import TrainData
from modalmix.models.contract import Query, SequentialScorer
from modalmix.models.contract.retrieval import TwoStep
from modalmix.models.transitions import Transitions, TransitionsConfig
from tests.models.sequences import ring


def fitted(data: TrainData, **settings: object) -> Transitions:
    model = Transitions(TransitionsConfig.parse(settings), data)
    model.fit(data)
    return model


def some_data(users: int = 40, items: int = 13) -> TrainData:
    """Nobody has met the last item; user 0 has met nothing."""
    rng = np.random.default_rng(2)
    user = np.repeat(np.arange(1, users), rng.integers(1, 9, users - 1)).astype(np.int32)
    item = rng.integers(0, items - 1, len(user)).astype(np.int32)
    events = Interactions(user, item, users, items)
    return TrainData(IdMap(list(range(users)), "user"), Catalog(IdMap(list(range(items)))), events)


def plain_scores(data: TrainData, config: TransitionsConfig, history: list[int]) -> np.ndarray:
    """The docstring's formula with loops, without what stands below."""
    n, (a, c) = data.n_items, config.exponents
    events, counts = np.zeros(n), np.zeros((n, n))
    for u in range(data.n_users):
        met = data.sequences.items[data.sequences.offsets[u] : data.sequences.offsets[u + 1]]
        for k, item in enumerate(met):
            events[item] += 1
            for gap in range(1, config.steps + 1):
                if k + gap < len(met):
                    counts[item, met[k + gap]] += config.decay ** (gap - 1)
    counts = counts + config.backward * counts.T
    scores = np.zeros(n)
    for age, item in enumerate(history[-config.length :][::-1]):
        for other in range(n):
            divisor = max(events[item], 1) ** a * max(events[other], 1) ** c
            scores[other] += config.recency**age * counts[item, other] / divisor
    return scores


@pytest.mark.parametrize(
    "settings", [{}, {"steps": 1, "recency": 0.0}, {"backward": 0.4, "exponents": (0.7, 0.3), "length": 3}]
)
def test_equals_the_formula(settings: dict[str, object]) -> None:
    data = some_data()
    model = fitted(data, **settings)
    histories = [[1, 2, 3, 2, 5], [7]]
    asked = torch.tensor([one + [-1] * (5 - len(one)) for one in histories])
    scores = model.scorer(data.catalog)(Query(history=asked)).numpy()
    expected = [plain_scores(data, model.config, one) for one in histories]
    np.testing.assert_allclose(scores, expected, atol=1e-5)


def test_a_history_is_scored_exactly_like_a_known_user() -> None:
    data = some_data()
    scorer = fitted(data).scorer(data.catalog)
    history = torch.from_numpy(data.sequences.last(np.array([3, 9]), 50))
    torch.testing.assert_close(scorer(Query(history=history)), scorer(Query(users=torch.tensor([3, 9]))))


def test_what_nothing_leads_to_stands_below_by_popularity() -> None:
    """After 3 and 4 come 4, 5, 6 and 7 in a ring; the other four tie but for how often they were met."""
    data = ring()
    scores = fitted(data).scorer(data.catalog)(Query(history=torch.tensor([[3, 4]])))[0]
    led_to, others = scores[[4, 5, 6, 7]], scores[[0, 1, 2, 3]]
    assert scores.argmax() == 5
    assert led_to.min() > others.max()
    popularity = torch.from_numpy(data.interactions.item_degree[:4].astype(np.float32))
    torch.testing.assert_close(others, 1e-7 * popularity.log1p(), atol=0, rtol=1e-5)
    assert others.min() > 0


def test_nobody_known_is_answered_by_popularity() -> None:
    data = some_data()
    scorer = fitted(data).scorer(data.catalog)
    popular = torch.from_numpy(np.log1p(data.interactions.item_degree).astype(np.float32))
    for asked in (Query(users=torch.tensor([0])), Query(history=torch.tensor([[-1]]))):
        with pytest.warns(UserWarning, match="answered by popularity"):
            torch.testing.assert_close(scorer(asked)[0], popular)


def test_two_steps_find_what_a_full_ranking_finds() -> None:
    data = some_data()
    scorer, asked = fitted(data).scorer(data.catalog), Query(users=torch.tensor([3, 5, 9]))
    assert isinstance(scorer, SequentialScorer)
    best = scorer(asked).topk(3)
    assert torch.equal(TwoStep(scorer, candidates=3).top(asked, 3).rows, best.indices)
