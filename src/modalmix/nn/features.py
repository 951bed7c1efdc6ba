"""Frozen content features: scale the columns, then the rows."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def column_statistics(x: Float[Tensor, "rows dim"]) -> tuple[Float[Tensor, " dim"], Float[Tensor, " dim"]]:
    """Mean and standard deviation of each column; the deviation of a constant column is 1, so that it becomes zeros.

    Raises ValueError when there is no row.
    """
    if len(x) == 0:
        raise ValueError("column statistics need at least one row")
    variance, mean = torch.var_mean(x, dim=0, correction=0)
    scale = variance.sqrt()
    # rounding leaves a constant column a tiny deviation, and dividing by it would blow noise up to 1
    constant = scale <= 1e-6 * mean.abs().clamp(min=torch.finfo(x.dtype).tiny)
    return mean, scale.masked_fill(constant, 1.0)


def standardise(
    x: Float[Tensor, "rows dim"], mean: Float[Tensor, " dim"], scale: Float[Tensor, " dim"]
) -> Float[Tensor, "rows dim"]:
    """Each column minus its mean, over its standard deviation."""
    return (x - mean).div_(scale)


def unit_rows(x: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows dim"]:
    """Each row over its Euclidean length; a row of zeros stays zeros."""
    return F.normalize(x, dim=1)
