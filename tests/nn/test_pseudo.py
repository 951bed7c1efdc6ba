"""Content-induced edges by hand, and against dense matrices."""

import numpy as np
import pytest
import scipy.sparse as sp

import modalmix.nn.pseudo as module
from modalmix.errors import ConfigError, DataError
from modalmix.nn.graph import bipartite
from modalmix.nn.pseudo import augmented_adjacency, mixed_similarity, pseudo_edges


def matrix(*rows: list[float]) -> sp.csr_matrix:
    return sp.csr_matrix(np.array(rows, dtype=np.float32))


# items 0 - 3 have neighbours, item 4 has none and is nobody's
SIMILARITY = matrix([0, 0.6, 0.4, 0, 0], [0.5, 0, 0, 0.5, 0], [0.25, 0, 0, 0.75, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 0])
# user 0 met items 0 and 1, user 1 item 0, user 2 item 4, user 3 nothing, user 4 items 0 and 2
TRAIN = matrix([1, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0], [1, 0, 1, 0, 0])
# Q without R: user 0: .4 and .5, both over sqrt 2, at items 2 and 3; user 1: .6, .4 at 1, 2; user 4: .6, .75 at 1, 3


def drawn(seed: int, n_users: int = 60, n_items: int = 40) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """User 7 met nothing, item 3 has no neighbour and is nobody's."""
    rng = np.random.default_rng(seed)
    train = (rng.random((n_users, n_items)) < 0.08).astype(np.float32)
    similarity = np.where(rng.random((n_items, n_items)) < 0.15, rng.random((n_items, n_items)), 0).astype(np.float32)
    train[7], similarity[3], similarity[:, 3] = 0, 0, 0
    return sp.csr_matrix(train), sp.csr_matrix(similarity)


def dense_pseudo(train: sp.csr_matrix, similarity: sp.csr_matrix, user_edges: int, item_edges: int) -> np.ndarray:
    """The definition, entry by entry. Equal values are the rule in a column: users of one item each, say."""
    r, s = train.toarray().astype(np.float64), similarity.toarray().astype(np.float64)
    q, p = np.zeros_like(r), np.zeros_like(r)
    for u in range(len(r)):
        for met in np.flatnonzero(r[u]):
            q[u] += s[met] * (1 / np.sqrt(r[u].sum()))
    q[r > 0] = 0
    users, items = (range(n) for n in r.shape)
    for u in users:
        for i in sorted(items, key=lambda i: (-q[u, i], (i - u) % len(items)))[:user_edges]:
            p[u, i] = q[u, i]
    degree = r.sum(axis=0)
    for i in np.flatnonzero(degree <= np.quantile(degree, 0.4)):
        for u in sorted(users, key=lambda u: (-q[u, i], (u - i) % len(users)))[:item_edges]:
            p[u, i] = q[u, i]
    return p / np.maximum(p.max(axis=1, keepdims=True), 1e-300)


def test_mixed_similarity_by_hand() -> None:
    image = matrix([9, 1, 3], [0, 9, 0], [2, 0, 0])  # self loops of 9; item 1 has no neighbour
    text = matrix([1, 0, 1], [4, 0, 0], [0, 1, 1])
    mixed = mixed_similarity([image, text], [0.3, 0.7])
    expected = [[0, 0.3 / 4, 0.9 / 4 + 0.7], [0.7, 0, 0], [0.3, 0.7, 0]]
    np.testing.assert_allclose(mixed.toarray(), expected, rtol=1e-6)
    agreed = mixed_similarity([image, text], [0.3, 0.7], agree=2)
    np.testing.assert_allclose(agreed.toarray(), [[0, 0, 0.9 / 4 + 0.7], [0, 0, 0], [0, 0, 0]], rtol=1e-6)
    assert agreed.nnz == 1
    assert image[0, 0] == 9  # what it was given is left alone


def test_a_graph_of_weight_zero_adds_nothing() -> None:
    image, text = matrix([0, 1], [1, 0]), matrix([0, 0], [2, 0])
    assert mixed_similarity([image, text], [0, 1]).nnz == 1
    assert mixed_similarity([sp.csr_matrix((2, 2))], [1]).nnz == 0


