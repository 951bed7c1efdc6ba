"""ItemKNN: items alike to what the user met, alike = met by the same users (Sarwar et al. 2001).

c_ij = |U_i ∩ U_j| / (sqrt(|U_i| |U_j|) + shrinkage),  U_i = users who met item i
s(u,i) = sum over j in history(u) with i in N(j) of c_ij,  N(j) = the k items most alike to j, j itself left out

Neighbours of what the user met, as in Deshpande & Karypis 2004; shrinkage as in Bell & Koren 2007, in the form of
Ferrari Dacrema et al. 2019. A history is scored exactly like a known user. An item without a train event scores 0.
"""

from typing import final

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Float32, Int32, Int64
from pydantic import Field
from torch import Tensor

from modalmix.data.catalog import Catalog
from modalmix.data.split import TrainData
from modalmix.models.contract import ClosedFormRecommender, ModelConfig, Query
from modalmix.models.contract.histories import history_rows

_BLOCK = 1 << 24  # co-occurrences held at once, at most, if every pair of items had one


class ItemKNNConfig(ModelConfig):
    """Settings of ItemKNN."""

    neighbors: int = Field(200, ge=1)
    """Most similar items kept for each item (k)."""
    shrinkage: float = Field(100.0, ge=0)
    """Added to the denominator of the cosine: pairs with few common users count less."""


@final
class ItemKNN(ClosedFormRecommender[ItemKNNConfig]):
    """The neighbours of each item as CSR arrays: row j holds N(j)."""

    offsets: Int64[Tensor, " items_plus_one"]
    neighbors: Int32[Tensor, " pairs"]
    similarity: Float32[Tensor, " pairs"]

    def __init__(self, config: ItemKNNConfig, data: TrainData) -> None:
        super().__init__(config, data)
        self.histories = data.interactions.csr

    def fit(self, data: TrainData) -> None:
        """Count common users, a block of items at a time: items x items is never held."""
        met_by = data.interactions.csr.T.tocsr()
        degree = np.asarray(met_by.sum(axis=1), dtype=np.float32).ravel()
        size = max(1, _BLOCK // max(1, self.n_items))
        blocks = [
            self._neighbors(met_by, degree, start, min(start + size, self.n_items))
            for start in range(0, self.n_items, size)
        ]
        nearest = sp.vstack(blocks, format="csr")
        self.register_buffer("offsets", torch.from_numpy(nearest.indptr.astype(np.int64)))
        self.register_buffer("neighbors", torch.from_numpy(nearest.indices.astype(np.int32)))
        self.register_buffer("similarity", torch.from_numpy(nearest.data.astype(np.float32)))

    def scorer(self, catalog: Catalog) -> "ItemKNNScorer":
        """Sparse products a batch at a time. Raises ModelError for another catalogue."""
        self.check_extends(catalog)
        arrays = [array.cpu().numpy() for array in (self.similarity, self.neighbors, self.offsets)]
        nearest = sp.csr_matrix(tuple(arrays), shape=(self.n_items, self.n_items))
        nearest.resize(len(catalog), len(catalog))
        return ItemKNNScorer(self.histories, nearest)

    def _neighbors(
        self, met_by: sp.csr_matrix, degree: Float32[np.ndarray, " items"], start: int, end: int
    ) -> sp.csr_matrix:
        """N(j) and c_ij for the items j in start..end-1; of equally alike items the first."""
        common = (met_by[start:end] @ met_by.T).tocoo()
        others = common.col != common.row + start
        row, column = common.row[others], common.col[others]
        cosine = common.data[others] / (np.sqrt(degree[row + start] * degree[column]) + self.config.shrinkage)
        order = np.lexsort((column, -cosine, row))
        row, column, cosine = row[order], column[order], cosine[order]
        rank = np.arange(len(row)) - np.searchsorted(row, row)
        kept = rank < self.config.neighbors
        return sp.csr_matrix((cosine[kept], (row[kept], column[kept])), shape=(end - start, self.n_items))


@final
class ItemKNNScorer:
    """Histories (queries x items) times nearest neighbours (items x items), both sparse."""

    def __init__(self, histories: sp.csr_matrix, nearest: sp.csr_matrix) -> None:
        self.histories, self.nearest = histories, nearest

    def __len__(self) -> int:
        return int(self.nearest.shape[0])

    def following(self, met: sp.csr_matrix) -> "ItemKNNScorer":
        """This scorer where users have met this: [users, training items]."""
        return ItemKNNScorer(met, self.nearest)

    def __call__(self, query: Query) -> Float[Tensor, "batch items"]:
        """Scores of all items. Raises QueryError for an empty history."""
        histories = history_rows(query, self.histories, len(self))
        return torch.from_numpy((histories @ self.nearest).toarray())
