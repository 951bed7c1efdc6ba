"""Evaluation: full ranking, exact under ties, with floors and intervals beside every number."""

from modalmix.evaluation.calibration import fit_calibration, fit_prior
from modalmix.evaluation.measure import evaluate, parse_metric, validation_score
from modalmix.evaluation.plot import plot_robustness
from modalmix.evaluation.results import Estimate, Evaluation, PoolResult
from modalmix.evaluation.retrieval import RetrievalCurve, retrieval_curve
from modalmix.evaluation.robustness import RobustnessCurve, robustness_curve
from modalmix.evaluation.settings import EvaluateConfig, PoolName
from modalmix.evaluation.table import evaluation_table, robustness_table

__all__ = [
    "Estimate",
    "EvaluateConfig",
    "Evaluation",
    "PoolName",
    "PoolResult",
    "RetrievalCurve",
    "RobustnessCurve",
    "evaluate",
    "evaluation_table",
    "fit_calibration",
    "fit_prior",
    "parse_metric",
    "plot_robustness",
    "retrieval_curve",
    "robustness_curve",
    "robustness_table",
    "validation_score",
]
