"""Transitions: what came after what in histories, counted, without training.

C_ji = sum over g = 1..G of decay^(g-1) #{i came g events after j};   W = D^-a (C + backward Cᵀ) D^-c
s(h,i) = sum over the places p of the history h, 0 the last one, of recency^p W_{h_p i}

d_j: events of item j. With G = 1, a = 1, recency = 0 it ranks as a Markov chain of first order; counting several steps
with falling weight is the sequential rules of Ludewig & Jannach, "Evaluation of session-based recommendation
algorithms", UMUAI 2018; reading the whole history, the exponents and the way back are ours. Everything here is a sparse
matrix.
"""

from typing import final

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

_NEGLIGIBLE = 1e-6  # a place of a history that weighs less is not read


def transitions(
    offsets: Int64[np.ndarray, " histories_plus_one"],
    items: Int[np.ndarray, " events"],
    n_items: int,
    steps: int,
    decay: float,
    backward: float,
) -> sp.csr_matrix:
    """C + backward Cᵀ [items, items]; row j: what came after item j. Memory is O(events x steps), at most twice.

    The history of u, oldest event first, is items[offsets[u] : offsets[u + 1]].
    """
    lengths = np.diff(offsets)
    place, end = np.arange(len(items)), np.repeat(offsets[1:], lengths)
    counts = sp.csr_matrix((n_items, n_items), dtype=np.float32)
    for gap in range(1, min(steps, int(lengths.max(initial=0)) - 1) + 1):  # no history has more
        source = place[place + gap < end]
        weight = np.full(len(source), decay ** (gap - 1), dtype=np.float32)
        counts = counts + sp.csr_matrix((weight, (items[source], items[source + gap])), shape=counts.shape)
    return sp.csr_matrix(counts + backward * counts.T if backward else counts, dtype=np.float32)


def normalised(counts: sp.csr_matrix, degree: Int[np.ndarray, " items"], a: float, c: float) -> sp.csr_matrix:
    """D^-a counts D^-c; an item without an event has an empty row and column."""
    events = np.maximum(degree, 1).astype(np.float64)
    return sp.csr_matrix(sp.diags(events**-a) @ counts @ sp.diags(events**-c), dtype=np.float32)


@final
class TransitionFilter:
    """s(h,i) for any histories. A constant, no gradient; SciPy multiplies on the CPU, as in `ItemFilter`."""

    def __init__(self, weights: sp.csr_matrix, recency: float) -> None:
        """`weights` [known items, items]: W; `recency`: weight of a place against the one after it."""
        self.weights, self.recency = weights, recency

    def of(self, history: Int[Tensor, "batch longest"]) -> Float[Tensor, "batch items"]:
        """Scores of all items, on the device of the question: histories, oldest first, below 0 where there is none.

        Items that W does not know lead nowhere, but keep their place.
        """
        return torch.from_numpy((self.rows(history) @ self.weights).toarray()).to(history.device)

    def rows(self, history: Int[Tensor, "batch longest"]) -> sp.csr_matrix:
        """recency^p at the item of each place p, those of a repeated item added up: [batch, known items]."""
        items = history.cpu().numpy()
        real = items >= 0
        after = np.maximum(real[:, ::-1].cumsum(axis=1)[:, ::-1] - 1, 0)  # real places after this one
        weight = np.where(real & (items < self.weights.shape[0]), self.recency**after, 0.0)
        row, place = np.nonzero(weight > _NEGLIGIBLE)
        entries = (weight[row, place].astype(np.float32), (row, items[row, place]))
        return sp.csr_matrix(entries, shape=(len(items), self.weights.shape[0]))
