"""Evaluation: full ranking, exact under ties, with floors and intervals beside every number."""

from modalmix.evaluation.measure import evaluate, parse_metric, validation_score
from modalmix.evaluation.results import Estimate, Evaluation, PoolResult
from modalmix.evaluation.settings import EvaluateConfig
from modalmix.evaluation.table import evaluation_table

__all__ = [
    "Estimate",
    "EvaluateConfig",
    "Evaluation",
    "PoolResult",
    "evaluate",
    "evaluation_table",
    "parse_metric",
    "validation_score",
]
