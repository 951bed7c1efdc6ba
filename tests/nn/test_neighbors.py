"""Cosine neighbours against brute force, and where nearest is not a matter of course."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from modalmix.nn.neighbors import cosine_neighbors

ALL = torch.ones(50, dtype=torch.bool)


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation makes, gradients included."""

    numel = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        self.numel = max([self.numel, *(one.numel() for one in tree_leaves(made) if isinstance(one, Tensor))])
        return made


def drawn(seed: int = 0, items: int = 50, dim: int = 6) -> Tensor:
    return torch.randn(items, dim, generator=torch.Generator().manual_seed(seed))


def brute_force(x: Tensor, present: Tensor, k: int, queries: Tensor | None = None) -> list[list[tuple[int, float]]]:
    """Neighbours and cosines in float64, one pair at a time."""
    rows = x.double().numpy()
    lists = []
    for q, one in enumerate(rows if queries is None else queries.double().numpy()):
        near = []
        for i, other in enumerate(rows):
            length = np.linalg.norm(one) * np.linalg.norm(other)
            cosine = float(one @ other / length) if length > 0 and present[i] else 0.0
            if queries is None and not present[q]:
                cosine = 0.0
            if cosine > 0:
                near.append((i, cosine))
        near.sort(key=lambda pair: -pair[1])
        if queries is None:
            near.sort(key=lambda pair, q=q: pair[0] != q)
        lists.append(near[:k])
    return lists


def check(found: tuple[Tensor, Tensor], expected: list[list[tuple[int, float]]], k: int) -> None:
    rows, cosines = found
    assert rows.shape == cosines.shape == (len(expected), k)
    assert rows.dtype == torch.int32
    assert cosines.isfinite().all()
    for row, cosine, near in zip(rows.tolist(), cosines.tolist(), expected, strict=True):
        assert row == [i for i, _ in near] + [-1] * (k - len(near))
        np.testing.assert_allclose(cosine, [c for _, c in near] + [0.0] * (k - len(near)), atol=2e-6)


@pytest.mark.parametrize("k", [1, 2, 7, 49, 50, 51, 60])
def test_against_brute_force(k: int) -> None:
    x = drawn()
    check(cosine_neighbors(x, ALL, k), brute_force(x, ALL, k), k)


@pytest.mark.parametrize("k", [1, 7, 50, 60])
def test_queries_against_brute_force(k: int) -> None:
    x, queries, present = drawn(), drawn(1, 9), torch.rand(50) > 0.3
    queries[4] = 0
    found = cosine_neighbors(x, present, k, queries=queries)
    check(found, brute_force(x, present, k, queries), k)
    assert found[0][4].tolist() == [-1] * k
    assert found[1][4].tolist() == [0.0] * k


def test_a_query_that_equals_an_item_finds_it() -> None:
    x = drawn()
    rows, cosines = cosine_neighbors(x, ALL, 1, queries=3 * x[[8, 2]])
    assert rows.tolist() == [[8], [2]]
    assert cosines.tolist() == [[1.0], [1.0]]


def test_absent_and_zero_rows_have_no_neighbours_and_are_nobodys() -> None:
    x, present = drawn(), ALL.clone()
    present[[3, 30]] = False
    x[7] = 0
    rows, cosines = cosine_neighbors(x, present, 10)
    check((rows, cosines), brute_force(x, present, 10), 10)
    assert (rows[[3, 7, 30]] == -1).all()
    assert not torch.isin(rows, torch.tensor([3, 7, 30])).any()
    x[30] = torch.nan  # what an absent row holds does not matter
    again = cosine_neighbors(x, present, 10)
    assert torch.equal(again[0], rows)
    assert torch.equal(again[1], cosines)


def test_nothing_to_find() -> None:
    for x, present in ((drawn(), torch.zeros(50, dtype=torch.bool)), (torch.zeros(50, 3), ALL)):
        rows, cosines = cosine_neighbors(x, present, 4)
        assert (rows == -1).all()
        assert (cosines == 0).all()
    assert cosine_neighbors(torch.zeros(0, 3), ALL[:0], 4)[0].shape == (0, 4)
    assert cosine_neighbors(drawn(), ALL, 4, queries=torch.zeros(0, 6))[0].shape == (0, 4)


