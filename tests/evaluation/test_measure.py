"""Known answers: constant, random, most popular, oracle, all orders, real data."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from modalmix.data.catalog import Catalog
from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.data.split import Holdout
from modalmix.errors import ConfigError, EvaluateError
from modalmix.evaluation import EvaluateConfig, evaluate, validation_score
from modalmix.evaluation.metrics import METRICS
from modalmix.models.contract import DotScorer, Query

ALL = tuple(METRICS)
HoldoutOf = Callable[..., Holdout]
World = Callable[..., tuple[Holdout, np.ndarray]]


class OneRow:
    """The same scores for everyone."""

    def __init__(self, row: np.ndarray) -> None:
        self.row = torch.from_numpy(row.astype(np.float32))

    def __call__(self, query: Query) -> Float[Tensor, "batch items"]:
        return self.row.expand(len(query), -1)


@pytest.mark.parametrize("mask", ["seen", "train", "none"])
@pytest.mark.parametrize("pool", ["all", "cold", "warm"])
def test_every_metric_of_every_user_is_the_mean_over_all_orders(
    holdout_of: HoldoutOf, table_scorer: Any, over_all_orders: Any, mask: str, pool: str
) -> None:
    """The whole path against enumeration: 12 users, 6 items, 3 score levels, masks and pools by plain sets."""
    rng = np.random.default_rng(5)
    events = {"train": [], "valid": [], "test": []}
    for user in range(12):
        items = rng.permutation(6)
        events["train"] += [(user, int(item)) for item in items if item < 4][: rng.integers(0, 3)]
        rest = [int(item) for item in items if (user, int(item)) not in events["train"]]
        events["valid"] += [(user, rest[0])]
        events["test"] += [(user, item) for item in rest[1 : 1 + rng.integers(0, 4)]]
    holdout = holdout_of(events["test"], events["train"], users=12, items=6, valid=events["valid"])
    scores = rng.integers(0, 3, (12, 6)).astype(np.float32)

    masked = {"seen": events["train"] + events["valid"], "train": events["train"], "none": []}[mask]
    warm = {item for _, item in events["train"]}
    members = {"all": set(range(6)), "warm": warm, "cold": set(range(6)) - warm}[pool]
    expected: dict[str, dict[str, float]] = {}
    for user in range(12):
        candidates = [item for item in range(6) if item in members and (user, item) not in masked]
        relevant = {place for place, item in enumerate(candidates) if (user, item) in events["test"]}
        if relevant:
            row = scores[user, candidates].tolist()
            values = {k: over_all_orders(row, relevant, k) for k in (1, 2, 4, 9)}
            expected[f"u{user}"] = {f"{name}@{k}": value[name] for k, value in values.items() for name in ALL}

    config = EvaluateConfig.parse({"metrics": ALL, "ks": (1, 2, 4, 9), "mask": mask, "pools": (pool,), "chunk": 5})
    result = evaluate(table_scorer(scores), holdout, config).pools[pool]
    assert len(expected) > 3
    rows = {row.pop("user"): row for row in result.per_user.to_dicts()}
    assert set(rows) == set(expected)
    for user, values in expected.items():
        assert rows[user] == pytest.approx(values, abs=1e-12)
    assert result.users == len(expected)
    assert result.users_left_out == 12 - len(expected)
    for name, estimate in result.metrics.items():
        assert estimate.mean == pytest.approx(np.mean([values[name] for values in expected.values()]), abs=1e-12)


@pytest.mark.parametrize("sampled", [None, 5])
def test_a_constant_model_scores_chance(random_world: World, sampled: int | None) -> None:
    """Recall@K of a user is min(K, n) / n with n candidates, and every metric equals the random floor."""
    holdout, _ = random_world()
    config = EvaluateConfig(metrics=ALL, ks=(3, 10), pools=("all", "warm"), sampled=sampled)
    evaluation = evaluate(OneRow(np.full(40, 0.3)), holdout, config)
    for result in evaluation.pools.values():
        assert {n: e.mean for n, e in result.metrics.items()} == pytest.approx(dict(result.floors["random"]), abs=1e-12)
    assert evaluation.pools["all"].tie_share == (1.0 if sampled is None else 0.0)  # at 10: 9 candidates at most
    if sampled is None:
        known = np.bincount(holdout.train.user, minlength=60)
        users = np.unique(holdout.positives.user)
        assert evaluation.pools["all"].metrics["recall@10"].mean == pytest.approx(np.mean(10 / (40 - known[users])))


def test_the_random_floor_is_the_mean_of_random_scorers(random_world: World, table_scorer: Any) -> None:
    holdout, _ = random_world()
    rng = np.random.default_rng(0)
    config = EvaluateConfig(metrics=ALL, ks=(5,), floors=False)
    runs = [
        {
            n: e.mean
            for n, e in evaluate(table_scorer(rng.random((60, 40))), holdout, config).pools["all"].metrics.items()
        }
        for _ in range(200)
    ]
    floor = evaluate(OneRow(np.zeros(40)), holdout, config.replace(floors=True)).pools["all"].floors["random"]
    for name, value in floor.items():
        drawn = np.array([run[name] for run in runs])
        assert abs(drawn.mean() - value) < 4 * drawn.std() / np.sqrt(200), name


def test_the_popularity_floor_is_the_most_popular_model(random_world: World, table_scorer: Any) -> None:
    holdout, scores = random_world()
    config = EvaluateConfig(metrics=ALL, pools=("all", "warm"))
    popular = evaluate(OneRow(holdout.train.item_degree * 0.5), holdout, config)
    model = evaluate(table_scorer(scores), holdout, config.replace(ties="naive"))  # floors are never naive
    for name, result in popular.pools.items():
        floor = dict(model.pools[name].floors["popularity"])
        assert {n: e.mean for n, e in result.metrics.items()} == pytest.approx(floor, abs=1e-12)


def test_popularity_says_nothing_about_cold_items(random_world: World, table_scorer: Any) -> None:
    holdout, scores = random_world(users=20, items=60)
    floors = evaluate(table_scorer(scores), holdout, EvaluateConfig(pools=("cold",))).pools["cold"].floors
    assert dict(floors["popularity"]) == pytest.approx(dict(floors["random"]), abs=1e-12)


def test_an_oracle_is_perfect(random_world: World, table_scorer: Any) -> None:
    holdout, _ = random_world()
    truth = holdout.positives.csr.toarray()
    result = evaluate(table_scorer(truth), holdout, EvaluateConfig(metrics=ALL, ks=(4, 50))).pools["all"]
    for name, estimate in result.metrics.items():
        if not name.startswith("precision"):
            assert (estimate.mean, estimate.sd) == (pytest.approx(1.0), pytest.approx(0.0, abs=1e-7)), name
    worst = evaluate(table_scorer(-truth), holdout, EvaluateConfig(metrics=ALL, ks=(4,))).pools["all"]
    assert all(estimate.mean == 0.0 for estimate in worst.metrics.values())


def test_naive_ties_reward_the_order_of_the_file(holdout_of: HoldoutOf) -> None:
    """Everyone's held-out item stands first in the catalogue."""
    holdout = holdout_of([(user, 0) for user in range(10)], [(0, 3)], users=10, items=50)
    constant = OneRow(np.zeros(50))
    recall = {
        ties: evaluate(constant, holdout, EvaluateConfig.parse({"ties": ties})).pools["all"].metrics["recall@5"].mean
        for ties in ("naive", "expected")
    }
    assert recall["naive"] == 1.0
    assert recall["expected"] == pytest.approx(np.mean([5 / 49] + [5 / 50] * 9))


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_chunks_do_not_matter(random_world: World, table_scorer: Any, chunk: int) -> None:
    holdout, scores = random_world()
    config = EvaluateConfig(metrics=ALL, pools=("all", "warm"), sampled=6)
    tables = [
        evaluate(table_scorer(scores.round(-1)), holdout, config.replace(chunk=size)).pools["warm"].per_user
        for size in (chunk, 60)
    ]
    assert tables[0].equals(tables[1])


