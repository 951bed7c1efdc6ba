"""What to measure, and how."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from modalmix.config import Config

Metric = Literal["recall", "ndcg", "precision", "hitrate", "mrr", "map", "recall_capped"]
Mask = Literal["seen", "train", "none"]
PoolName = Literal["all", "cold", "warm"]
Ties = Literal["expected", "naive"]


class EvaluateConfig(Config):
    """Settings of an evaluation."""

    metrics: Annotated[tuple[Metric, ...], Field(min_length=1)] = ("recall", "ndcg", "precision", "mrr")
    """Metrics, each defined in modalmix.evaluation.metrics."""
    ks: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (5, 10, 20, 50)
    """Cut-offs: how many ranked items count."""
    mask: Mask = "seen"
    """Items of a user that are not candidates: seen (all known at that time), train (train events only), or none."""
    pools: tuple[PoolName, ...] = ()
    """Candidate items: all, cold (without a train interaction), warm (with one), each with a result of its own.
    Without any: all items, and for a split that holds items out whole cold, warm and all."""
    ties: Ties = "expected"
    """Tied items: expected (exact mean over their orders), or naive (by item row: only to show how wrong that is)."""
    chunk: PositiveInt = 128
    """Users scored at once: memory is chunk x items. 64 to 256 is fastest on a CPU, where a block fits its cache."""
    sampled: PositiveInt | None = None
    """Rank against this many sampled items that are not relevant instead of all. Not comparable with full ranking."""
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    """Confidence level of the intervals."""
    seed: Annotated[int, Field(ge=0)] = 2025
    """Seed of the sampled candidates."""
    floors: bool = True
    """Whether to put the random and the most-popular floor beside every number."""
