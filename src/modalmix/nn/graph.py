"""Graphs as sparse matrices: normalisation, and propagation whose backward pass is the same routine.

A graph over n nodes is a scipy matrix while it is built and a `Graph` (int32 CSR tensors) while it is trained on.
"""

from typing import Any, NamedTuple, final

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int32
from torch import Tensor, nn

from modalmix.errors import DataError

_INT32_MAX = np.iinfo(np.int32).max


def bipartite(interactions: sp.csr_matrix) -> sp.csr_matrix:
    """A = [[0, R], [Rᵀ, 0]] from R (users x items): the nodes are the users, then the items."""
    return sp.bmat([[None, interactions], [interactions.T, None]], format="csr", dtype=np.float32)


def symmetric_normalize(adjacency: sp.csr_matrix) -> sp.csr_matrix:
    """D^-1/2 A D^-1/2 with D = row sums of A (Kipf & Welling 2017, He et al. 2020 eq. 8).

    A directed graph (nearest neighbours) takes the row sums on both sides, as the field does. Rows below a square A are
    nodes that are nobody's neighbour. A node without an edge keeps an empty row. Raises DataError for a negative sum.
    """
    if adjacency.shape[0] < adjacency.shape[1]:
        raise DataError("a graph", got=f"shape {adjacency.shape}", expected="at least as many rows as columns")
    degree = np.asarray(adjacency.sum(axis=1), dtype=np.float64).ravel()
    if (degree < 0).any():
        raise DataError("graph weights", got=f"row sum {degree.min():g}", expected="no negative row sum")
    inverse_root = np.zeros_like(degree)
    np.divide(1.0, np.sqrt(degree, where=degree > 0, out=np.ones_like(degree)), out=inverse_root, where=degree > 0)
    right = inverse_root[: adjacency.shape[1]]
    return sp.csr_matrix(sp.diags(inverse_root) @ adjacency @ sp.diags(right), dtype=np.float32)


def row_normalize(adjacency: sp.csr_matrix) -> sp.csr_matrix:
    """D^-1 A: each row sums to 1; an empty one stays empty. Raises DataError for a negative row sum."""
    total = np.asarray(adjacency.sum(axis=1), dtype=np.float64).ravel()
    if (total < 0).any():
        raise DataError("graph weights", got=f"row sum {total.min():g}", expected="no negative row sum")
    inverse = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    return sp.csr_matrix(sp.diags(inverse) @ adjacency, dtype=np.float32)


def symmetrized(neighbors: sp.csr_matrix) -> sp.csr_matrix:
    """N + Nᵀ [nodes, columns]: a node's neighbours are those that it lists and those that list it.

    Who is listed on both sides counts twice. Rows below a square N are nobody's neighbour: they count what they list
    twice, so that their sums are as large.
    """
    square = neighbors[: neighbors.shape[1]]
    return sp.vstack([square + square.T, 2 * neighbors[neighbors.shape[1] :]], format="csr")


