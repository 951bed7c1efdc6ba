"""The contract between models and everything else: trainer, evaluator, server, explainer.

A model is a file in modalmix/models (or anywhere, given by path) with one settings class and one Recommender:

    class Settings(GradientConfig): ...
    class Model(GradientRecommender[Settings]): __init__, loss(batch), scorer(catalog)     # trained by the loop
    class Model(ClosedFormRecommender[Settings]): fit(data), scorer(catalog)               # learnt in one pass
"""

from modalmix.models.contract.calibrated import Calibration, calibrate
from modalmix.models.contract.dot import DotScorer
from modalmix.models.contract.find import ModelType, find_model
from modalmix.models.contract.graphs import ItemGraphConfig, ItemGraphRecommender, item_graph
from modalmix.models.contract.history import HistoryScorer, SequentialScorer
from modalmix.models.contract.query import Query, Scorer, Triples
from modalmix.models.contract.recommender import ClosedFormRecommender, GradientRecommender, Recommender
from modalmix.models.contract.sequential import SequentialConfig, SequentialRecommender
from modalmix.models.contract.settings import GradientConfig, ModelConfig
from modalmix.models.contract.teacher import TeacherConfig, teach

__all__ = [
    "Calibration",
    "ClosedFormRecommender",
    "DotScorer",
    "GradientConfig",
    "GradientRecommender",
    "HistoryScorer",
    "ItemGraphConfig",
    "ItemGraphRecommender",
    "ModelConfig",
    "ModelType",
    "Query",
    "Recommender",
    "Scorer",
    "SequentialConfig",
    "SequentialRecommender",
    "SequentialScorer",
    "TeacherConfig",
    "Triples",
    "calibrate",
    "find_model",
    "item_graph",
    "teach",
]
