"""Graph filters by hand, and against dense products."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from modalmix.errors import DataError
from modalmix.nn import filters
from modalmix.nn.filters import ItemFilter, content_filter, entries, item_filter, mean_graph


def sparse(shape: tuple[int, int], density: float, seed: int) -> sp.csr_matrix:
    return sp.random(*shape, density=density, format="csr", dtype=np.float32, rng=np.random.default_rng(seed))


@pytest.fixture
def met() -> sp.csr_matrix:
    """40 users x 15 items; user 7 and item 4 have no event."""
    met = (np.random.default_rng(0).random((40, 15)) < 0.25).astype(np.float32)
    met[7], met[:, 4] = 0, 0
    return sp.csr_matrix(met)


def dense_filter(met: np.ndarray, a: float, b: float, c: float) -> np.ndarray:
    """The formula with loops."""
    users, items = met.sum(axis=1), met.sum(axis=0)
    result = np.zeros((met.shape[1], met.shape[1]))
    for j, i in np.ndindex(*result.shape):
        both = (met[:, j] > 0) & (met[:, i] > 0)
        if both.any():
            result[j, i] = (users[both] ** -b).sum() / (items[j] ** a * items[i] ** c)
    return result


def test_the_item_filter_by_hand() -> None:
    met = sp.csr_matrix(np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1]], dtype=np.float32))
    weights = item_filter(met, (1.0, 0.5, 2.0)).toarray()
    assert weights[0, 1] == pytest.approx((2**-0.5 + 3**-0.5) / (3 * 2**2))  # users 0 and 2 met both
    assert weights[1, 0] == pytest.approx((2**-0.5 + 3**-0.5) / (2 * 3**2))  # met: item 1, scored: item 0
    assert weights[2, 2] == pytest.approx(3**-0.5)


@pytest.mark.parametrize("exponents", [(0.35, 0.5, 0.15), (0.5, 1.0, 0.5), (0.0, 0.0, 0.0)])
def test_the_item_filter_equals_the_formula(met: sp.csr_matrix, exponents: tuple[float, float, float]) -> None:
    weights = item_filter(met, exponents)
    np.testing.assert_allclose(weights.toarray(), dense_filter(met.toarray(), *exponents), rtol=1e-5)
    assert weights.dtype == np.float32


def test_only_the_largest_entries_of_a_row_are_kept(met: sp.csr_matrix) -> None:
    whole, kept = (item_filter(met, (0.3, 0.5, 0.1), k).toarray() for k in (None, 3))
    for row, small in zip(whole, kept, strict=True):
        expected = np.sort(row)[-3:]
        np.testing.assert_array_equal(np.sort(small)[-3:], expected)
        assert np.count_nonzero(small) == np.count_nonzero(expected)
        assert ((small == row) | (small == 0)).all()


def test_blocks_change_nothing(met: sp.csr_matrix, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = item_filter(met, (0.3, 0.5, 0.1), 5)
    monkeypatch.setattr(filters, "_BLOCK", 4 * met.shape[1])  # four rows at a time
    np.testing.assert_array_equal(item_filter(met, (0.3, 0.5, 0.1), 5).toarray(), whole.toarray())


def test_the_mean_graph_by_hand() -> None:
    one, two = sp.csr_matrix([[1.0, 3.0], [0.0, 0.0]]), sp.csr_matrix([[0.5, 0.0], [0.2, 0.2]])
    mean = mean_graph([one, two], [0.25, 0.75], both_ways=False).toarray()
    np.testing.assert_allclose(mean, [[0.25 * 0.25 + 0.75, 0.25 * 0.75], [0.375, 0.375]])  # row 1 lacks the first graph
    mean = mean_graph([one, two], [0.25, 0.75]).toarray()  # N + Nᵀ: [[2, 3], [3, 0]] and [[1, .2], [.2, .4]]
    by_hand = [[0.25 * 0.4 + 0.75 / 1.2, 0.25 * 0.6 + 0.75 * 0.2 / 1.2], [0.25 + 0.75 / 3, 0.75 * 2 / 3]]
    np.testing.assert_allclose(mean, by_hand, rtol=1e-6)
    np.testing.assert_allclose(mean_graph([one, two], [0.125, 0.375]).toarray(), mean / 2)
    assert mean_graph([one, two], [0.0, 0.0]).shape == (2, 2)
    assert not mean_graph([one, two], [0.0, 0.0]).toarray().any()
    with pytest.raises(DataError, match="negative"):
        mean_graph([-one], [1.0])
    with pytest.raises(ValueError, match="shorter"):
        mean_graph([one, two], [1.0])


@pytest.mark.parametrize("hops", [(), (2.0,), (1.5, 0.5), (1.0, 0.5, 0.25)])
def test_the_content_filter_is_a_polynomial_in_the_graph(met: sp.csr_matrix, hops: tuple[float, ...]) -> None:
    weights, graph = item_filter(met, (0.35, 0.5, 0.15)), sparse((17, 15), 0.3, 1)  # two items were added
    dense, reach = graph.toarray(), np.eye(17, 15)
    for power, hop in enumerate(hops):
        reach = reach + hop * dense @ np.linalg.matrix_power(dense[:15], power)
    whole = content_filter(weights, graph, hops)
    np.testing.assert_allclose(whole.toarray(), reach @ weights.toarray(), rtol=1e-5, atol=1e-6)
    assert np.diff(content_filter(weights, graph, hops, 4).indptr).max() <= 4


@pytest.fixture
def scored(met: sp.csr_matrix) -> tuple[ItemFilter, np.ndarray]:
    weights = sparse((15, 15), 0.4, 2)
    return ItemFilter(met, weights), weights.toarray()


def test_rows_equal_the_dense_product(met: sp.csr_matrix, scored: tuple[ItemFilter, np.ndarray]) -> None:
    item_filter, dense = scored
    users = torch.tensor([5, 7, 5, 39])
    scores = item_filter.rows(users)
    assert scores.dtype == torch.float32
    np.testing.assert_allclose(scores.numpy(), met.toarray()[users] @ dense, rtol=1e-6)
    assert not scores[1].any()  # a user without an event


def test_pairs_equal_the_dense_product(met: sp.csr_matrix, scored: tuple[ItemFilter, np.ndarray]) -> None:
    item_filter, dense = scored
    users, items = (torch.from_numpy(rows.ravel()) for rows in np.indices((40, 15)))
    scores = item_filter.pairs(users, items)
    assert scores.dtype == torch.float32
    np.testing.assert_allclose(scores.numpy(), (met.toarray() @ dense).ravel(), rtol=1e-5)
    assert item_filter.pairs(torch.tensor([7]), torch.tensor([0])).tolist() == [0.0]
    assert item_filter.pairs(users[:0], items[:0]).shape == (0,)


def test_pairs_without_an_item_are_those_of_a_history_that_lacks_it(
    met: sp.csr_matrix, scored: tuple[ItemFilter, np.ndarray]
) -> None:
    item_filter, dense = scored
    user, left_out = met.nonzero()
    item = (left_out + 3) % 15
    expected = []
    for u, i, gone in zip(user, item, left_out, strict=True):
        history = met[u].toarray().ravel()
        history[gone] = 0.0
        expected.append(history @ dense[:, i])
    scores = item_filter.pairs(*(torch.from_numpy(rows.astype(np.int64)) for rows in (user, item, left_out)))
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-5, atol=1e-7)


def test_histories_and_a_filter_that_do_not_fit(met: sp.csr_matrix) -> None:
    with pytest.raises(ValueError, match="histories of 15 items, a filter of 14 rows"):
        ItemFilter(met, sparse((14, 14), 0.3, 0))


class TestEntries:
    """`entries` reads single entries of a sparse matrix."""

    @pytest.mark.parametrize("density", [0.0, 0.02, 0.3, 1.0])
    @pytest.mark.parametrize("shape", [(1, 1), (7, 40), (40, 7)])
    def test_are_those_of_the_dense_matrix(self, shape: tuple[int, int], density: float) -> None:
        matrix = sparse(shape, density, seed=3)
        rows, columns = (every.ravel() for every in np.indices(shape))
        found = entries(matrix, rows, columns)
        np.testing.assert_array_equal(found, matrix.toarray().ravel())
        assert found.dtype == matrix.dtype

    def test_the_order_of_a_row_and_repeated_entries_do_not_matter(self) -> None:
        """Stored as columns 3, 0, 3 of row 0 and column 1 of row 2; row 1 is empty."""
        data, columns, offsets = np.array([1.0, 2.0, 4.0, 8.0]), np.array([3, 0, 3, 1]), np.array([0, 3, 3, 4])
        matrix = sp.csr_matrix((data, columns, offsets), shape=(3, 4))
        found = entries(matrix, np.array([0, 0, 0, 1, 1, 2, 2]), np.array([0, 1, 3, 0, 3, 1, 3]))
        assert found.tolist() == [2, 0, 5, 0, 0, 8, 0]
        assert matrix.indices.tolist() == [3, 0, 3, 1], "somebody else's matrix is left as it is"

    @pytest.mark.parametrize(("row", "column", "wrong"), [(3, 0, "row 3"), (-1, 0, "row -1"), (0, 4, "column 4")])
    def test_what_is_not_there_is_refused(self, row: int, column: int, wrong: str) -> None:
        """An item beyond the filter would otherwise score 0, as if nobody had met it."""
        with pytest.raises(IndexError, match=wrong):
            entries(sparse((3, 4), 0.5, seed=0), np.array([0, row]), np.array([0, column]))

    def test_no_question_has_no_answer(self) -> None:
        nothing = np.zeros(0, dtype=np.int64)
        assert len(entries(sparse((5, 5), 0.5, seed=0), nothing, nothing)) == 0

    def test_a_filter_leaves_the_matrix_it_was_given(self) -> None:
        """Of another precision, the copy must not share the columns that it sorts."""
        given = sp.csr_matrix((np.array([1.0, 2.0]), np.array([1, 0]), np.array([0, 2, 2])), shape=(2, 2))
        scores = ItemFilter(sp.csr_matrix(np.eye(2)), given)
        users = torch.tensor([0, 0])
        assert scores.pairs(users, torch.tensor([0, 1])).tolist() == [2, 1]
        assert given.toarray().tolist() == [[2, 1], [0, 0]]
