"""Untrained rows are zeros."""

import pytest
import torch

from modalmix.nn.rows import round_up, zero_cold


def test_cold_and_added_rows_are_zeros() -> None:
    table, warm = torch.arange(1.0, 7.0).view(3, 2), torch.tensor([True, False, True])
    assert zero_cold(table, warm, 4).tolist() == [[1, 2], [0, 0], [5, 6], [0, 0]]
    assert zero_cold(table, warm).tolist() == [[1, 2], [0, 0], [5, 6]]
    assert zero_cold(table[:, 0], warm, 4).tolist() == [1, 0, 5, 0]


def test_the_table_is_not_changed() -> None:
    table = torch.ones(2, 2)
    zero_cold(table, torch.tensor([False, True]))
    assert table.sum() == 4


@pytest.mark.parametrize(("n", "rounded"), [(0, 0), (1, 128), (128, 128), (129, 256)])
def test_round_up_repeats_row_zero_to_a_multiple(n: int, rounded: int) -> None:
    rows = round_up(torch.arange(1, n + 1))
    assert rows.tolist() == [*range(1, n + 1), *[0] * (rounded - n)]
