"""Each metric against hand-worked numbers, all orders of tied items, and three public tools."""

import math
from collections.abc import Callable, Sequence
from typing import get_args

import ir_measures
import numpy as np
import pytest
import pytrec_eval
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from modalmix.evaluation.metrics import METRICS, TieGroups, per_user
from modalmix.evaluation.settings import Metric

ALL = tuple(METRICS)
Oracle = Callable[[Sequence[int], set[int], int], dict[str, float]]


def groups_of(scores: Sequence[Sequence[float]], relevant: Sequence[set[int]]) -> TieGroups:
    """The groups by counting, one user after the other."""
    found = []
    for user, (row, wanted) in enumerate(zip(scores, relevant, strict=True)):
        values = np.asarray(row)
        found += [(user, (values > values[item]).sum(), (values == values[item]).sum()) for item in wanted]
    user, above, size = np.array(found, dtype=np.int64).T
    return TieGroups.of(np.array([len(wanted) for wanted in relevant], dtype=np.int64), user, above, size)


def test_the_settings_know_every_metric() -> None:
    assert set(get_args(Metric)) == set(METRICS)


def test_without_ties_by_hand() -> None:
    """Relevant at ranks 2 and 5 of 6, K = 3, |P| = 2."""
    groups = groups_of([[6, 5, 4, 3, 2, 1]], [{1, 4}])
    values = {name: value[0] for name, value in per_user(groups, ALL, (3,)).items()}
    discount = 1 / math.log2(3)
    assert values == pytest.approx(
        {
            "recall@3": 1 / 2,
            "recall_capped@3": 1 / 2,
            "precision@3": 1 / 3,
            "hitrate@3": 1.0,
            "mrr@3": 1 / 2,
            "ndcg@3": discount / (1 + discount),
            "map@3": (1 / 2) / 2,
        },
        abs=1e-15,
    )


def test_with_ties_by_hand() -> None:
    """One item above, then 3 tied with 2 relevant at ranks 2 to 4, K = 2: rank 2 is relevant with probability 2/3."""
    groups = groups_of([[9, 5, 5, 5, 1]], [{1, 2}])
    values = {name: value[0] for name, value in per_user(groups, ALL, (2, 3)).items()}
    d2, d3 = 1 / math.log2(3), 1 / math.log2(4)
    assert values["recall@2"] == pytest.approx(2 / 3 / 2)
    assert values["precision@2"] == pytest.approx(2 / 3 / 2)
    assert values["hitrate@2"] == pytest.approx(2 / 3)
    assert values["hitrate@3"] == 1.0  # two of three places cannot both miss
    assert values["mrr@2"] == pytest.approx(2 / 3 * 1 / 2)
    assert values["mrr@3"] == pytest.approx(2 / 3 * 1 / 2 + 1 / 3 * 1 / 3)
    assert values["ndcg@2"] == pytest.approx(2 / 3 * d2 / (1 + d2))
    assert values["ndcg@3"] == pytest.approx(2 / 3 * (d2 + d3) / (1 + d2))
    # orders of the tied three (hit, hit, miss), (hit, miss, hit), (miss, hit, hit) up to rank 3
    assert values["map@3"] == pytest.approx(((1 / 2 + 2 / 3) + 1 / 2 + 1 / 3) / 3 / 2)


def test_two_groups_of_ties_are_independent(over_all_orders: Oracle) -> None:
    """The second group's precision counts the positives of the first."""
    scores, relevant = [3, 3, 2, 2, 2, 1], {0, 3, 4}
    groups = groups_of([scores], [relevant])
    assert groups.earlier.tolist() == [0, 1]
    for k in (1, 2, 3, 4, 5, 6):
        expected = over_all_orders(scores, relevant, k)
        assert {n: METRICS[n](groups, k)[0] for n in ALL} == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.integers(0, 3), min_size=1, max_size=6),
    k=st.integers(1, 8),
    data=st.data(),
)
def test_equals_the_mean_over_all_orders(
    over_all_orders: Oracle, scores: list[int], k: int, data: st.DataObject
) -> None:
    relevant = data.draw(st.sets(st.integers(0, len(scores) - 1), min_size=1))
    groups = groups_of([scores], [relevant])
    values = {name: METRICS[name](groups, k)[0] for name in ALL}
    assert values == pytest.approx(over_all_orders(scores, relevant, k), abs=1e-12)


def test_users_do_not_mix() -> None:
    scores = [[1, 1, 0, 2], [5, 5, 5, 5], [0, 1, 2, 3], [2, 2, 1, 1]]
    relevant = [{0, 1}, {2}, {0}, {1, 2, 3}]
    together = per_user(groups_of(scores, relevant), ALL, (1, 2, 3))
    for user in range(4):
        alone = per_user(groups_of([scores[user]], [relevant[user]]), ALL, (1, 2, 3))
        assert {name: value[user] for name, value in together.items()} == pytest.approx(
            {name: value[0] for name, value in alone.items()}, abs=1e-15
        )


def test_positives_may_come_in_any_order() -> None:
    relevant, user = np.array([3, 1]), np.array([1, 0, 0, 0])
    above, size = np.array([0, 4, 0, 4]), np.array([1, 2, 3, 2])
    groups = TieGroups.of(relevant, user, above, size)
    assert groups.user.tolist() == [0, 0, 1]
    assert groups.above.tolist() == [0, 4, 0]
    assert groups.positives.tolist() == [1, 2, 1]
    assert groups.earlier.tolist() == [0, 1, 0]


