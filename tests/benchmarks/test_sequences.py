"""The benchmark of sequential models: which rows there are, label noise, and what the table says."""

from typing import Any

import polars as pl
import pytest
from scipy.stats import ttest_rel

from benchmarks import sequences
from benchmarks.paired import save_values, values_file

NAMES = [f"{metric}@{k}" for metric in sequences.METRICS for k in sequences.KS]


def row(model: str, seed: int, values: list[float]) -> dict[str, Any]:
    metrics = {name: {"mean": sum(values) / len(values)} for name in NAMES}
    test = {mask: {"pools": {"all": {"metrics": metrics}}} for mask in ("none", "seen")}
    return {
        **{"id": f"{model}{seed}", "model": model, "preset": "default", "settings": {}, "variant": ""},
        **{"data": "amazon-beauty", "label_noise": 0.0, "seed": seed, "split_sha256": "hash", "cpu_s": 1.0},
        **{"validation": 0.5, "best_epoch": 3, "epoch_cpu_s": None, "test": test},
    }


def test_every_task_is_one_row() -> None:
    tasks = list(sequences.tasks())
    assert len({task.id for task in tasks}) == len(tasks)


def test_a_model_that_needs_times_runs_only_where_there_are_times() -> None:
    data = {task.key["data"] for task in sequences.tasks() if task.key["model"] in sequences.NEED_TIMES}
    assert data == {"movielens-posters"}


def test_names_say_what_is_not_the_default() -> None:
    base = {"model": "cammsr", "preset": "default", "settings": {}, "variant": "", "label_noise": 0.0}
    assert sequences.name_of(base) == "cammsr"
    assert sequences.name_of({**base, "preset": "paper"}) == "cammsr paper"
    assert sequences.name_of({**base, "settings": {"id_init": "content"}}) == "cammsr id_init=content"
    assert sequences.name_of({**base, "variant": "no-swap", "settings": {"swap": 0.0}}) == "cammsr no-swap"
    assert sequences.name_of({**base, "label_noise": 0.2}) == "cammsr 20% wrong labels"


def test_the_table_pairs_models_over_users(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences, "RESULTS", tmp_path)
    rows = []
    for model, values, seeds in (("cammsr", [0.5, 0.6, 0.8, 0.7], 3), ("popularity", [0.1, 0.3, 0.3, 0.2], 1)):
        for seed in range(seeds):
            rows.append(row(model, seed, values))
            users = pl.DataFrame({"pool": "all", "user": range(4), "ndcg@10": values})
            save_values(values_file(tmp_path, f"{model}{seed}"), users, "ndcg@10")
    p = ttest_rel([0.5, 0.6, 0.8, 0.7], [0.1, 0.3, 0.3, 0.2]).pvalue
    assert sequences.tests_against_cammsr(rows)["popularity"] == f"{p:.3f}"
    text = sequences._section("amazon-beauty", rows)
    assert "| cammsr | 3 | 0.6500 ± 0.0000 |" in text
    assert f"| popularity | 1 | 0.2250 | {p:.3f} |" in text
