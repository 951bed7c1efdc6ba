"""Graph filters: scores of items from what the user met, through other users and through content, without training.

K_ji = d_j^-a d_i^-c sum over users u of d_u^-b R_uj R_ui          what users of item j also met (`item_filter`)
S = sum over modalities m of w_m rownorm(N_m + N_mᵀ)               what looks and sounds alike (`mean_graph`)
W = (I + h_1 S + h_2 S² + ...) K                                   content first, then users (`content_filter`)
s(u,i) = sum over j in history(u) of W_ji                          (`ItemFilter`)

With a = c = .5 and b = 1, R K is the linear graph filter of Shen et al., "How powerful is graph convolution for
recommendation?", CIKM 2021, eq. 13. A smaller c keeps popularity in the score. Everything here is a sparse matrix.
"""

from collections.abc import Iterable, Sequence
from typing import final

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Float64, Int, Int64
from torch import Tensor

from modalmix.nn.graph import row_normalize, symmetrized

_BLOCK = 1 << 24  # entries held at once before the small ones are left out, at most
_LOOKUP = 25  # finding an entry costs as much as so many products of entries


def item_filter(
    interactions: sp.csr_matrix, exponents: tuple[float, float, float], neighbors: int | None = None
) -> sp.csr_matrix:
    """K' = D_i^-a Rᵀ D_u^-b R D_i^-c [items, items] of R [users, items]; row j: where the filter leads from item j.

    Args:
        exponents: a (of the item that was met), b (of the users), c (of the item to score); d^-0 = 1.
        neighbors: largest entries kept in each row, all without it.

    An item without an event has an empty row and column: d^-a is 0 for it.
    """
    met_by = interactions.T.tocsr().astype(np.float32)
    from_item, by_user, to_item = (
        sp.diags(_power(degree, -exponent))
        for degree, exponent in zip((met_by.getnnz(1), met_by.getnnz(0), met_by.getnnz(1)), exponents, strict=True)
    )
    left, right = (from_item @ met_by).tocsr(), (by_user @ interactions @ to_item).tocsr()
    return _product(left, right, neighbors)


def mean_graph(graphs: Iterable[sp.csr_matrix], weights: Sequence[float], both_ways: bool = True) -> sp.csr_matrix:
    """S = Σ w_m rownorm(N_m + N_mᵀ) [items, neighbours] of neighbour lists N_m; not `both_ways`: Σ w_m rownorm(N_m).

    An item that lacks a modality loses its share: no evidence. Raises DataError for negative entries in a row sum
    (`row_normalize`).
    """
    if both_ways:
        graphs = map(symmetrized, graphs)
    shares = [row_normalize(graph) * weight for graph, weight in zip(graphs, weights, strict=True)]
    return sp.csr_matrix(sum(shares[1:], start=shares[0]), dtype=np.float32)


def content_filter(
    weights: sp.csr_matrix, graph: sp.csr_matrix, hops: Sequence[float], neighbors: int | None = None
) -> sp.csr_matrix:
    """W = (I + h_1 S + h_2 S² + ...) K' [all items, items], the content on the side of what the user met.

    Args:
        weights: K' [items, items].
        graph: S [all items, items]; rows below the items of K' (added later) reach it through their neighbours only.
        hops: h_1, h_2, ...
        neighbors: largest entries kept in each row, all without it.
    """
    return _product(content_reach(graph, hops), weights, neighbors)


def content_reach(graph: sp.csr_matrix, hops: Sequence[float]) -> sp.csr_matrix:
    """I + h_1 S + h_2 S² + ... [all items, items] of S [all items, items]."""
    within = graph[: graph.shape[1]]
    reach = sp.eye(*graph.shape, dtype=np.float32, format="csr")
    step = graph
    for place, hop in enumerate(hops):
        if place > 0:
            step = step @ within
        reach = reach + hop * step
    return sp.csr_matrix(reach, dtype=np.float32)