def test_a_negative_cosine_is_no_similarity() -> None:
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.1], [0.0, 1.0], [2.0, 0.0]])
    rows, cosines = cosine_neighbors(x, ALL[:4], 3)
    assert rows.tolist() == [[0, 3, -1], [1, 2, -1], [2, 1, -1], [3, 0, -1]]
    assert cosines[0].tolist() == [1, 1, 0]


@pytest.mark.parametrize("chunk", [1, 7, 64, 1024])
def test_in_a_block_of_equal_rows_nobody_is_everybodys_neighbour(chunk: int) -> None:
    """40 items of the same picture: each one lists itself and the next three, so each is listed four times."""
    x = drawn()
    x[5:45] = torch.tensor([0.3, -1.7, 2.2, 0.1, 0.9, -0.4])
    rows, cosines = cosine_neighbors(x, ALL, 4, chunk=chunk)
    block = torch.arange(40)
    expected = (block[:, None] + torch.arange(4)).remainder(40).add(5)
    assert torch.equal(rows[5:45].long().sort(dim=1).values, expected.sort(dim=1).values)
    assert (rows[5:45, 0] == block + 5).all()
    assert (cosines[5:45] == 1).all()
    assert (torch.bincount(rows[5:45].flatten().long(), minlength=50)[5:45] == 4).all()


@pytest.mark.parametrize("scaled", [False, True])
def test_one_constant_matrix(scaled: bool) -> None:
    x = torch.full((300, 7), 0.37)
    if scaled:
        x *= torch.rand(300, 1) + 0.5
    rows, _ = cosine_neighbors(x, torch.ones(300, dtype=torch.bool), 10)
    assert (rows[:, 0] == torch.arange(300)).all()
    assert torch.bincount(rows.flatten().long()).tolist() == [10] * 300


def test_queries_of_equal_content_are_dealt_around() -> None:
    x = torch.ones(30, 4)
    rows, _ = cosine_neighbors(x, ALL[:30], 3, queries=torch.ones(60, 4))
    assert torch.bincount(rows.flatten().long()).tolist() == [6] * 30


@pytest.mark.parametrize("chunk", [1, 3, 50, 999])
def test_the_chunk_changes_nothing(chunk: int) -> None:
    x, present = drawn(3), torch.rand(50, generator=torch.Generator().manual_seed(1)) > 0.2
    one, other = cosine_neighbors(x, present, 8), cosine_neighbors(x, present, 8, chunk=chunk)
    assert torch.equal(one[0], other[0])
    torch.testing.assert_close(one[1], other[1], atol=2e-6, rtol=0)
    queries = drawn(4, 20)
    one = cosine_neighbors(x, present, 8, queries=queries)
    assert torch.equal(one[0], cosine_neighbors(x, present, 8, queries=queries, chunk=chunk)[0])


@pytest.mark.parametrize("asked", [None, 600])
def test_memory_is_chunk_x_items(asked: int | None) -> None:
    """Half of the items are equal, so that ties are broken too."""
    x = drawn(items=600)
    x[300:] = 1.0
    with Largest() as largest:
        cosine_neighbors(x, x.any(dim=1), 5, queries=None if asked is None else drawn(1, asked), chunk=64)
    assert 600 < largest.numel <= 64 * 600


def test_inputs_are_left_alone_and_no_gradient_is_kept() -> None:
    x, present = drawn().requires_grad_(), ALL.clone()
    before = x.detach().clone()
    _, cosines = cosine_neighbors(x, present, 3)
    assert torch.equal(x.detach(), before)
    assert present.all()
    assert not cosines.requires_grad


def test_bad_k() -> None:
    with pytest.raises(ValueError, match="k is 0; expected at least 1"):
        cosine_neighbors(drawn(), ALL, 0)
