"""EASE: each item's score is a linear regression on what the user met, itself left out, in closed form (Steck 2019).

B = argmin |R - R B|² + reg |B|², diag(B) = 0:   P = (Rᵀ R + reg I)⁻¹,   B_ij = -P_ij / P_jj  (i ≠ j)
s(u,i) = sum over j in history(u) of B_ji

Steck, "Embarrassingly shallow autoencoders for sparse data", WWW 2019, eq. 8. B is items x items and dense: 4 bytes a
pair, at fit and after. A history is scored exactly like a known user. An item without a train event scores 0.
Expected here: validation Recall@20 of amazon-baby .0816 (train items masked).
"""

from typing import final

import numpy as np
import scipy.linalg.lapack as lapack
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from pydantic import Field
from torch import Tensor

from modalmix.data.catalog import Catalog
from modalmix.data.split import TrainData
from modalmix.errors import ModelError
from modalmix.models.contract import ClosedFormRecommender, ModelConfig, Query
from modalmix.models.contract.histories import history_rows

_BLOCK = 512  # rows of the items x items matrix that are worked on at once


class EASEConfig(ModelConfig):
    """Settings of EASE."""

    reg: float = Field(300.0, gt=0)
    """Strength of the L2 penalty on the weights (lambda)."""
    max_items: int = Field(20_000, ge=1)
    """Most items it is fitted for: it needs 4 bytes for each pair of items (20,000 items: 1.6 GB)."""


@final
class EASE(ClosedFormRecommender[EASEConfig]):
    """Row j of `weights`: what having met item j adds to the score of each item."""

    weights: Float32[Tensor, "items items"]

    def __init__(self, config: EASEConfig, data: TrainData) -> None:
        """Raises ModelError for more than `max_items` items."""
        super().__init__(config, data)
        if self.n_items > config.max_items:
            raise ModelError(
                "the catalogue is too large for EASE, whose weights are items x items",
                got=f"{self.n_items:,} items ({4 * self.n_items**2 / 1e9:.1f} GB)",
                expected=f"at most {config.max_items:,} (setting max_items)",
                fix="Raise max_items if there is memory for it, or take itemknn or graphfilter: they are sparse.",
            )
        self.histories = data.interactions.csr

    def fit(self, data: TrainData) -> None:
        """One inverse of items x items, in its own memory. Raises ModelError when float32 cannot invert it."""
        weights = gram(data.interactions.csr)
        weights.flat[:: len(weights) + 1] += self.config.reg
        invert(weights)
        weights /= -weights.diagonal().copy()
        np.fill_diagonal(weights, 0.0)
        self.register_buffer("weights", torch.from_numpy(weights))

    def scorer(self, catalog: Catalog) -> "EASEScorer":
        """Sums of the rows of B. Raises ModelError for another catalogue."""
        self.check_extends(catalog)
        return EASEScorer(self.histories, self.weights, len(catalog))


@final
class EASEScorer:
    """Histories (queries x items, sparse) times B; items beyond the training ones have no row and no column."""

    def __init__(self, histories: sp.csr_matrix, weights: Float32[Tensor, "items items"], n_items: int) -> None:
        self.histories, self.weights, self.n_items = histories, weights, n_items

    def __len__(self) -> int:
        return self.n_items

    def following(self, met: sp.csr_matrix) -> "EASEScorer":
        """This scorer where users have met this: [users, training items]."""
        return EASEScorer(met, self.weights, self.n_items)

    def __call__(self, query: Query) -> Float[Tensor, "batch items"]:
        """Scores of all items. Raises QueryError for an empty history."""
        met = history_rows(query, self.histories, len(self))[:, : len(self.weights)]
        items, offsets = (torch.from_numpy(array.astype(np.int64)) for array in (met.indices, met.indptr))
        device = self.weights.device
        scores = F.embedding_bag(
            items.to(device), self.weights, offsets.to(device), mode="sum", include_last_offset=True
        )
        added = len(self) - len(self.weights)
        return F.pad(scores, (0, added)) if added else scores


def gram(met: sp.csr_matrix) -> Float32[np.ndarray, "items items"]:
    """Rᵀ R, dense: how many users met both items. A block of rows at a time."""
    n_items, met_by = met.shape[1], met.T.tocsr()
    common = np.empty((n_items, n_items), dtype=np.float32)
    for start in range(0, n_items, _BLOCK):
        (met_by[start : start + _BLOCK] @ met).toarray(out=common[start : start + _BLOCK])
    return common


def invert(matrix: Float32[np.ndarray, "rows rows"]) -> None:
    """The inverse of a symmetric positive definite matrix, in place, by its Cholesky factor.

    Raises ModelError when the matrix is not positive definite in its precision.
    """
    # LAPACK reads columns first: the transpose is the same matrix, and no copy. It leaves one triangle, row <= column.
    factor, failed = lapack.spotrf(matrix.T, lower=1, clean=0, overwrite_a=1)
    if not failed:
        inverse, failed = lapack.spotri(factor, lower=1, overwrite_c=1)
    if failed:
        raise ModelError("Rᵀ R + reg I cannot be inverted in float32", fix="Raise reg.")
    assert np.shares_memory(inverse, matrix), "LAPACK worked on a copy"
    for start in range(0, len(matrix), _BLOCK):
        end = start + _BLOCK
        corner = np.triu(matrix[start:end, start:end])
        matrix[start:end, start:end] = corner + np.triu(corner, 1).T
        matrix[end:, start:end] = matrix[start:end, end:].T
