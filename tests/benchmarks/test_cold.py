"""The cold-item benchmark: which rows there are, and what the table says of them."""

from typing import Any

import polars as pl
import pytest
from scipy.stats import ttest_rel

from benchmarks import cold
from benchmarks.paired import save_values, values_file


def row(model: str, seed: int, values: list[float]) -> dict[str, Any]:
    estimate = {"mean": sum(values) / len(values)}
    metrics = {"ndcg@20": estimate, "recall@20": estimate}
    pools = {name: {"metrics": metrics, "floors": {"random": {"ndcg@20": 0.1}}} for name in ("cold", "warm", "all")}
    return {
        **{"id": f"{model}{seed}", "model": model, "preset": "default", "data": "tiktok", "split_seed": seed},
        **{"settings": {}, "split_sha256": f"hash{seed}", "cpu_s": 1.0, "evaluation": {"pools": pools}},
        **{"uncalibrated": metrics, "calibrations": {kind: {"validation": 0.5} for kind in cold.CALIBRATIONS}},
    }


def test_every_task_is_one_row() -> None:
    ids = [task.id for task in cold.tasks()]
    assert len(set(ids)) == len(ids)


def test_names_say_what_is_not_the_default() -> None:
    base = {"model": "mamex", "preset": "default", "settings": {}}
    assert cold.name_of(base) == "mamex"
    assert cold.name_of({**base, "preset": "paper"}) == "mamex paper"
    assert cold.name_of({**base, "settings": {"modalities": ["text"]}}) == "mamex (text only)"
    assert cold.name_of({**base, "settings": {"loss": "bpr"}}) == "mamex loss=bpr"


def test_the_table_pairs_models_over_users(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold, "RESULTS", tmp_path)
    rows = []
    for model, values in {"mamex": [0.5, 0.6, 0.8, 0.7], "contentknn": [0.1, 0.3, 0.3, 0.2]}.items():
        for seed in range(2):
            rows.append(row(model, seed, values))
            users = pl.DataFrame({"user": range(4), "ndcg@20": values, "recall@20": values})
            pools = [users.select(pl.lit(pool).alias("pool"), pl.all()) for pool in ("cold", "warm", "all")]
            save_values(values_file(tmp_path, f"{model}{seed}"), pl.concat(pools), "ndcg@20")
    text = cold._section("tiktok", rows)
    assert "| mamex | 2 | 0.6500 ± 0.0000 |" in text
    p = ttest_rel([0.5, 0.6, 0.8, 0.7], [0.1, 0.3, 0.3, 0.2]).pvalue
    assert cold.tests_against_mamex(rows)["contentknn", "cold"] == f"{p:.3f}"
    assert f"(p {p:.3f})" in text
