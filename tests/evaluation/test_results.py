"""Estimates, the saved per-user values, the JSON."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from modalmix.data.split import Holdout
from modalmix.evaluation import Estimate, EvaluateConfig, evaluate

World = Callable[..., tuple[Holdout, np.ndarray]]


def test_estimate_by_hand() -> None:
    """Mean 2, sd 2, standard error 1."""
    estimate = Estimate.of(np.array([0.0, 1.0, 3.0, 4.0]), 0.95)
    assert (estimate.mean, estimate.n) == (2.0, 4)
    assert estimate.sd == pytest.approx(math.sqrt(10 / 3))
    low, high = stats.norm.interval(0.95, loc=2.0, scale=math.sqrt(10 / 3) / 2)
    assert (estimate.low, estimate.high) == pytest.approx((low, high))


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    estimates = [Estimate.of(rng.random(200), 0.9) for _ in range(2000)]
    assert np.mean([e.low < 0.5 < e.high for e in estimates]) == pytest.approx(0.9, abs=0.02)


def test_one_user_has_no_interval() -> None:
    estimate = Estimate.of(np.array([0.25]), 0.95)
    assert estimate.mean == 0.25
    assert all(math.isnan(value) for value in (estimate.sd, estimate.low, estimate.high))


def test_saved_values_give_the_means_back(random_world: World, table_scorer: Any, tmp_path: Path) -> None:
    holdout, scores = random_world(users=20, items=60)
    evaluation = evaluate(table_scorer(scores), holdout, EvaluateConfig(pools=("all", "cold", "warm")))
    evaluation.save_per_user(tmp_path / "per_user.parquet")
    table = pl.read_parquet(tmp_path / "per_user.parquet")
    assert table.columns[:3] == ["pool", "user", "recall@5"]
    for name, result in evaluation.pools.items():
        saved = table.filter(pool=name)
        assert len(saved) == result.users
        assert saved["user"].to_list() == result.per_user["user"].to_list()
        assert set(saved["user"]) <= set(holdout.users.series)
        for metric, estimate in result.metrics.items():
            assert saved[metric].mean() == pytest.approx(estimate.mean, abs=1e-15)


def test_json(random_world: World, table_scorer: Any) -> None:
    holdout, scores = random_world()
    evaluation = evaluate(table_scorer(scores), holdout, EvaluateConfig(metrics=("recall",), ks=(7,)))
    read = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    result = evaluation.pools["all"]
    assert read["holdout"] == "valid"
    assert read["ranking"] == "full"
    assert read["config"]["mask"] == "seen"
    pool = read["pools"]["all"]
    assert pool["metrics"]["recall@7"]["mean"] == result.metrics["recall@7"].mean  # to the last bit: no rounding
    assert pool["floors"] == {name: dict(values) for name, values in result.floors.items()}
    assert (pool["users"], pool["users_left_out"]) == (result.users, 60 - result.users)


def test_json_of_one_user(holdout_of: Any, table_scorer: Any) -> None:
    evaluation = evaluate(table_scorer([[1.0, 0.0]]), holdout_of([(0, 0)], [], users=1, items=2))
    read = json.loads(json.dumps(evaluation.to_dict(), allow_nan=False))
    assert read["pools"]["all"]["metrics"]["mrr@5"] == {"mean": 1.0, "low": None, "high": None, "sd": None, "n": 1}
