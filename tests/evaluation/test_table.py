"""The table for people."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from modalmix.data.split import Holdout
from modalmix.evaluation import EvaluateConfig, Evaluation, evaluate, evaluation_table

World = Callable[..., tuple[Holdout, np.ndarray]]


def text(evaluation: Evaluation, title: str = "") -> str:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(evaluation_table(evaluation, title))
    return console.export_text()


def test_three_pools_fit_100_columns(random_world: World, table_scorer: Any) -> None:
    """Also with the longest metric name, and values of 1."""
    holdout, scores = random_world(users=20, items=60)
    metrics = ("recall", "recall_capped", "hitrate")
    config = EvaluateConfig(pools=("all", "cold", "warm"), metrics=metrics, ks=(5, 100))
    evaluation = evaluate(table_scorer(scores), holdout, config)
    lines = text(evaluation, "a model").splitlines()
    assert not any("…" in line for line in lines)
    rows = {line.split()[0]: line.split() for line in lines if line.strip()}
    assert set(evaluation.pools["all"].metrics) <= set(rows)
    row = rows["recall@5"]
    expected = []
    for result in evaluation.pools.values():
        estimate = result.metrics["recall@5"]
        half = (estimate.high - estimate.low) / 2
        floors = [result.floors[floor]["recall@5"] for floor in ("random", "popularity")]
        expected += [estimate.mean, half, *floors]
    assert [float(cell.lstrip("±")) for cell in row[1:]] == pytest.approx(expected, abs=5.1e-5)
    assert "1.000 ±.0000" in " ".join(rows["recall_capped@100"])
    whole = " ".join(lines)
    assert all(word in whole for word in ("a model", "all ±95%", "cold ±95%", "random", "pop.", "mask: seen", "full"))
    assert rows["candidates"][1:] == [str(result.candidates) for result in evaluation.pools.values()]
    assert rows["users"][1:] == [str(result.users) for result in evaluation.pools.values()]


def test_what_is_not_a_usual_number_says_so(random_world: World, table_scorer: Any) -> None:
    holdout, scores = random_world()
    shown = text(evaluate(table_scorer(scores), holdout, EvaluateConfig(sampled=10, ties="naive", floors=False)))
    shown = " ".join(shown.split())
    assert "SAMPLED 10: not comparable" in shown
    assert "NAIVE" in shown
    assert "random" not in shown


def test_one_user(holdout_of: Any, table_scorer: Any) -> None:
    shown = text(evaluate(table_scorer([[1.0, 0.0]]), holdout_of([(0, 0)], [], users=1, items=2)))
    assert "1.000 ±  n/a" in shown