def test_sampled_ranking_is_labelled_and_easier(random_world: World, table_scorer: Any) -> None:
    holdout, scores = random_world()
    full = evaluate(table_scorer(scores), holdout, EvaluateConfig())
    sampled = evaluate(table_scorer(scores), holdout, EvaluateConfig(sampled=8))
    assert (full.pools["all"].sampled, sampled.pools["all"].sampled) == (None, 8)
    assert full.ranking == full.to_dict()["ranking"] == "full"
    assert sampled.to_dict()["ranking"] == "SAMPLED 8: not comparable with full"
    assert sampled.pools["all"].metrics["recall@5"].mean > full.pools["all"].metrics["recall@5"].mean


def test_enough_samples_are_the_full_ranking(random_world: World, table_scorer: Any) -> None:
    holdout, scores = random_world()
    full = evaluate(table_scorer(scores), holdout, EvaluateConfig())
    sampled = evaluate(table_scorer(scores), holdout, EvaluateConfig(sampled=40))
    assert sampled.pools["all"].per_user.equals(full.pools["all"].per_user)
    assert sampled.pools["all"].floors == full.pools["all"].floors


def test_a_cut_off_larger_than_the_catalogue(random_world: World, table_scorer: Any) -> None:
    holdout, scores = random_world()
    result = evaluate(table_scorer(scores), holdout, EvaluateConfig(metrics=ALL, ks=(1000,))).pools["all"]
    assert result.metrics["recall@1000"].mean == 1.0
    assert result.metrics["precision@1000"].mean == pytest.approx(result.positives / result.users / 1000)
    assert result.tie_share == 0.0