def test_nothing_within_the_cut_off_is_zero() -> None:
    empty = np.array([], dtype=np.int64)
    groups = TieGroups.of(np.array([2, 1]), empty, empty, empty)
    assert all(value.tolist() == [0.0, 0.0] for value in per_user(groups, ALL, (5,)).values())


def test_large_groups_stay_exact() -> None:
    """A million tied candidates with one positive: chance is K / n, and the harmonic sums over n."""
    one, n, k = np.array([1]), 1_000_000, 20
    groups = TieGroups.of(one, np.array([0]), np.array([0]), np.array([n]))
    harmonic = sum(1 / rank for rank in range(1, k + 1)) / n
    assert METRICS["recall"](groups, k)[0] == pytest.approx(k / n, rel=1e-12)
    assert METRICS["hitrate"](groups, k)[0] == pytest.approx(k / n, rel=1e-9)
    assert METRICS["mrr"](groups, k)[0] == pytest.approx(harmonic, rel=1e-12)
    assert METRICS["map"](groups, k)[0] == pytest.approx(harmonic, rel=1e-12)


def random_case(seed: int) -> tuple[np.ndarray, list[set[int]]]:
    rng = np.random.default_rng(seed)
    scores = rng.permuted(np.tile(np.arange(30), (50, 1)), axis=1)
    relevant = [set(rng.choice(30, rng.integers(1, 12), replace=False).tolist()) for _ in range(50)]
    return scores, relevant


@pytest.mark.parametrize("seed", range(3))
def test_equals_pytrec_eval(seed: int) -> None:
    scores, relevant = random_case(seed)
    qrels = {f"u{u}": {f"i{i}": 1 for i in wanted} for u, wanted in enumerate(relevant)}
    run = {f"u{u}": {f"i{i}": float(score) for i, score in enumerate(row)} for u, row in enumerate(scores)}
    ks = (1, 5, 10, 20)
    cuts = ",".join(map(str, ks))
    measures = {f"{name}.{cuts}" for name in ("recall", "P", "ndcg_cut", "map_cut", "success")}
    theirs = pytrec_eval.RelevanceEvaluator(qrels, measures).evaluate(run)
    ours = per_user(groups_of(scores.tolist(), relevant), ALL, ks)
    for k in ks:
        for name, field in (("recall", "recall"), ("precision", "P"), ("hitrate", "success")):
            expected = [theirs[f"u{u}"][f"{field}_{k}"] for u in range(50)]
            np.testing.assert_allclose(ours[f"{name}@{k}"], expected, atol=1e-9)
        np.testing.assert_allclose(ours[f"ndcg@{k}"], [theirs[f"u{u}"][f"ndcg_cut_{k}"] for u in range(50)], atol=1e-9)
        # trec_eval divides by |P|, we divide by min(|P|, K)
        by_size = [theirs[f"u{u}"][f"map_cut_{k}"] * len(p) / min(len(p), k) for u, p in enumerate(relevant)]
        np.testing.assert_allclose(ours[f"map@{k}"], by_size, atol=1e-9)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_equals_ir_measures(k: int) -> None:
    scores, relevant = random_case(7)
    qrels = [ir_measures.Qrel(f"u{u}", f"i{i}", 1) for u, wanted in enumerate(relevant) for i in wanted]
    run = [ir_measures.ScoredDoc(f"u{u}", f"i{i}", float(s)) for u, row in enumerate(scores) for i, s in enumerate(row)]
    pairs = {
        "recall": ir_measures.R @ k,
        "precision": ir_measures.P @ k,
        "ndcg": ir_measures.nDCG @ k,
        "hitrate": ir_measures.Success @ k,
        "mrr": ir_measures.RR @ k,
    }
    theirs = ir_measures.calc_aggregate(list(pairs.values()), qrels, run)
    groups = groups_of(scores.tolist(), relevant)
    for name, measure in pairs.items():
        assert METRICS[name](groups, k).mean() == pytest.approx(theirs[measure], abs=1e-9), name


@pytest.mark.parametrize("k", [1, 3, 10, 30])
def test_ndcg_equals_scikit_learn(k: int) -> None:
    scores, relevant = random_case(11)
    truth = np.zeros(scores.shape)
    for user, wanted in enumerate(relevant):
        truth[user, list(wanted)] = 1
    theirs = ndcg_score(truth, scores, k=k, ignore_ties=True)
    assert METRICS["ndcg"](groups_of(scores.tolist(), relevant), k).mean() == pytest.approx(theirs, abs=1e-9)


def test_ndcg_with_ties_equals_scikit_learn() -> None:
    """scikit-learn averages over ties too."""
    rng = np.random.default_rng(3)
    scores = rng.integers(0, 4, (40, 12))
    relevant = [set(rng.choice(12, rng.integers(1, 6), replace=False).tolist()) for _ in range(40)]
    truth = np.zeros(scores.shape)
    for user, wanted in enumerate(relevant):
        truth[user, list(wanted)] = 1
    for k in (2, 5, 12):
        theirs = ndcg_score(truth, scores, k=k, ignore_ties=False)
        assert METRICS["ndcg"](groups_of(scores.tolist(), relevant), k).mean() == pytest.approx(theirs, abs=1e-9)
