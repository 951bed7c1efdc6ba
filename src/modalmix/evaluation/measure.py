"""Evaluate a scorer on held-out interactions."""

from collections.abc import Mapping
from typing import cast, final, get_args

import numpy as np
import polars as pl
import torch
from jaxtyping import Float
from torch import Tensor

from modalmix.data.interactions import Interactions
from modalmix.data.split import Holdout
from modalmix.errors import ConfigError, nearest
from modalmix.evaluation.metrics import PerUser, TieGroups, per_user
from modalmix.evaluation.pools import Pool, make_pool
from modalmix.evaluation.ranking import rank
from modalmix.evaluation.results import Estimate, Evaluation, PoolResult
from modalmix.evaluation.settings import EvaluateConfig, Mask, Metric, PoolName
from modalmix.models.contract.query import Query, Scorer

ALL_ITEMS: tuple[PoolName, ...] = ("all",)
Floors = Mapping[str, Mapping[str, float]]


def evaluate(scorer: Scorer, holdout: Holdout, config: EvaluateConfig | None = None) -> Evaluation:
    """Rank the candidates of every user with a relevant item; metrics, floors and per-user values for each pool.

    All pools share one scoring pass; the popularity floor takes another. Memory is chunk x items. Raises EvaluateError
    for a score that is NaN or infinite, naming user and item, and for a pool without a relevant item.
    """
    config = config or EvaluateConfig()
    pools: dict[str, Pool] = {name: make_pool(holdout, name, config.mask) for name in config.pools or ALL_ITEMS}
    rankings = rank(scorer, holdout, pools, config)
    floors = _floors(holdout, pools, config) if config.floors else {name: {} for name in pools}
    results: dict[str, PoolResult] = {}
    for name, pool in pools.items():
        values = per_user(rankings[name].groups, config.metrics, config.ks)
        tie_share = float(rankings[name].tied.mean())
        results[name] = _result(holdout, pool, values, floors[name], tie_share, config)
    return Evaluation(holdout.name, config, results)


def validation_score(
    scorer: Scorer,
    holdout: Holdout,
    metric: str = "recall@20",
    mask: Mask = "seen",
    pool: PoolName = "all",
    chunk: int = 128,
) -> float:
    """The mean of one metric ("recall@20": a name and a cut-off), not rounded, without floors: for early stopping.

    Raises ConfigError for an unknown metric, and as `evaluate` does.
    """
    name, k = parse_metric(metric)
    config = EvaluateConfig(metrics=(name,), ks=(k,), mask=mask, pools=(pool,), chunk=chunk, floors=False)
    pools: dict[str, Pool] = {pool: make_pool(holdout, pool, mask)}
    groups = rank(scorer, holdout, pools, config)[pool].groups
    return float(per_user(groups, config.metrics, config.ks)[metric].mean())


def parse_metric(metric: str) -> tuple[Metric, int]:
    """Name and cut-off of "recall@20". Raises ConfigError."""
    name, at, k = metric.partition("@")
    if name not in get_args(Metric):
        raise ConfigError(f"there is no metric '{name}'", fix=nearest(name, get_args(Metric)))
    if not (at and k.isdecimal() and int(k) > 0):
        raise ConfigError("the cut-off of a metric", got=repr(metric), expected=f"such as '{name}@20'")
    return cast(Metric, name), int(k)


def _result(
    holdout: Holdout,
    pool: Pool,
    values: Mapping[str, PerUser],
    floors: Floors,
    tie_share: float,
    config: EvaluateConfig,
) -> PoolResult:
    users = pl.DataFrame({"user": holdout.users.series.gather(pool.users)})
    return PoolResult(
        metrics={name: Estimate.of(value, config.confidence) for name, value in values.items()},
        floors=floors,
        per_user=users.with_columns(**values),
        users=len(pool.users),
        users_left_out=len(holdout.users) - len(pool.users),
        positives=pool.positives.nnz,
        positives_masked=pool.positives_masked,
        candidates=pool.size,
        tie_share=tie_share,
        sampled=config.sampled,
    )


def _floors(holdout: Holdout, pools: Mapping[str, Pool], config: EvaluateConfig) -> dict[str, Floors]:
    """What no model at all reaches in each pool, with the same users, mask and candidates; ties always as expected."""
    popular = rank(_MostPopular(holdout.train), holdout, pools, config.replace(ties="expected"))
    chance = {name: _constant(pool, config.sampled) for name, pool in pools.items()}
    return {
        name: {
            floor: {key: float(value.mean()) for key, value in per_user(groups, config.metrics, config.ks).items()}
            for floor, groups in (("random", chance[name]), ("popularity", popular[name].groups))
        }
        for name in pools
    }


def _constant(pool: Pool, sampled: int | None) -> TieGroups:
    """The ranking of a constant scorer: all candidates of a user are one group of ties."""
    relevant, users = pool.relevant, np.arange(len(pool.users))
    size = pool.rankable if sampled is None else np.minimum(pool.rankable, sampled + relevant)
    return TieGroups(relevant, users, np.zeros_like(users), size, relevant, np.zeros_like(users))


@final
class _MostPopular:
    """Scores every item by its train events, the same for all users."""

    def __init__(self, train: Interactions) -> None:
        # the order of the degrees, not the degrees: float32 keeps it exactly
        self.order = torch.from_numpy(np.unique(train.item_degree, return_inverse=True)[1].astype(np.float32))

    def __call__(self, query: Query) -> Float[Tensor, "batch items"]:
        return self.order.expand(len(query), -1)
