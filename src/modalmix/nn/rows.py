"""Rows of embedding tables."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

_MULTIPLE = 128


def zero_cold(
    table: Float[Tensor, "rows *dim"], warm: Bool[Tensor, " rows"], size: int | None = None
) -> Float[Tensor, "size *dim"]:
    """The table with untrained rows as zeros: those that are not warm, and those added below to make `size` rows.

    What a table holds for a user or item without a train event is its random initial value, which says nothing.
    """
    rows = table.new_zeros((len(table) if size is None else size, *table.shape[1:]))
    rows[: len(table)] = torch.where(warm.view(-1, *[1] * (table.ndim - 1)), table, 0.0)
    return rows


def round_up(rows: Int[Tensor, " rows"]) -> Int[Tensor, " rounded"]:
    """The rows, then row 0 repeated until their number is a multiple of 128. No rows stay no rows.

    oneDNN compiles and keeps a kernel for every new shape: with batches whose number of rows is never twice the same
    that takes a twentieth of a MAMEX epoch, and memory grows by 450 MB.
    """
    return F.pad(rows, (0, -len(rows) % _MULTIPLE))


def typical_cold(
    table: Float[Tensor, "rows dim"], warm: Bool[Tensor, " rows"], size: int | None = None
) -> Float[Tensor, "size dim"]:
    """The table with the mean of the warm rows in place of those that are not, and of those added to make `size` rows.

    For scores that are logits, whose level is learnt: zeros would put what is unknown above most of what is known.
    """
    size = len(table) if size is None else size
    if size == len(table) and bool(warm.all()):
        return table
    mean = table[warm].sum(dim=0) / max(1, int(warm.sum()))
    return torch.cat([torch.where(warm.unsqueeze(1), table, mean), mean.expand(size - len(table), -1)])
