"""Rows of embedding tables."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def zero_cold(
    table: Float[Tensor, "rows *dim"], warm: Bool[Tensor, " rows"], size: int | None = None
) -> Float[Tensor, "size *dim"]:
    """The table with untrained rows as zeros: those that are not warm, and those added below to make `size` rows.

    What a table holds for a user or item without a train event is its random initial value, which says nothing.
    """
    rows = table.new_zeros((len(table) if size is None else size, *table.shape[1:]))
    rows[: len(table)] = torch.where(warm.view(-1, *[1] * (table.ndim - 1)), table, 0.0)
    return rows
