"""The robustness curve: what a model keeps of its result when a growing share of the items loses a modality."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any

import numpy as np

from modalmix.data.catalog import Catalog
from modalmix.data.drop import ANY, drop_modality
from modalmix.data.split import Holdout
from modalmix.errors import ConfigError, ModelError, nearest
from modalmix.evaluation.measure import evaluate
from modalmix.evaluation.results import Evaluation
from modalmix.evaluation.settings import EvaluateConfig
from modalmix.models.contract.query import Scorer

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
SEEDS = 5
_METRIC = "recall@20"


@dataclass(frozen=True)
class Draws:
    """Mean and standard deviation (n - 1) of a metric over n draws of the items that lose content.

    sd is NaN with one draw: at share 0, and where every item loses the same modality, nothing is left to chance.
    """

    mean: float
    sd: float
    n: int

    @classmethod
    def of(cls, values: Sequence[float]) -> "Draws":
        """The summary of one value a draw."""
        return cls(float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan, len(values))


@dataclass(frozen=True, eq=False)
class Point:
    """One share of the curve."""

    share: float
    """Of the items that can lose the modality."""
    items: int
    """How many items that is."""
    pools: Mapping[str, Mapping[str, Draws]]
    """Pool -> metric ("recall@20") -> what the draws gave."""


@dataclass(frozen=True, eq=False)
class RobustnessCurve:
    """The result of `robustness_curve`."""

    drop: str
    """The modality that is lost, or "any"."""
    metric: str
    """The metric of the table and the plot; all others are in `to_dict`."""
    full: Evaluation
    """The plain evaluation: share 0, with users, candidates and floors of each pool."""
    points: tuple[Point, ...]
    """By ascending share, the first is 0."""

    def retained(self, point: Point, pool: str, metric: str) -> float:
        """A point's mean over that of share 0; NaN where that is 0."""
        whole = self.full.pools[pool].metrics[metric].mean
        return point.pools[pool][metric].mean / whole if whole else math.nan

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-able; what is undefined (the sd of one draw) is None."""
        return {
            "drop": self.drop,
            "spread": "mean and sd (n - 1) over n draws of the items that lose it",
            "metric": self.metric,
            "points": [
                {
                    "share": point.share,
                    "items": point.items,
                    "pools": {name: self._plain(point, name) for name in point.pools},
                }
                for point in self.points
            ],
            "full": self.full.to_dict(),
        }

    def _plain(self, point: Point, pool: str) -> dict[str, dict[str, float | None]]:
        numbers = {
            metric: {**asdict(draws), "retained": self.retained(point, pool, metric)}
            for metric, draws in point.pools[pool].items()
        }
        return {
            metric: {key: None if math.isnan(value) else value for key, value in values.items()}
            for metric, values in numbers.items()
        }


def robustness_curve(
    scorer_of: Callable[[Catalog], Scorer],
    modalities: Sequence[str],
    holdout: Holdout,
    drop: str,
    shares: Sequence[float] = SHARES,
    seeds: int = SEEDS,
    metric: str | None = None,
    config: EvaluateConfig | None = None,
) -> RobustnessCurve:
    """Evaluate a model over catalogues whose items lost content; it was trained on the whole one.

    Args:
        scorer_of: freezes the model over a catalogue.
        modalities: what the model reads.
        holdout: interactions to rank against, and the whole catalogue.
        drop: the modality to drop, or "any" (see `modalmix.data.drop.drop_modality`).
        shares: of the items that can lose it. Share 0 is measured in any case.
        seeds: draws of each share, by seed 0, 1, ...: a draw of a larger share drops all that the same seed's smaller
            one does.
        metric: shown in table and plot; recall@20 by default, or the first one where that is not measured.
        config: metrics, cut-offs, mask, pools. The floors do not depend on content: they are those of share 0.

    Raises:
        ModelError: the model reads no modality, or not this one.
        ConfigError: shares, seeds or metric are not possible.
        DataError: no item can lose it.
        EvaluateError: as `evaluate`.
    """
    config = config or EvaluateConfig()
    _check_drop(drop, modalities)
    shares, metric = _checked_shares(shares), _shown_metric(metric, config)
    if not isinstance(seeds, int) or seeds < 1:
        raise ConfigError("seeds of the robustness curve", got=seeds, expected="a number of draws, at least 1")
    whole = holdout.catalog.select(modalities)

    def measure(share: float, seed: int, config: EvaluateConfig) -> tuple[Evaluation, int]:
        catalog = drop_modality(whole, drop, share, np.random.default_rng(seed))
        return evaluate(scorer_of(catalog), holdout, config), _held(whole) - _held(catalog)

    full, _ = measure(0.0, 0, config)
    points = [_point(0.0, 0, [full])]
    for share in shares[1:]:
        draws = 1 if share == 1 and drop != ANY else seeds
        evaluations, lost = zip(*(measure(share, s, config.replace(floors=False)) for s in range(draws)), strict=True)
        points.append(_point(share, lost[0], evaluations))
    return RobustnessCurve(drop, metric, full, tuple(points))


def _point(share: float, items: int, evaluations: Sequence[Evaluation]) -> Point:
    first = evaluations[0]
    pools = {
        pool: {
            metric: Draws.of([evaluation.pools[pool].metrics[metric].mean for evaluation in evaluations])
            for metric in result.metrics
        }
        for pool, result in first.pools.items()
    }
    return Point(share, items, pools)


def _held(catalog: Catalog) -> int:
    """How many pieces of content the catalogue's items have."""
    return sum(int(modality.present.sum()) for modality in catalog.modalities.values())


def _check_drop(drop: str, modalities: Sequence[str]) -> None:
    if not modalities:
        raise ModelError(
            "the model reads no modality, there is nothing to drop", fix="Take one of content, e.g. contentmean."
        )
    if drop != ANY and drop not in modalities:
        raise ModelError(f"the model reads no modality '{drop}'", fix=nearest(drop, [*modalities, ANY]))


def _checked_shares(shares: Sequence[float]) -> tuple[float, ...]:
    """The shares, ascending, with 0 among them. Raises ConfigError."""
    if len(shares) == 0:
        raise ConfigError("shares of the robustness curve", got="none", expected="numbers from 0 to 1")
    for share in shares:
        if not isinstance(share, Real) or not 0 <= share <= 1:
            raise ConfigError("a share of the robustness curve", got=share, expected="a number from 0 to 1")
    given = sorted(float(share) for share in shares)
    twice = [share for share, following in itertools.pairwise(given) if share == following]
    if twice:
        raise ConfigError("shares of the robustness curve", got=f"{twice[0]:g} twice", expected="each share once")
    return tuple(given) if given[0] == 0 else (0.0, *given)


def _shown_metric(metric: str | None, config: EvaluateConfig) -> str:
    measured = [f"{name}@{k}" for name in config.metrics for k in config.ks]
    if metric is None:
        return _METRIC if _METRIC in measured else measured[0]
    if metric not in measured:
        raise ConfigError(f"metric '{metric}' of the robustness curve is not measured", fix=nearest(metric, measured))
    return metric
