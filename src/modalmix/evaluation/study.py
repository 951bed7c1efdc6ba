"""Several systems on the same splits, each compared with one of them: the numbers of an ablation or a benchmark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import polars as pl

from modalmix.errors import EvaluateError, nearest
from modalmix.evaluation.compare import Comparison, compare, holm


@final
@dataclass(frozen=True)
class Finding:
    """One metric of one system in one pool.

    `each` is the mean over users on each split; `mean` and `sd` (n - 1; NaN on one split) are over splits.
    `comparison` is system - reference, `p_holm` its paired t-test corrected over the systems of this pool and metric;
    both are None for the reference itself.
    """

    system: str
    pool: str
    metric: str
    each: tuple[float, ...]
    users: int
    comparison: Comparison | None = None
    p_holm: float | None = None

    @property
    def n(self) -> int:
        """Splits."""
        return len(self.each)

    @property
    def mean(self) -> float:
        """Over splits."""
        return float(np.mean(self.each))

    @property
    def sd(self) -> float:
        """Over splits."""
        return float(np.std(self.each, ddof=1)) if self.n > 1 else math.nan

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; what is undefined is None."""
        names = {"system": self.system, "pool": self.pool, "metric": self.metric}
        sd = None if math.isnan(self.sd) else self.sd
        numbers = {"mean": self.mean, "sd": sd, "n": self.n, "users": self.users, "each": list(self.each)}
        comparison = None if self.comparison is None else self.comparison.to_dict()
        return {**names, **numbers, "comparison": comparison, "p_holm": self.p_holm}


@final
@dataclass(frozen=True, eq=False)
class Study:
    """The findings of all systems, in the order they came; differences are to `reference`."""

    reference: str
    confidence: float
    systems: tuple[str, ...]
    pools: tuple[str, ...]
    metrics: tuple[str, ...]
    findings: tuple[Finding, ...]

    def finding(self, system: str, pool: str, metric: str) -> Finding:
        """One of them. Raises EvaluateError when there is none."""
        for one in self.findings:
            if (one.system, one.pool, one.metric) == (system, pool, metric):
                return one
        raise EvaluateError(f"the study has no {metric} of '{system}' in pool '{pool}'")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {
            "reference": self.reference,
            "confidence": self.confidence,
            "test": "paired t-test over users, a user's values of all splits added up first; Holm over the systems",
            "findings": [one.to_dict() for one in self.findings],
        }


def make_study(values: pl.DataFrame, reference: str, metrics: Sequence[str], confidence: float = 0.95) -> Study:
    """Compare systems with the reference, in every pool and by every metric.

    Args:
        values: per-user values of all runs: columns system, split, pool, user and one a metric.
        reference: the system that the others are compared with.
        metrics: columns to compare by.
        confidence: level of the intervals.

    Raises:
        EvaluateError: no such reference or metric, a system that was not run on the splits of the reference, and as
            `compare`.
    """
    systems, pools = (tuple(values[name].unique(maintain_order=True).to_list()) for name in ("system", "pool"))
    if reference not in systems:
        raise EvaluateError(f"the study has no system '{reference}' to compare with", fix=nearest(reference, systems))
    for metric in metrics:
        if metric not in values.columns:
            raise EvaluateError(f"metric '{metric}' was not measured", fix=nearest(metric, values.columns[4:]))
    by_system = dict(zip(systems, values.partition_by("system", maintain_order=True), strict=True))
    for name, table in by_system.items():
        _check_same_splits(name, table, by_system[reference])
    findings: list[Finding] = []
    for pool in pools:
        tables = {name: table.filter(pl.col("pool") == pool) for name, table in by_system.items()}
        for metric in metrics:
            findings += _findings(tables, reference, pool, metric, confidence)
    return Study(reference, confidence, systems, pools, tuple(metrics), tuple(findings))


def _findings(
    tables: dict[str, pl.DataFrame], reference: str, pool: str, metric: str, confidence: float
) -> list[Finding]:
    """One metric in one pool, for every system."""
    whole = tables[reference]
    compared = {
        name: compare(table, whole, metric, confidence=confidence)
        for name, table in tables.items()
        if name != reference
    }
    corrected = dict(zip(compared, holm([one.p_t for one in compared.values()]), strict=True))
    return [
        Finding(
            name,
            pool,
            metric,
            tuple(table.group_by("split").agg(pl.col(metric).mean()).sort("split")[metric].to_list()),
            table["user"].n_unique(),
            compared.get(name),
            corrected.get(name),
        )
        for name, table in tables.items()
    ]


def _check_same_splits(name: str, table: pl.DataFrame, reference: pl.DataFrame) -> None:
    """Raise EvaluateError unless the system was run where the reference was."""
    here, there = (set(one.select("split", "pool").unique().iter_rows()) for one in (table, reference))
    if here != there:
        split, pool = min(here ^ there)
        raise EvaluateError(
            f"system '{name}' and the reference were not run on the same splits",
            got=f"split {split}, pool '{pool}' for one of them only",
            fix="Finish both, or leave that split out.",
        )
