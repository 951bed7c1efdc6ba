"""Per-user values are kept beside the rows; every p is of these, or says that it is an earlier one."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats

from benchmarks import paired
from benchmarks.paired import p_cells, paired_tests, read_values, save_values, values_file
from modalmix.files import write_json


def per_user(values: list[float], users: list[int], pool: str = "all") -> pl.DataFrame:
    return pl.DataFrame({"pool": [pool] * len(users), "user": users, "recall@20": values, "ndcg@20": 0.0})


def rows(names: str) -> list[dict[str, Any]]:
    return [{"id": one, "name": one[0], "seed": int(one[1])} for one in names.split()]  # "a0 b1"


def p_of(folder: Path, there: str) -> dict[str, float]:
    return paired_tests(rows(there), folder, "a", "recall@20", lambda row: row["name"], lambda row: [row["seed"]])


def keep(folder: Path, id: str, values: list[float]) -> None:
    save_values(values_file(folder, id), per_user(values, [1, 2, 5, 9]), "recall@20")


def test_values_come_back_pool_by_pool(tmp_path: Path) -> None:
    both = pl.concat([per_user([0.5, 0.25, 0.0], [7, 3, 100_000]), per_user([1.0], [3], "cold")])
    save_values(tmp_path / "new" / "one.npz", both, "recall@20")
    assert read_values(tmp_path / "new" / "one.npz", "recall@20").to_dict(as_series=False) == {
        "user": [3, 7, 100_000],
        "recall@20": [0.25, 0.5, 0.0],
    }
    assert read_values(tmp_path / "new" / "one.npz", "recall@20", "cold")["user"].to_list() == [3]


def test_the_values_of_a_row_are_small_enough_to_commit(tmp_path: Path) -> None:
    """As on amazon-sports: 35,598 users, one in eight with a hit."""
    rng = np.random.default_rng(0)
    values = np.where(rng.random(35_598) < 1 / 8, rng.choice([0.25, 0.5, 1.0], 35_598), 0.0)
    save_values(tmp_path / "one.npz", per_user(values.tolist(), list(range(len(values)))), "recall@20")
    assert (tmp_path / "one.npz").stat().st_size < 12_000


def test_models_are_paired_on_the_seeds_that_both_have(tmp_path: Path) -> None:
    one, other, third = [0.0, 0.5, 1.0, 0.25], [0.0, 0.0, 1.0, 0.125], [0.5, 0.5, 0.5, 0.5]
    keep(tmp_path, "a0", one)
    keep(tmp_path, "a1", [0.0] * 4)
    keep(tmp_path, "b0", other)
    keep(tmp_path, "c2", third)
    assert p_of(tmp_path, "a0 a1 b0 c2") == {"b": pytest.approx(stats.ttest_rel(one, other).pvalue, rel=1e-6)}


def test_an_ablation_changes_no_p_of_another_model(tmp_path: Path) -> None:
    """Holm by hand: the smaller of two p is doubled; a family of one stays as it is."""
    rng = np.random.default_rng(3)
    values = {name: rng.random(4).tolist() for name in ("a", "b", "c", "a no-swap")}
    values["ab"] = values["b"]  # begins with the letter of ours, and is another model
    raw = {name: float(stats.ttest_rel(values["a"], others).pvalue) for name, others in values.items() if name != "a"}
    for name in values:
        keep(tmp_path, name, values[name])

    def tested(*names: str) -> dict[str, float]:
        given = [{"id": name, "name": name, "seed": 0} for name in names]
        return paired_tests(given, tmp_path, "a", "recall@20", lambda row: row["name"], lambda row: [row["seed"]])

    two = tested("a", "b", "c")
    assert min(two.values()) == pytest.approx(2 * min(raw["b"], raw["c"]), rel=1e-5)
    assert tested("a", "b", "c", "a no-swap") == two | {"a no-swap": pytest.approx(raw["a no-swap"], rel=1e-5)}
    assert tested("a", "ab", "a no-swap")["ab"] == pytest.approx(raw["b"], rel=1e-5)


def test_there_is_no_test_without_values(tmp_path: Path) -> None:
    keep(tmp_path, "b0", [0.0, 0.5, 1.0, 0.25])
    assert p_of(tmp_path, "a0 b0") == {}  # ours has none
    keep(tmp_path, "a0", [0.0, 0.0, 1.0, 0.25])
    assert set(p_of(tmp_path, "a0 b0 c0")) == {"b"}


def test_an_earlier_p_has_a_star_until_it_can_be_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = {"graphs": {"amazon-baby": {"all": {"smore": "< .001", "mgcn": "0.500"}}}}
    write_json(tmp_path / "earlier.json", earlier)
    monkeypatch.setattr(paired, "EARLIER", tmp_path / "earlier.json")
    assert p_cells({"mgcn": 0.0123}, "graphs", "amazon-baby") == {"smore": "< .001*", "mgcn": "0.012"}
    assert p_cells({"mgcn": 0.0001}, "graphs", "tiktok") == {"mgcn": "< .001"}
    assert p_cells({}, "graphs", "amazon-baby", "cold") == {}