def test_pseudo_edges_by_hand() -> None:
    by_row = pseudo_edges(TRAIN, SIMILARITY, user_edges=1, item_edges=0).toarray()
    expected = np.zeros((5, 5))
    expected[0, 3] = expected[1, 1] = expected[4, 3] = 1
    np.testing.assert_array_equal(by_row, expected)
    both_of_row = pseudo_edges(TRAIN, SIMILARITY, user_edges=9, item_edges=0, rho=9).toarray()
    expected[0, 2], expected[1, 2], expected[4, 1] = 0.4 / 0.5, 0.4 / 0.6, 0.6 / 0.75
    np.testing.assert_allclose(both_of_row, expected, rtol=1e-6)


def test_column_edges_are_of_tail_items_alone() -> None:
    # degrees 3, 1, 1, 0, 1: at most the 40 % quantile of 1 are items 1 to 4, at most the 0 % quantile of 0 item 3
    edges = pseudo_edges(TRAIN, SIMILARITY, user_edges=0, item_edges=1).toarray()
    expected = np.zeros((5, 5))
    expected[1, 1] = 1  # .6 at user 1 beats .6 / sqrt 2 at user 4
    expected[1, 2] = 0.4 / 0.6  # .4 at user 1 beats .4 / sqrt 2 at user 0
    expected[4, 3] = 1  # .75 / sqrt 2 beats .5 / sqrt 2
    np.testing.assert_allclose(edges, expected, rtol=1e-6)
    only_cold = pseudo_edges(TRAIN, SIMILARITY, user_edges=0, item_edges=1, tail=0).toarray()
    assert np.argwhere(only_cold).tolist() == [[4, 3]]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("user_edges", "item_edges"), [(5, 5), (1, 0), (0, 2), (3, 99)])
def test_against_dense_matrices(seed: int, user_edges: int, item_edges: int) -> None:
    train, similarity = drawn(seed)
    edges = pseudo_edges(train, similarity, user_edges=user_edges, item_edges=item_edges, rho=99)
    expected = dense_pseudo(train, similarity, user_edges, item_edges)
    np.testing.assert_allclose(edges.toarray(), expected, atol=1e-6)
    assert edges.nnz == (expected > 0).sum() > 0
    assert edges.multiply(train).nnz == 0
    assert edges.dtype == np.float32
    assert edges[:, 3].nnz == edges[7].nnz == 0  # an item without neighbours, a user without items


def test_one_block_equals_many(monkeypatch: pytest.MonkeyPatch) -> None:
    train, similarity = drawn(11)
    whole = pseudo_edges(train, similarity)
    for products in (1, 7, 100):
        monkeypatch.setattr(module, "_PRODUCTS", products)
        parts = pseudo_edges(train, similarity)
        assert (parts != whole).nnz == 0
    assert pseudo_edges(train, similarity).indices.tolist() == whole.indices.tolist()


@pytest.mark.parametrize("rho", [0, 0.1, 0.5, 1, 2])
def test_the_budget_keeps_the_largest(rho: float) -> None:
    train, similarity = drawn(2)
    everything = pseudo_edges(train, similarity, user_edges=9, rho=99)
    kept = pseudo_edges(train, similarity, user_edges=9, rho=rho)
    assert kept.nnz == min(int(rho * train.nnz), everything.nnz)
    np.testing.assert_array_equal(np.sort(kept.data), np.sort(everything.data)[everything.nnz - kept.nnz :])
    assert ((kept != 0) > (everything != 0)).nnz == 0


def test_no_user_and_no_item_takes_the_edges_of_all() -> None:
    """Twenty users of one item each, the same; ten more items equally alike to it, two an edge of each user."""
    train = sp.csr_matrix(np.eye(1, 11, dtype=np.float32).repeat(20, axis=0))
    similarity = sp.csr_matrix(np.outer(np.eye(11)[0], np.arange(11) > 0).astype(np.float32) / 10)
    by_row = pseudo_edges(train, similarity, user_edges=2, item_edges=0, rho=9)
    assert by_row.nnz == 40
    assert by_row.getnnz(axis=0)[1:].max() <= 8
    by_column = pseudo_edges(train, similarity, user_edges=0, item_edges=2, rho=9)
    assert by_column.getnnz(axis=0)[1:].tolist() == [2] * 10
    assert by_column.getnnz(axis=1).max() <= 2


