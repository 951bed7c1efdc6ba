"""Content-induced edges: what a user would have met, had alike items been listed beside what the user did meet.

S = sum_m alpha_m D_m^-1 G_m  over the item graphs G_m of the modalities, without self loops
Q = D_u^-1/2 R S              without the entries of R
P = the largest of each row of Q, and of each column of an item in the long tail
A = [[w S, R + w P], [.., w S]]  the augmented graph (the blocks that `augment` names)
The public description of MAGNET (Dai, Fang & Cai 2026) says content-induced edges for sparse and long-tail items; the
form above is ours. Everything is sparse and made of train interactions alone: never a users x items matrix.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import scipy.sparse as sp
from jaxtyping import Bool, Float64, Int, Int64

from modalmix.errors import ConfigError, DataError
from modalmix.nn.graph import bipartite, row_normalize

Augment = Literal["ui", "ii", "both"]
Edges = tuple[Int64[np.ndarray, " edges"], Int64[np.ndarray, " edges"], Float64[np.ndarray, " edges"]]

_PRODUCTS = 1 << 21  # of the sparse product R S at once: about 150 MB


def mixed_similarity(graphs: Sequence[sp.csr_matrix], weights: Sequence[float], agree: int = 1) -> sp.csr_matrix:
    """S = sum_m alpha_m D_m^-1 G_m, of [items, items] graphs whose self loops are taken out first.

    A pair (i, j) stays where at least `agree` of the graphs list j in row i; rows are not normalised again.
    Raises ConfigError for another number of weights than graphs, a negative weight and an impossible `agree`, DataError
    for graphs that are not square or of different sizes.
    """
    if len(weights) != len(graphs) or not all(weight >= 0 for weight in weights):
        raise ConfigError("weights of item graphs", got=list(weights), expected=f"{len(graphs)} numbers, none negative")
    if not 1 <= agree <= len(graphs):
        raise ConfigError("agree", got=agree, expected=f"1 to {len(graphs)}, the number of item graphs")
    for graph in graphs:
        if graph.shape != (graphs[0].shape[0],) * 2:
            raise DataError("an item graph", got=f"shape {graph.shape}", expected=f"{(graphs[0].shape[0],) * 2}")
    others = [_without_self_loops(graph) for graph in graphs]
    mixed = sum(weight * row_normalize(graph) for weight, graph in zip(weights, others, strict=True))
    if agree > 1:
        mixed = mixed.multiply(sum(_ones(graph) for graph in others) >= agree)
    return _canonical(mixed)


def pseudo_edges(
    interactions: sp.csr_matrix,
    similarity: sp.csr_matrix,
    *,
    user_edges: int = 5,
    item_edges: int = 5,
    tail: float = 0.4,
    rho: float = 1.0,
    augment: Augment = "ui",
) -> sp.csr_matrix:
    """P [users, items]: pairs that are no train interaction, weighted in (0, 1], each row's largest 1.

    Args:
        interactions: R [users, items], 1 where there is a train event.
        similarity: S [items, items], none negative, from `mixed_similarity`.
        user_edges: most edges of a user by rows of Q; 0 for none.
        item_edges: most edges of a tail item by columns of Q; 0 for none.
        tail: items whose degree is at most this quantile of the item degrees are the tail.
        rho: at most rho nnz(R) edges; the largest are kept.
        augment: P is empty for "ii", which adds item-item edges alone.

    Among equal values of Q the next ones in circular order from the user's (item's) own number go first, so that no row
    takes the edges of all. An item or user without an interaction or neighbour gets none by it.
    Raises ConfigError for a negative number or a `tail` above 1, DataError when the shapes do not fit.
    """
    for name, value, most in (
        ("user_edges", user_edges, np.inf),
        ("item_edges", item_edges, np.inf),
        ("tail", tail, 1),
    ):
        if not 0 <= value <= most:
            raise ConfigError(name, got=value, expected="0 or more" if most > 1 else "0 to 1")
    if not 0 <= rho < np.inf:
        raise ConfigError("rho", got=rho, expected="0 or more")
    if similarity.shape != (interactions.shape[1],) * 2:
        raise DataError(
            "item similarities",
            got=f"shape {similarity.shape}",
            expected=f"{(interactions.shape[1],) * 2}, one an item",
        )
    known = _ones(interactions)
    if augment == "ii" or known.nnz == 0 or not (user_edges or item_edges):
        return sp.csr_matrix(interactions.shape, dtype=np.float32)
    degree = np.bincount(known.indices, minlength=known.shape[1])
    chosen = _chosen(known, similarity, degree <= np.quantile(degree, tail), user_edges, item_edges)
    return _scaled(chosen, known.shape, most=int(rho * known.nnz))


def augmented_adjacency(
    interactions: sp.csr_matrix, pseudo: sp.csr_matrix, similarity: sp.csr_matrix, weight: float, augment: Augment
) -> sp.csr_matrix:
    """The symmetric graph over users, then items: R + w P between them ("ui"), w (S + Sᵀ) / 2 among items ("ii").

    Not normalised. Without P and S, or with w = 0, it is `bipartite(R)`, bit for bit. Raises ConfigError for a negative
    weight, DataError when the shapes do not fit.
    """
    if not 0 <= weight < np.inf:
        raise ConfigError("weight of content-induced edges", got=weight, expected="0 or more")
    n_users, n_items = interactions.shape
    for name, matrix, shape in (("edges", pseudo, (n_users, n_items)), ("similarities", similarity, (n_items,) * 2)):
        if matrix.shape != shape:
            raise DataError(f"content-induced {name}", got=f"shape {matrix.shape}", expected=f"{shape}")
    between, among = _ones(interactions), sp.csr_matrix((n_items, n_items), dtype=np.float32)
    if augment != "ii":
        between = between + weight * pseudo
    if augment != "ui":
        symmetric = _without_self_loops(similarity)
        among = weight * (symmetric + symmetric.T) / 2
    blocks = sp.block_diag([sp.csr_matrix((n_users, n_users), dtype=np.float32), among], format="csr")
    return _canonical(bipartite(between) + blocks)


def _chosen(
    known: sp.csr_matrix, similarity: sp.csr_matrix, tail: Bool[np.ndarray, " items"], user_edges: int, item_edges: int
) -> Edges:
    """The largest of each row of Q, then those of each tail column; a pair may be in both."""
    n_users, n_items = known.shape
    by_user = []
    by_item: Edges = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    for user, item, value in _blocks_of_q(known, similarity):
        kept = _largest_of_each(user, value, (item - user) % n_items, user_edges)
        by_user.append((user[kept], item[kept], value[kept]))
        rare = tail[item]  # the best of a column so far stay candidates: a column is never whole
        user, item, value = (
            np.concatenate([best, new[rare]]) for best, new in zip(by_item, (user, item, value), strict=True)
        )
        kept = _largest_of_each(item, value, (user - item) % n_users, item_edges)
        by_item = user[kept], item[kept], value[kept]
    user, item, value = (np.concatenate(parts) for parts in zip(*by_user, by_item, strict=True))
    return user, item, value


def _blocks_of_q(known: sp.csr_matrix, similarity: sp.csr_matrix) -> Iterator[Edges]:
    """The positive entries of Q outside R, user by user, in blocks of as many rows as a block may hold products of."""
    degree = np.diff(known.indptr)
    scaled = sp.csr_matrix(sp.diags(1 / np.sqrt(np.maximum(degree, 1.0))) @ known)
    similarity = similarity.astype(np.float64)
    products = np.cumsum(known @ np.diff(similarity.indptr).astype(np.float64))
    starts = np.concatenate([[0], np.flatnonzero(np.diff(products // _PRODUCTS)) + 1, [known.shape[0]]])
    for start, stop in pairwise(starts):
        q = scaled[start:stop] @ similarity
        q = (q - q.multiply(known[start:stop])).tocoo()
        new = q.data > 0
        yield q.row[new].astype(np.int64) + start, q.col[new].astype(np.int64), q.data[new]


def _largest_of_each(
    group: Int64[np.ndarray, " edges"], value: Float64[np.ndarray, " edges"], order: Int64[np.ndarray, " edges"], k: int
) -> Int[np.ndarray, " kept"]:
    """Where the k largest values of each group are, the lowest `order` first among equals."""
    by_value = np.lexsort((order, -value, group))
    ordered = group[by_value]
    first = np.flatnonzero(np.diff(ordered, prepend=-1))
    rank = np.arange(len(ordered)) - np.repeat(first, np.diff(first, append=len(ordered)))
    return by_value[rank < k]


def _scaled(chosen: Edges, shape: tuple[int, int], most: int) -> sp.csr_matrix:
    """Each pair once, over the largest of its row; the largest ones where there are more than `most`."""
    pair, first = np.unique(chosen[0] * shape[1] + chosen[1], return_index=True)
    user, item, value = (part[first] for part in chosen)
    largest = np.zeros(shape[0])
    np.maximum.at(largest, user, value)
    weight = value / largest[user]
    if len(pair) > most:
        kept = np.lexsort((pair, -value, -weight))[:most]
        user, item, weight = user[kept], item[kept], weight[kept]
    return _canonical(sp.csr_matrix((weight, (user, item)), shape=shape))


def _without_self_loops(graph: sp.csr_matrix) -> sp.csr_matrix:
    others = sp.coo_matrix(graph)
    kept = others.row != others.col
    return _canonical(sp.csr_matrix((others.data[kept], (others.row[kept], others.col[kept])), shape=graph.shape))


def _ones(graph: sp.csr_matrix) -> sp.csr_matrix:
    """1 where the graph has an edge."""
    graph = _canonical(graph)
    return sp.csr_matrix((np.ones_like(graph.data), graph.indices, graph.indptr), shape=graph.shape)


def _canonical(graph: sp.csr_matrix) -> sp.csr_matrix:
    """A copy in float32, each edge once, in order, none of weight zero."""
    graph = sp.csr_matrix(graph, dtype=np.float32, copy=True)
    graph.sum_duplicates()
    graph.eliminate_zeros()
    return graph
