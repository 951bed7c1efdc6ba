"""Transitions: what came after the items of a history, counted; a sparse product, no training.

C_ji = sum over g = 1..G of decay^(g-1) #{i came g events after j},   W = D^-a (C + backward Cᵀ) D^-c
s(h,i) = sum over the places p of the history h, 0 the last one, of recency^p W_{h_p i}

Counting several steps with falling weight is the sequential rules of Ludewig & Jannach, "Evaluation of session-based
recommendation algorithms", UMUAI 2018; the exponents, the way back and reading the whole history are ours. Items that
nothing leads to are in the order of their popularity. Expected here: validation NDCG@10 of amazon-beauty .063 (nothing
masked), level with the best trained model without such a prior.
"""

from typing import final

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Float32, Int, Int32, Int64
from pydantic import Field
from torch import Tensor

from modalmix.data.catalog import Catalog
from modalmix.data.split import TrainData
from modalmix.models.contract import ClosedFormRecommender, ModelConfig, SequentialScorer
from modalmix.models.contract.transitions import TransitionConfig, TransitionPrior, transition_filter
from modalmix.nn.transitions import TransitionFilter

_POPULARITY = 1e-7  # weight of log(1 + events): it tells items apart that nothing leads to, and hardly any others


class TransitionsConfig(TransitionConfig, ModelConfig):
    """Settings of the transitions."""

    length: int = Field(50, ge=1)
    """Items of a history that are read, the last ones."""


@final
class Transitions(ClosedFormRecommender[TransitionsConfig]):
    """W as CSR arrays: row j holds what came after item j."""

    offsets: Int64[Tensor, " items_plus_one"]
    followers: Int32[Tensor, " pairs"]
    weights: Float32[Tensor, " pairs"]

    def __init__(self, config: TransitionsConfig, data: TrainData) -> None:
        super().__init__(config, data)
        self.sequences = data.sequences
        self.popularity = torch.from_numpy(np.log1p(data.interactions.item_degree)).float()

    def fit(self, data: TrainData) -> None:
        """Count."""
        weights = transition_filter(data.sequences, self.n_items, self.config).weights
        self.register_buffer("offsets", torch.from_numpy(weights.indptr.astype(np.int64)))
        self.register_buffer("followers", torch.from_numpy(weights.indices.astype(np.int32)))
        self.register_buffer("weights", torch.from_numpy(weights.data))

    def scorer(self, catalog: Catalog) -> SequentialScorer:
        """Sparse products a batch at a time. Raises ModelError for another catalogue."""
        self.check_extends(catalog)
        arrays = [array.cpu().numpy() for array in (self.weights, self.followers, self.offsets)]
        phi = TransitionFilter(sp.csr_matrix(tuple(arrays), shape=(self.n_items,) * 2), self.config.recency)
        popularity = torch.nn.functional.pad(self.popularity, (0, len(catalog) - self.n_items))
        return SequentialScorer(
            self.config.length,
            self.sequences,
            _nothing,
            torch.zeros(len(catalog), 0),
            popularity,
            item_bias=_POPULARITY * popularity,
            transitions=TransitionPrior(phi, torch.ones(self.n_items)).extended(len(catalog)),
        )


def _nothing(history: Int[Tensor, "batch longest"], times: Int[Tensor, "batch longest"] | None) -> Float[Tensor, "b 0"]:
    """There are no vectors: the counts say it all."""
    return torch.zeros(len(history), 0)