def test_no_edges_asked_for_no_edges_given() -> None:
    for settings in ({"user_edges": 0, "item_edges": 0}, {"augment": "ii"}, {"rho": 0}):
        edges = pseudo_edges(TRAIN, SIMILARITY, **settings)
        assert edges.shape == TRAIN.shape
        assert edges.nnz == 0
        same = augmented_adjacency(TRAIN, edges, SIMILARITY, 0.5, "ui")
        assert (same != bipartite(TRAIN)).nnz == 0
        assert same.nnz == 2 * TRAIN.nnz
    assert pseudo_edges(sp.csr_matrix((3, 5)), SIMILARITY).nnz == 0
    assert pseudo_edges(TRAIN, sp.csr_matrix((5, 5))).nnz == 0


def test_augmented_adjacency_by_hand() -> None:
    train, pseudo = matrix([1, 0], [1, 1]), matrix([0, 0.5], [0, 0])
    similarity = matrix([7, 1], [0.5, 0])
    among_items = [[0, 0.375], [0.375, 0]]  # 0.5 (1 + 0.5) / 2; the self loop is none
    for augment, between, among in (
        ("ui", [[1, 0.25], [1, 1]], np.zeros((2, 2))),
        ("ii", [[1, 0], [1, 1]], among_items),
        ("both", [[1, 0.25], [1, 1]], among_items),
    ):
        graph = augmented_adjacency(train, pseudo, similarity, 0.5, augment)
        np.testing.assert_array_equal(graph[:2, 2:].toarray(), between)
        np.testing.assert_array_equal(graph[2:, 2:].toarray(), among)
        assert graph[:2, :2].nnz == 0
        assert (graph != graph.T).nnz == 0
        assert (augmented_adjacency(train, pseudo, similarity, 0, augment) != bipartite(train)).nnz == 0
    assert similarity[0, 0] == 7


def test_a_drawn_graph_is_symmetric_to_the_bit() -> None:
    train, similarity = drawn(4)
    graph = augmented_adjacency(train, pseudo_edges(train, similarity), similarity, 0.3, "both")
    assert (graph != graph.T).nnz == 0
    assert graph.dtype == np.float32


def test_bad_input() -> None:
    graph = matrix([0, 1], [1, 0])
    with pytest.raises(ConfigError, match=r"weights of item graphs.*expected 2 numbers"):
        mixed_similarity([graph, graph], [1])
    with pytest.raises(ConfigError, match="none negative"):
        mixed_similarity([graph], [-1])
    with pytest.raises(ConfigError, match="none negative"):
        mixed_similarity([graph], [float("nan")])
    for agree in (0, 2):
        with pytest.raises(ConfigError, match=rf"agree: got {agree}, expected 1 to 1"):
            mixed_similarity([graph], [1], agree)
    with pytest.raises(DataError, match=r"an item graph: got shape \(2, 3\)"):
        mixed_similarity([graph, sp.csr_matrix((2, 3))], [1, 1])
    with pytest.raises(DataError, match=r"item similarities: got shape \(2, 2\), expected \(5, 5\)"):
        pseudo_edges(TRAIN, graph)
    for name, value in (("user_edges", -1), ("item_edges", -1), ("tail", 1.1), ("rho", -0.1), ("rho", float("nan"))):
        with pytest.raises(ConfigError, match=f"{name}: got {value}"):
            pseudo_edges(TRAIN, SIMILARITY, **{name: value})
    with pytest.raises(ConfigError, match="weight of content-induced edges"):
        augmented_adjacency(graph, graph, graph, -1, "ui")
    with pytest.raises(DataError, match="content-induced edges"):
        augmented_adjacency(graph, TRAIN, graph, 1, "ui")
    with pytest.raises(DataError, match="content-induced similarities"):
        augmented_adjacency(graph, graph, SIMILARITY, 1, "ui")
