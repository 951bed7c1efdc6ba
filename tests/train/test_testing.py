"""Ranking the test split, once."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

from modalmix.data.interactions import Interactions
from modalmix.data.split import Split
from modalmix.evaluation import EvaluateConfig
from modalmix.models.contract import ModelType
from modalmix.train import TrainConfig, fit
from modalmix.train.testing import evaluate_test, read_test, with_pools

CONFIG = EvaluateConfig(ks=(3, 5))


def test_what_is_kept_is_what_was_measured(split: Split, tiny: ModelType, quiet: TrainConfig, tmp_path: Path) -> None:
    fitted = fit(tiny, split, None, quiet, tmp_path / "run")
    assert fitted.run is not None
    assert read_test(fitted.run, split, CONFIG) is None
    evaluation = evaluate_test(fitted.scorer(), split, CONFIG, fitted.run)
    kept = read_test(fitted.run, split, CONFIG)
    assert kept is not None
    assert_frame_equal(kept, evaluation.per_user)
    assert kept.columns[:2] == ["pool", "user"]
    assert kept["recall@3"].mean() == pytest.approx(evaluation.pools["all"].metrics["recall@3"].mean)
    assert fitted.run.record["test_opened"] == 1
    assert read_test(fitted.run, split, CONFIG.replace(mask="train")) is None


@pytest.mark.parametrize("torn", ["evaluation.json", "per_user.parquet"])
def test_a_torn_or_missing_file_is_no_test(
    torn: str, split: Split, tiny: ModelType, quiet: TrainConfig, tmp_path: Path
) -> None:
    fitted = fit(tiny, split, None, quiet, tmp_path / "run")
    assert fitted.run is not None
    evaluate_test(fitted.scorer(), split, CONFIG, fitted.run)
    (fitted.run.path / torn).write_bytes(b"{")
    assert read_test(fitted.run, split, CONFIG) is None
    (fitted.run.path / torn).unlink()
    assert read_test(fitted.run, split, CONFIG) is None


def test_a_kill_between_the_two_files_leaves_no_pair_of_different_tests(
    split: Split, tiny: ModelType, quiet: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tested with ks 3 and 5; then with the mask `train`, killed while the second file is written."""
    fitted = fit(tiny, split, None, quiet, tmp_path / "run")
    assert fitted.run is not None
    evaluate_test(fitted.scorer(), split, CONFIG, fitted.run)

    def killed(self: pl.DataFrame, *_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pl.DataFrame, "write_parquet", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate_test(fitted.scorer(), split, CONFIG.replace(mask="train"), fitted.run)
    for mask in ("seen", "train"):
        assert read_test(fitted.run, split, CONFIG.replace(mask=mask)) is None


def with_test_items(split: Split, items: list[int]) -> Split:
    """A cold split where item 0 is in no train event, and these are the test part."""
    train = split.train.take(split.train.item != 0)
    user, item = np.zeros(len(items), np.int32), np.array(items, np.int32)
    test = Interactions(user, item, len(split.dataset.users), len(split.dataset.catalog))
    return replace(split, train=train, test=test, cold_split=True)


def test_a_pool_where_nobody_has_anything_to_find_is_left_out(split: Split) -> None:
    assert with_pools(CONFIG, with_test_items(split, [0, 0])).pools == ("cold", "all")
    assert with_pools(CONFIG, with_test_items(split, [1, 2])).pools == ("warm", "all")


def test_a_cold_split_has_three_pools_unless_some_were_chosen(split: Split) -> None:
    cold = with_test_items(split, [0, 1])
    assert with_pools(CONFIG, cold).pools == ("cold", "warm", "all")
    assert with_pools(CONFIG.replace(pools=("warm",)), cold).pools == ("warm",)
    assert with_pools(CONFIG, split).pools == ()