def co_occurrence(graph: sp.csr_matrix, interactions: sp.csr_matrix) -> float:
    """How well an item graph foretells behaviour: mean over its edges (i, j), i not j, of c_ij / sqrt(d_i d_j).

    c_ij users met both, d_i met i. In 0..1; 0 for a graph without edges between items that anybody met.
    """
    n_items = interactions.shape[1]
    edges = sp.coo_matrix(graph[:n_items])
    kept = edges.row != edges.col
    degree = np.maximum(interactions.getnnz(axis=0), 1)
    met_by = sp.csr_matrix(interactions @ sp.diags(degree**-0.5)).T.tocsr()
    places = np.flatnonzero(kept)
    parts = np.array_split(places, 1 + len(places) // 65_536)
    total = sum(met_by[edges.row[part]].multiply(met_by[edges.col[part]]).sum() for part in parts)
    return float(total / max(1, len(places)))


def chance_co_occurrence(graph: sp.csr_matrix, interactions: sp.csr_matrix) -> float:
    """What `co_occurrence` would be if edges kept their ends but met by chance.

    The mean of c_ij / sqrt(d_i d_j) over all pairs of an item that edges leave and another where they arrive, each as
    often as they do: sum_u (sum_i out_i r_ui) (sum_j in_j r_uj), r_ui = 1 / sqrt(d_i) where u met i, without i = j.
    """
    n_items = interactions.shape[1]
    edges = sp.coo_matrix(graph[:n_items])
    kept = edges.row != edges.col
    leaving, arriving = (np.bincount(ends[kept], minlength=n_items) for ends in (edges.row, edges.col))
    degree = interactions.getnnz(axis=0)
    met = sp.csr_matrix(interactions @ sp.diags(np.maximum(degree, 1) ** -0.5))
    itself = leaving * arriving
    together = (met @ leaving) @ (met @ arriving) - itself[degree > 0].sum()
    return float(together / max(1, leaving.sum() * arriving.sum() - itself.sum()))


def thin(interactions: sp.csr_matrix, dropout: float, rng: np.random.Generator) -> sp.csr_matrix:
    """R with a share 1 - dropout of its edges, drawn one after the other with chances as 1 / sqrt(d_u d_i).

    The smallest of |R| exponential draws with these rates are such a sample (Efraimidis & Spirakis 2006). At least one
    edge stays.
    """
    rows, columns = interactions.nonzero()
    user_degree, item_degree = interactions.getnnz(axis=1), interactions.getnnz(axis=0)
    arrival = rng.exponential(size=len(rows)) * np.sqrt(user_degree[rows].astype(np.float64) * item_degree[columns])
    count = max(1, round(len(rows) * (1 - dropout)))
    kept = np.argpartition(arrival, count - 1)[:count]
    ones = np.ones(count, dtype=np.float32)
    return sp.csr_matrix((ones, (rows[kept], columns[kept])), shape=interactions.shape)


@final
class Graph(nn.Module):
    """A constant sparse matrix W (rows x columns) that multiplies dense ones: `graph(x)` = W x.

    Its CSR arrays are buffers that move with the model and are not saved: a model rebuilds them from its train data.
    The transpose, which the backward pass multiplies by, is kept only where W is not symmetric.
    """

    offsets: Int32[Tensor, " rows_plus_one"]
    columns: Int32[Tensor, " edges"]
    weights: Float[Tensor, " edges"]
    transposed_offsets: Int32[Tensor, " columns_plus_one"]
    transposed_columns: Int32[Tensor, " edges"]
    transposed_weights: Float[Tensor, " edges"]

    def __init__(self, matrix: sp.csr_matrix) -> None:
        """Raises DataError for 2^31 edges or more."""
        super().__init__()
        matrix = sp.csr_matrix(matrix)
        if matrix.nnz > _INT32_MAX:
            raise DataError("a graph", got=f"{matrix.nnz:,} edges", expected=f"at most {_INT32_MAX:,}")
        self.n_rows, self.n_columns = matrix.shape
        symmetric = self.n_rows == self.n_columns and (matrix != matrix.T).nnz == 0
        self._register("", matrix)
        if not symmetric:
            self._register("transposed_", matrix.T.tocsr())
        self.symmetric = symmetric

    def forward(self, x: Float[Tensor, "columns dim"]) -> Float[Tensor, "rows dim"]:
        """W x, differentiable in x."""
        return _Propagate.apply(x, self)

    def at(self, x: Float[Tensor, "columns dim"], rows: Int[Tensor, " asked"]) -> Float[Tensor, "asked dim"]:
        """`rows` of W x, in their order, as often as they are named; no other is worked out, the bits are the same."""
        part = self.part(rows)
        return part.graph(x).index_select(0, part.place)

    def part(self, rows: Int[Tensor, " asked"]) -> "Part":
        """The rows of W that `rows` names, each once.

        All of W on an accelerator, which makes them faster than it finds them, and where `rows` are as many as W has.
        Raises IndexError for a row that W does not have; on the CPU nothing is counted from the end.
        """
        if rows.device.type == "cpu" and len(rows) and (rows.min() < 0 or rows.max() >= self.n_rows):
            raise IndexError(f"rows {int(rows.min())} to {int(rows.max())} of a graph with {self.n_rows:,}")
        if rows.device.type != "cpu" or len(rows) >= self.n_rows:
            return Part(self, None, rows)
        asked, place = rows.unique(return_inverse=True)
        arrays = (self.weights.numpy(), self.columns.numpy(), self.offsets.numpy())
        whole = sp.csr_matrix(arrays, shape=(self.n_rows, self.n_columns), copy=False)
        return Part(Graph(whole[asked.numpy()]), asked, place)

    def mean_of_layers(
        self, x: Float[Tensor, "nodes dim"], layers: int, rows: Int[Tensor, " asked"] | None = None
    ) -> Float[Tensor, "asked dim"]:
        """(x + W x + ... + W^L x) / (L + 1), LightGCN's layer combination, differentiable in x. W must be square.

        With `rows`, these of it, as `at`: the last layer is worked out for them alone, and so is the first of the
        backward pass.
        """
        if rows is None:
            return _MeanOfLayers.apply(x, self, layers) if layers else x
        part = self.part(rows)
        if part.rows is None or not layers:
            return self.mean_of_layers(x, layers).index_select(0, rows)
        return _MeanOfLayersAt.apply(x, self, layers, part.graph, part.rows).index_select(0, part.place)

    def multiply(self, x: Tensor, transpose: bool = False) -> Tensor:
        """W x or Wᵀ x without autograd: a weighted sum of rows, faster on the CPU than torch's sparse products."""
        if transpose and not self.symmetric:
            offsets, columns, weights = self.transposed_offsets, self.transposed_columns, self.transposed_weights
        else:
            offsets, columns, weights = self.offsets, self.columns, self.weights
        return F.embedding_bag(
            columns,
            x.detach().contiguous(),
            offsets,
            mode="sum",
            per_sample_weights=weights.to(x.dtype),
            include_last_offset=True,
        )

    def _register(self, prefix: str, matrix: sp.csr_matrix) -> None:
        arrays = {"offsets": matrix.indptr, "columns": matrix.indices, "weights": matrix.data}
        for name, array in arrays.items():
            dtype = np.float32 if name == "weights" else np.int32
            self.register_buffer(prefix + name, torch.from_numpy(array.astype(dtype)), persistent=False)

    def _horner(self, x: Tensor, layers: int, transpose: bool = False) -> Tensor:
        """x + W(x + W(x + ...)): one buffer a layer, no stack."""
        sum_of_layers = x
        for _ in range(layers):
            sum_of_layers = self.multiply(sum_of_layers, transpose).add_(x)
        return sum_of_layers


@final
class Part(NamedTuple):
    """Some rows of a graph: `graph` has them in the order of `rows` (None: it is the whole), `place` is where what was
    asked for is in them."""

    graph: Graph
    rows: Int[Tensor, " distinct"] | None
    place: Int[Tensor, " asked"]


class _Propagate(torch.autograd.Function):
    """y = W x; dL/dx = Wᵀ dL/dy. W is constant, so nothing is saved."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, graph: Graph) -> Tensor:
        ctx.graph = graph
        return graph.multiply(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.graph.multiply(gradients[0], transpose=True), None


class _MeanOfLayers(torch.autograd.Function):
    """y = p(W) x / (L + 1) for the polynomial p of `_horner`; dL/dx = p(Wᵀ) dL/dy / (L + 1)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, graph: Graph, layers: int) -> Tensor:
        ctx.graph, ctx.layers = graph, layers
        return graph._horner(x, layers).div_(layers + 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.graph._horner(gradients[0], ctx.layers, transpose=True).div_(ctx.layers + 1), None, None


class _MeanOfLayersAt(torch.autograd.Function):
    """Rows of `_MeanOfLayers`, each once; `part` has them of the graph. The gradient of all others is zero, and is
    neither multiplied nor added."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, graph: Graph, layers: int, part: Graph, rows: Tensor) -> Tensor:
        ctx.graph, ctx.layers, ctx.part, ctx.rows = graph, layers, part, rows
        below = graph._horner(x.detach(), layers - 1)
        return part.multiply(below).add_(x.index_select(0, rows)).div_(layers + 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        gradient = gradients[0]
        total = ctx.part.multiply(gradient, transpose=True).index_add_(0, ctx.rows, gradient)
        for _ in range(ctx.layers - 1):
            total = ctx.graph.multiply(total, transpose=True).index_add_(0, ctx.rows, gradient)
        return total.div_(ctx.layers + 1), None, None, None, None