@final
class ItemFilter:
    """A sparse filter and the histories of known users: s(u,i) = Σ W_ji over j in history(u). A constant, no gradient.

    SciPy multiplies on the CPU, whatever the device of the question: a product of two sparse matrices is several times
    faster there than gathering and adding with torch. The answer is on the device of the question.
    """

    def __init__(self, histories: sp.csr_matrix, weights: sp.csr_matrix) -> None:
        """`histories` [users, sources]: 1 where the user has met the item; `weights` [sources, items]: W.

        Raises ValueError when the two do not fit.
        """
        if histories.shape[1] != weights.shape[0]:
            raise ValueError(f"histories of {histories.shape[1]} items, a filter of {weights.shape[0]} rows")
        self.histories = sp.csr_matrix(histories, dtype=np.float32)
        self.weights = _in_order(sp.csr_matrix(weights, dtype=np.float32))

    def rows(self, users: Int[Tensor, " batch"]) -> Float[Tensor, "batch items"]:
        """Scores of all items; memory is batch x items."""
        return self.of(self.histories[users.cpu().numpy()]).to(users.device)

    def of(self, histories: sp.csr_matrix) -> Float[Tensor, "batch items"]:
        """Scores of all items for any histories [batch, sources], on the CPU."""
        return torch.from_numpy((histories @ self.weights).toarray())

    def pairs(
        self,
        users: Int[Tensor, " batch"],
        items: Int[Tensor, " batch"],
        without: Int[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, " batch"]:
        """Scores of (users[k], items[k]); with `without`, as if user k's history did not have item without[k].

        `without` takes the item out of the history, not out of W, where the event still counts among those who met both
        items. Entries are looked up one by one, or, where histories are long and users stand often in the batch, all
        scores of each user are made once: whichever is less work.
        """
        who, place = np.unique(users.cpu().numpy(), return_inverse=True)
        columns, histories = items.cpu().numpy(), self.histories[who]
        length = np.diff(histories.indptr)
        products = length.sum() * (self.weights.nnz / max(1, self.weights.shape[0]))
        if length[place].sum() * _LOOKUP > products:
            scores = self._dense_pairs(histories, place, columns)
        else:
            scores = self._looked_up(histories[place], columns)
        if without is not None:
            left_out = without.cpu().numpy()
            scores -= entries(histories, place, left_out) * entries(self.weights, left_out, columns)
        return torch.from_numpy(scores.astype(np.float32)).to(users.device)

    def _dense_pairs(self, histories: sp.csr_matrix, place: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Scores of (histories[place[k]], columns[k]), a block of histories at a time."""
        scores, order = np.zeros(len(place)), np.argsort(place, kind="stable")
        size = max(1, _BLOCK // self.weights.shape[1])
        for start in range(0, histories.shape[0], size):
            first, last = np.searchsorted(place[order], [start, start + size])
            chosen = order[first:last]
            block = (histories[start : start + size] @ self.weights).toarray()
            scores[chosen] = block[place[chosen] - start, columns[chosen]]
        return scores

    def _looked_up(self, histories: sp.csr_matrix, columns: np.ndarray) -> np.ndarray:
        """Scores of (histories[k], columns[k])."""
        pair = np.repeat(np.arange(len(columns)), np.diff(histories.indptr))
        found = entries(self.weights, histories.indices, columns[pair]) * histories.data
        return np.bincount(pair, weights=found, minlength=len(columns))


def deviation(histories: Iterable[sp.csr_matrix], weights: sp.csr_matrix) -> float:
    """Standard deviation of the scores [histories, items] of all these blocks, zeros included; 0 without any."""
    n, total, squares = 0, 0.0, 0.0
    for block in histories:
        scores = block @ weights
        n += scores.shape[0] * scores.shape[1]
        total += scores.data.sum(dtype=np.float64)
        squares += np.square(scores.data, dtype=np.float64).sum()
    return float(np.sqrt(max(0.0, squares / n - (total / n) ** 2))) if n else 0.0


def entries(matrix: sp.csr_matrix, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """matrix[rows[k], columns[k]], 0 where nothing is stored: a binary search in each row, all at once.

    SciPy's own indexing reads the whole matrix again at every call to see whether it is sorted.
    Raises IndexError for a row or column the matrix does not have; nothing is counted from the end.
    """
    for name, places, size in zip(("row", "column"), (rows, columns), matrix.shape, strict=True):
        outside = (places < 0) | (places >= size)
        if outside.any():
            raise IndexError(f"{name} {places[outside][0]} of a matrix with {size:,}")
    matrix = _in_order(matrix)
    if matrix.nnz == 0:
        return np.zeros(len(rows), dtype=matrix.dtype)
    low, end = matrix.indptr[rows], matrix.indptr[np.add(rows, 1)]
    high, last = end, matrix.nnz - 1
    for _ in range(int((end - low).max(initial=0)).bit_length()):
        middle = low + ((high - low) >> 1)
        before = (low < high) & (matrix.indices[np.minimum(middle, last)] < columns)
        low, high = np.where(before, middle + 1, low), np.where(before, high, middle)
    place = np.minimum(low, last)
    return np.where((low < end) & (matrix.indices[place] == columns), matrix.data[place], 0)


def _in_order(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """The matrix, each entry once and each row's columns ascending; a copy where that is not so."""
    if not matrix.has_canonical_format:  # SciPy remembers the answer
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return matrix


def _power(degree: Int64[np.ndarray, " rows"], exponent: float) -> Float64[np.ndarray, " rows"]:
    """degree^exponent, 0 where the degree is 0."""
    return np.where(degree > 0, np.maximum(degree, 1).astype(np.float64) ** exponent, 0.0)


def _product(left: sp.csr_matrix, right: sp.csr_matrix, kept: int | None) -> sp.csr_matrix:
    """left @ right, the `kept` largest entries of each row; a block of rows at a time."""
    size = max(1, _BLOCK // max(1, right.shape[1]))
    blocks = [_largest(left[start : start + size] @ right, kept) for start in range(0, left.shape[0], size)]
    return sp.csr_matrix(sp.vstack(blocks, format="csr"), dtype=np.float32)


def _largest(matrix: sp.csr_matrix, k: int | None) -> sp.csr_matrix:
    """The k largest entries of each row; of equal ones any."""
    if k is None:
        return matrix
    for row in np.flatnonzero(np.diff(matrix.indptr) > k):
        entries = matrix.data[matrix.indptr[row] : matrix.indptr[row + 1]]
        entries[np.argpartition(entries, -k)[:-k]] = 0.0
    matrix.eliminate_zeros()
    return matrix
