"""Evaluation: full ranking, exact under ties, with floors and intervals beside every number."""

from modalmix.evaluate.evaluation import evaluate, parse_metric, validation_score
from modalmix.evaluate.results import Estimate, Evaluation, PoolResult
from modalmix.evaluate.settings import EvaluateConfig
from modalmix.evaluate.table import evaluation_table

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
