"""Graphs against dense matrices and torch's own autograd; thinning against chances worked by hand."""

from itertools import permutations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from modalmix.errors import DataError
from modalmix.nn.graph import (
    Graph,
    bipartite,
    chance_co_occurrence,
    co_occurrence,
    row_normalize,
    symmetric_normalize,
    symmetrized,
    thin,
)


@pytest.fixture
def interactions() -> sp.csr_matrix:
    """5 users x 4 items; user 4 and item 3 have no edge."""
    return sp.csr_matrix(
        np.array([[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=np.float32)
    )


@pytest.fixture
def directed() -> sp.csr_matrix:
    return sp.random(6, 9, density=0.4, format="csr", dtype=np.float32, rng=np.random.default_rng(0))


def test_bipartite_blocks(interactions: sp.csr_matrix) -> None:
    adjacency = bipartite(interactions).toarray()
    np.testing.assert_array_equal(adjacency[:5, 5:], interactions.toarray())
    np.testing.assert_array_equal(adjacency[5:, :5], interactions.toarray().T)
    assert not adjacency[:5, :5].any()
    assert not adjacency[5:, 5:].any()


def test_symmetric_normalization_by_hand(interactions: sp.csr_matrix) -> None:
    normalized = symmetric_normalize(bipartite(interactions)).toarray()
    assert normalized[0, 5] == pytest.approx(1 / np.sqrt(2 * 2))  # user 0 has 2 items, item 0 has 2 users
    assert normalized[3, 6] == pytest.approx(1 / np.sqrt(1 * 3))  # user 3 has 1 item, item 1 has 3 users
    np.testing.assert_array_equal(normalized, normalized.T)


def test_isolated_nodes_have_empty_rows(interactions: sp.csr_matrix) -> None:
    normalized = symmetric_normalize(bipartite(interactions)).toarray()
    assert np.isfinite(normalized).all()
    assert not normalized[4].any()
    assert not normalized[8].any()


def test_negative_degree_is_an_error() -> None:
    for normalize in (symmetric_normalize, row_normalize):
        with pytest.raises(DataError, match="row sum -1"):
            normalize(sp.csr_matrix(np.array([[0.0, -1.0], [-1.0, 0.0]])))


def test_row_normalization_by_hand(directed: sp.csr_matrix) -> None:
    matrix = sp.csr_matrix(np.array([[1.0, 3.0, 0.0], [0.0, 0.0, 0.0]]))
    before = matrix.copy()
    normalized = row_normalize(matrix)
    np.testing.assert_array_equal(normalized.toarray(), [[0.25, 0.75, 0], [0, 0, 0]])
    assert normalized.dtype == np.float32
    assert (matrix != before).nnz == 0
    np.testing.assert_allclose(row_normalize(directed).sum(axis=1), 1, rtol=1e-6)


def test_directed_graphs_take_the_row_sums_on_both_sides() -> None:
    matrix = sp.csr_matrix(np.array([[0.0, 4.0], [1.0, 0.0]]))  # row sums 4 and 1: both entries over 2
    np.testing.assert_array_equal(symmetric_normalize(matrix).toarray(), [[0, 2], [0.5, 0]])


def test_rows_below_a_square_are_nobodys_neighbours() -> None:
    square = np.array([[0.0, 4.0], [1.0, 0.0]])
    longer = symmetric_normalize(sp.csr_matrix(np.vstack([square, [9.0, 0.0], [4.0, 5.0], [0.0, 0.0]]))).toarray()
    np.testing.assert_array_equal(longer[:2], symmetric_normalize(sp.csr_matrix(square)).toarray())
    # sums 9 and 9, over the roots 3 and those of the columns, 2 and 1
    np.testing.assert_allclose(longer[2:], [[9 / 6, 0], [4 / 6, 5 / 3], [0, 0]], rtol=1e-6)
    with pytest.raises(DataError, match=r"a graph: got shape \(1, 2\), expected at least as many rows as columns"):
        symmetric_normalize(sp.csr_matrix((1, 2)))


def test_propagation_and_its_gradient_equal_a_dense_product(directed: sp.csr_matrix) -> None:
    graph, dense = Graph(directed), torch.from_numpy(directed.toarray())
    assert not graph.symmetric
    x, upstream = torch.randn(9, 3, requires_grad=True), torch.randn(6, 3)
    y = graph(x)
    torch.testing.assert_close(y, dense @ x, atol=1e-6, rtol=1e-6)
    (gradient,) = torch.autograd.grad(y, x, upstream)
    torch.testing.assert_close(gradient, dense.T @ upstream, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("layers", [0, 1, 2, 4])
def test_mean_of_layers_equals_the_stack(interactions: sp.csr_matrix, layers: int) -> None:
    matrix = symmetric_normalize(bipartite(interactions))
    graph, dense = Graph(matrix), torch.from_numpy(matrix.toarray())
    assert graph.symmetric
    x, upstream = torch.randn(9, 5, requires_grad=True), torch.randn(9, 5)
    stack = [x]
    for _ in range(layers):
        stack.append(dense @ stack[-1])
    expected = torch.stack(stack).mean(dim=0)
    result = graph.mean_of_layers(x, layers)
    torch.testing.assert_close(result, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(
        torch.autograd.grad(result, x, upstream)[0],
        torch.autograd.grad(expected, x, upstream)[0],
        atol=1e-6,
        rtol=1e-6,
    )


def test_mean_of_layers_of_a_directed_graph_has_the_right_gradient() -> None:
    matrix = sp.random(7, 7, density=0.4, format="csr", dtype=np.float32, rng=np.random.default_rng(1))
    graph = Graph(matrix).double()
    x = torch.randn(7, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: graph.mean_of_layers(x, 2), x)
    assert torch.autograd.gradcheck(graph, x)


ASKED = [[3], [8, 2, 2, 0, 5, 8], [], list(range(9)) * 2]
"""One row; some twice, in no order, 4 and 8 without an edge; none; more than there are."""


@pytest.mark.parametrize("rows", ASKED)
@pytest.mark.parametrize("layers", [0, 1, 2, 3])
def test_rows_of_the_mean_of_layers_have_the_bits_of_the_whole(
    interactions: sp.csr_matrix, layers: int, rows: list[int]
) -> None:
    """Values and gradients: those of a table of 64 columns, as models have them, beside a use of the table itself."""
    graph, asked = Graph(symmetric_normalize(bipartite(interactions))), torch.tensor(rows, dtype=torch.long)
    x, upstream = torch.randn(9, 64, requires_grad=True), torch.randn(len(rows), 64)
    before = x.detach().clone()
    found, expected = graph.mean_of_layers(x, layers, asked), graph.mean_of_layers(x, layers).index_select(0, asked)
    assert torch.equal(found, expected)
    gradients = [torch.autograd.grad((one * upstream).sum() + x.sum(), x)[0] for one in (found, expected)]
    assert torch.equal(*gradients)
    assert torch.equal(x, before)


@pytest.mark.parametrize("rows", [[5], [4, 0, 4], [], [0, 1, 2, 3, 4, 5, 0]])
def test_rows_of_a_product_have_the_bits_of_the_whole(directed: sp.csr_matrix, rows: list[int]) -> None:
    graph, asked = Graph(directed), torch.tensor(rows, dtype=torch.long)
    x, upstream = torch.randn(9, 64, requires_grad=True), torch.randn(len(rows), 64)
    found, expected = graph.at(x, asked), graph(x).index_select(0, asked)
    assert torch.equal(found, expected)
    assert torch.equal(*(torch.autograd.grad(one, x, upstream)[0] for one in (found, expected)))


def test_a_part_is_no_larger_than_what_is_asked(directed: sp.csr_matrix) -> None:
    """Else there is no gain: the rows that are named, each once, and their edges alone."""
    graph = Graph(directed)
    part = graph.part(torch.tensor([4, 1, 4]))
    assert part.rows.tolist() == [1, 4]
    assert part.place.tolist() == [1, 0, 1]
    assert (part.graph.n_rows, part.graph.n_columns) == (2, 9)
    assert len(part.graph.weights) == directed[[1, 4]].nnz
    whole = graph.part(torch.arange(6))
    assert whole.graph is graph
    assert whole.rows is None


@pytest.mark.parametrize("rows", [[-1, 2], [2, 6], [-1, 0, 1, 2, 3, 4]])
def test_rows_that_are_not_there(directed: sp.csr_matrix, rows: list[int]) -> None:
    with pytest.raises(IndexError, match=rf"rows {rows[0]} to {rows[-1]} of a graph with 6"):
        Graph(directed).at(torch.ones(9, 2), torch.tensor(rows))


def test_the_gradient_of_rows_of_a_directed_graph() -> None:
    matrix = sp.random(7, 7, density=0.4, format="csr", dtype=np.float32, rng=np.random.default_rng(1))
    graph, rows = Graph(matrix).double(), torch.tensor([6, 0, 0])
    x = torch.randn(7, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: graph.mean_of_layers(x, 3, rows), x)
    assert torch.autograd.gradcheck(lambda x: graph.at(x, rows), x)


def test_propagation_changes_neither_input_nor_gradient(interactions: sp.csr_matrix) -> None:
    graph = Graph(symmetric_normalize(bipartite(interactions)))
    x, upstream = torch.randn(9, 2, requires_grad=True), torch.randn(9, 2)
    before, upstream_before = x.detach().clone(), upstream.clone()
    graph.mean_of_layers(x, 2).backward(upstream)
    torch.testing.assert_close(x.detach(), before, atol=0, rtol=0)
    torch.testing.assert_close(upstream, upstream_before, atol=0, rtol=0)


def test_a_view_and_a_graph_without_edges(directed: sp.csr_matrix) -> None:
    x = torch.randn(4, 9).T  # not contiguous
    torch.testing.assert_close(Graph(directed)(x), torch.from_numpy(directed.toarray()) @ x)
    assert not Graph(sp.csr_matrix((3, 3), dtype=np.float32))(torch.ones(3, 2)).any()


def test_graphs_are_not_saved_but_move(directed: sp.csr_matrix) -> None:
    graph = Graph(directed)
    assert not graph.state_dict()
    assert {buffer.dtype for buffer in graph.buffers()} == {torch.int32, torch.float32}
    assert graph.double().weights.dtype == torch.float64


def small_graph() -> sp.csr_matrix:
    return sp.csr_matrix(np.array([[1, 1], [0, 1]], dtype=np.float32))


@pytest.mark.parametrize(("dropout", "count"), [(0.6, 1), (0.3, 2)])
def test_edges_are_drawn_with_chances_as_one_over_the_root_of_degrees(dropout: float, count: int) -> None:
    chance = np.array([[2**-0.5, 0.5], [0, 2**-0.5]])  # degrees: user 0 and item 1 have two edges
    edges = [(0, 0), (0, 1), (1, 1)]
    expected = np.zeros((2, 2))
    for order in permutations(edges, count):  # drawn one after the other, without replacement
        probability, left = 1.0, chance.sum()
        for edge in order:
            probability *= chance[edge] / left
            left -= chance[edge]
        for edge in order:
            expected[edge] += probability
    rng, draws = np.random.default_rng(0), 4000
    found = sum((thin(small_graph(), dropout, rng).toarray() for _ in range(draws)), np.zeros((2, 2))) / draws
    assert np.abs(found - expected).max() < 4 * np.sqrt(0.25 / draws)
    assert abs(expected[0, 0] - expected[0, 1]) > 8 * np.sqrt(0.25 / draws), "chances that are equal show nothing"


@pytest.mark.parametrize(("dropout", "kept"), [(0.0, 3), (0.34, 2), (0.99, 1)])
def test_a_thinned_graph_holds_that_share_of_the_edges(dropout: float, kept: int) -> None:
    thinned = thin(small_graph(), dropout, np.random.default_rng(0))
    assert thinned.nnz == kept
    assert set(zip(*thinned.nonzero(), strict=True)) <= {(0, 0), (0, 1), (1, 1)}
    assert (thinned.data == 1).all()


def test_thinning_leaves_the_graph_whole_and_follows_from_the_generator(directed: sp.csr_matrix) -> None:
    before = directed.toarray()
    first, same, other = (thin(directed, 0.5, np.random.default_rng(seed)).toarray() for seed in (1, 1, 2))
    np.testing.assert_array_equal(directed.toarray(), before)
    np.testing.assert_array_equal(first, same)
    assert (first != other).any()


def test_who_lists_a_node_is_its_neighbour_too() -> None:
    listed = np.array([[1, 0.5, 0], [0.25, 0, 0], [0, 2, 0], [0, 0, 3]], dtype=np.float32)  # row 3 was added later
    found = symmetrized(sp.csr_matrix(listed))
    np.testing.assert_array_equal(found.toarray(), [[2, 0.75, 0], [0.75, 0, 2], [0, 2, 0], [0, 0, 6]])
    square = symmetrized(sp.csr_matrix(listed[:3]))
    np.testing.assert_array_equal(square.toarray(), found.toarray()[:3])


@pytest.fixture
def item_graph() -> sp.csr_matrix:
    """4 items: 0 -> 0 (itself), 1, 2; 1 -> 2; 3 -> 1. Weights must not matter."""
    return sp.csr_matrix(np.array([[9, 0.5, 2, 0], [0, 0, 7, 0], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=np.float32))


def test_co_occurrence_by_hand(interactions: sp.csr_matrix, item_graph: sp.csr_matrix) -> None:
    """Users of item 0: {0, 2}, of item 1: {0, 1, 3}, of item 2: {1}, of item 3: nobody."""
    edges = [1 / np.sqrt(2 * 3), 0.0, 1 / np.sqrt(3 * 1), 0.0]  # 0-1, 0-2, 1-2, 3-1
    assert co_occurrence(item_graph, interactions) == pytest.approx(sum(edges) / 4)


def test_rows_below_the_items_do_not_count(interactions: sp.csr_matrix, item_graph: sp.csr_matrix) -> None:
    longer = sp.vstack([item_graph, sp.csr_matrix(np.ones((2, 4), dtype=np.float32))], format="csr")
    assert co_occurrence(longer, interactions) == co_occurrence(item_graph, interactions)


def test_co_occurrence_of_twins_and_of_nothing(interactions: sp.csr_matrix) -> None:
    twins = sp.csr_matrix(np.array([[1, 1], [1, 1], [0, 0]], dtype=np.float32))
    assert co_occurrence(sp.csr_matrix(np.ones((2, 2))), twins) == pytest.approx(1.0)
    assert co_occurrence(sp.identity(4, format="csr"), interactions) == 0.0
    assert co_occurrence(sp.csr_matrix((4, 4)), interactions) == 0.0
    assert co_occurrence(sp.csr_matrix(np.ones((4, 4))), sp.csr_matrix((5, 4))) == 0.0


def test_chance_co_occurrence_by_hand(interactions: sp.csr_matrix) -> None:
    """Edges leave 0 and 2 and arrive at 1 and 3: of the pairs 01, 03, 21, 23 the second and the fourth met nobody."""
    graph = sp.csr_matrix((np.ones(3), ([0, 2, 1], [1, 3, 1])), shape=(4, 4))  # 1-1 is itself
    assert chance_co_occurrence(graph, interactions) == pytest.approx((1 / np.sqrt(2 * 3) + 1 / np.sqrt(3 * 1)) / 4)
    longer = sp.vstack([graph, sp.csr_matrix(np.ones((2, 4)))], format="csr")
    assert chance_co_occurrence(longer, interactions) == chance_co_occurrence(graph, interactions)
    for nothing in (sp.identity(4, format="csr"), sp.csr_matrix((4, 4))):
        assert chance_co_occurrence(nothing, interactions) == 0.0


def test_chance_co_occurrence_is_the_mean_over_edges_dealt_anew() -> None:
    rng = np.random.default_rng(0)
    met = (rng.random((60, 12)) < 0.2).astype(np.float32)
    met[:, 3] = 0
    graph = sp.random(12, 12, density=0.4, format="coo", rng=rng)
    found = chance_co_occurrence(graph.tocsr(), sp.csr_matrix(met))
    degree = np.maximum(met.sum(axis=0), 1)
    cosine = met.T @ met / np.sqrt(np.outer(degree, degree))
    kept = graph.row != graph.col
    row, column = np.repeat(graph.row[kept], kept.sum()), np.tile(graph.col[kept], kept.sum())
    apart = row != column
    assert found == pytest.approx(cosine[row[apart], column[apart]].mean(), rel=1e-5)


def test_co_occurrence_in_several_parts_is_the_dense_mean() -> None:
    """More edges than are taken at once."""
    rng = np.random.default_rng(0)
    met = (rng.random((50, 400)) < 0.1).astype(np.float32)
    graph = sp.random(400, 400, density=0.5, format="csr", dtype=np.float32, rng=rng)
    degree = np.maximum(met.sum(axis=0), 1)
    cosine = met.T @ met / np.sqrt(np.outer(degree, degree))
    edges = graph.toarray() > 0
    np.fill_diagonal(edges, False)
    assert edges.sum() > 65_536
    assert co_occurrence(graph, sp.csr_matrix(met)) == pytest.approx(cosine[edges].mean(), rel=1e-5)