def test_one_user_and_one_item(holdout_of: HoldoutOf) -> None:
    holdout = holdout_of([(0, 0)], [], users=1, items=1)
    result = evaluate(DotScorer(torch.ones(1, 2), torch.ones(1, 2)), holdout, EvaluateConfig(metrics=ALL, ks=(1, 5)))
    values = {name: estimate.mean for name, estimate in result.pools["all"].metrics.items()}
    assert values == {f"{name}@{k}": 1 / k if name == "precision" else 1.0 for name in ALL for k in (1, 5)}
    assert result.pools["all"].floors["random"] == values


def test_masked_positives_are_counted(holdout_of: HoldoutOf, table_scorer: Any) -> None:
    holdout = holdout_of([(0, 1), (0, 2), (1, 0)], [(0, 1), (1, 0)], users=2, items=4)
    result = evaluate(table_scorer(torch.rand(2, 4)), holdout).pools["all"]
    assert (result.users, result.users_left_out, result.positives, result.positives_masked) == (1, 1, 1, 2)


@pytest.mark.parametrize("run", [evaluate, validation_score])
def test_an_empty_holdout(holdout_of: HoldoutOf, table_scorer: Any, run: Any) -> None:
    with pytest.raises(EvaluateError, match="nothing to evaluate"):
        run(table_scorer(torch.rand(2, 4)), holdout_of([], [(0, 1)], users=2, items=4))


@pytest.mark.parametrize("metric", ["recall@5", "ndcg@10", "map@3", "recall_capped@2"])
@pytest.mark.parametrize("pool", ["all", "warm"])
def test_the_validation_score_is_the_same_number(
    random_world: World, table_scorer: Any, metric: str, pool: str
) -> None:
    holdout, scores = random_world()
    name, k = metric.split("@")
    config = EvaluateConfig.parse({"metrics": (name,), "ks": (int(k),), "pools": (pool,), "mask": "none"})
    expected = evaluate(table_scorer(scores), holdout, config).pools[pool].metrics[metric].mean
    assert validation_score(table_scorer(scores), holdout, metric, "none", pool) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("recal@20", "Did you mean 'recall'"),
        ("recall", "cut-off.*recall@20"),
        ("recall@0", "cut-off"),
        ("ndcg@x", "ndcg@20"),
    ],
)
def test_an_unknown_validation_metric(random_world: World, table_scorer: Any, metric: str, words: str) -> None:
    holdout, scores = random_world()
    with pytest.raises(ConfigError, match=words):
        validation_score(table_scorer(scores), holdout, metric)


def read_baby(folder: Path, rows: np.ndarray | None = None) -> Holdout:
    """The test holdout of amazon-baby; `rows` gives the items other row numbers."""
    events = pl.read_parquet(folder / "interactions.parquet").with_columns(pl.col("split").cast(pl.String))
    users, items = int(events["user"].max()) + 1, int(events["item"].max()) + 1  # type: ignore[arg-type]

    def part(name: str) -> Interactions:
        chosen = events.filter(split=name)
        item = chosen["item"].to_numpy()
        item = item if rows is None else rows[item]
        return Interactions(chosen["user"].to_numpy().astype(np.int32), item.astype(np.int32), users, items)

    train = part("train")
    return Holdout(
        "test", part("test"), train + part("valid"), train, Catalog(IdMap(range(items))), IdMap(range(users), "user")
    )


@pytest.mark.realdata
def test_most_popular_on_amazon_baby(real_data: Callable[[str], Path]) -> None:
    holdout = read_baby(real_data("amazon-baby"))
    popular = OneRow(holdout.train.item_degree)
    assert validation_score(popular, holdout, "recall@20", "train") == pytest.approx(0.0495, abs=0.0005)


@pytest.mark.realdata
def test_naive_ties_on_amazon_baby_sorted_by_popularity(real_data: Callable[[str], Path]) -> None:
    """With ids sorted by popularity, a constant model that a naive top-k ranks is the most popular one in disguise."""
    degree = read_baby(real_data("amazon-baby")).train.item_degree
    rows = np.empty(len(degree), dtype=np.int64)
    rows[np.argsort(-degree, kind="stable")] = np.arange(len(degree))
    holdout = read_baby(real_data("amazon-baby"), rows)
    config = EvaluateConfig(metrics=("recall",), ks=(20,), mask="train", ties="naive")
    naive = evaluate(OneRow(np.zeros(len(degree))), holdout, config).pools["all"]
    fair = validation_score(OneRow(np.zeros(len(degree))), holdout, "recall@20", "train")
    assert naive.metrics["recall@20"].mean == pytest.approx(naive.floors["popularity"]["recall@20"], abs=0.0005)
    assert fair == pytest.approx(20 / len(degree), rel=0.01)
    assert naive.metrics["recall@20"].mean > 15 * fair
    assert naive.tie_share == 1.0
