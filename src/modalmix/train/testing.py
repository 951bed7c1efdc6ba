"""The one place that ranks a test split: the run folder counts it and keeps the result."""

import json

import polars as pl

from modalmix.data.split import Split
from modalmix.evaluation import EvaluateConfig, Evaluation, evaluate
from modalmix.files import read_json
from modalmix.models.contract import Scorer
from modalmix.train.run import RunFolder

POOLS_OF_A_COLD_SPLIT = ("cold", "warm", "all")
_EVALUATION, _PER_USER = "evaluation", "per_user.parquet"


def with_pools(config: EvaluateConfig, split: Split) -> EvaluateConfig:
    """The same settings with all three pools where the split has cold items and none were chosen; less the cold or the
    warm one where nobody has anything to find in it (the MAMEX paper holds out no event of a warm item)."""
    if not split.cold_split or config.pools:
        return config
    cold = (split.train.item_degree == 0)[split.test.item]
    empty = "warm" if cold.all() else None if cold.any() else "cold"
    return config.replace(pools=tuple(pool for pool in POOLS_OF_A_COLD_SPLIT if pool != empty))


def evaluate_test(scorer: Scorer, split: Split, config: EvaluateConfig, folder: RunFolder | None) -> Evaluation:
    """Rank the test split, in three pools where it holds out whole items and `config` chose none.

    The folder keeps evaluation.json and per_user.parquet. The former is written last: where it is, both are whole and
    belong together. Raises EvaluateError, RunError.
    """
    evaluation = evaluate(scorer, split.testing(), with_pools(config, split))
    if folder is not None:
        opened = folder.count_test_opening()
        (folder.path / f"{_EVALUATION}.json").unlink(missing_ok=True)
        evaluation.save_per_user(folder.path / _PER_USER)
        folder.write_evaluation(_EVALUATION, {"test_opened": opened, **evaluation.to_dict()})
    return evaluation


def read_test(folder: RunFolder, split: Split, config: EvaluateConfig) -> pl.DataFrame | None:
    """The per-user values (columns pool, user, metrics) of a test that the folder keeps; None when it was never made,
    or with other settings.
    """
    try:
        kept = read_json(folder.path / f"{_EVALUATION}.json")["config"]
        values = pl.read_parquet(folder.path / _PER_USER, glob=False)
    except (OSError, KeyError, TypeError, json.JSONDecodeError, pl.exceptions.PolarsError):
        return None
    return values if kept == with_pools(config, split).model_dump(mode="json") else None
