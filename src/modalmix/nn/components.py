"""Whitened principal components: content as an embedding table to start from."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_NEGLIGIBLE = 1e-6  # of the largest variance: directions below it are rounding, and whitening would blow them up


def whitening(
    known: Float[Tensor, "rows features"], dim: int
) -> tuple[Float[Tensor, " features"], Float[Tensor, "features found"]]:
    """m and A of (x - m) A: the first `dim` principal components, each with mean 0 and variance 1 over these rows.

    A = V diag(1 / sqrt(lambda)),  (lambda, V) the largest eigenpairs of the covariance, m the mean. Fewer columns where
    the rows span less. Each direction is signed so that its largest entry is positive. Both are float64.
    Raises ValueError when there is no row.
    """
    if len(known) == 0:
        raise ValueError("principal components need at least one row")
    tiny = torch.finfo(known.dtype).tiny
    known = known.double()
    mean = known.mean(dim=0)
    known = known - mean
    variance, directions = torch.linalg.eigh(known.T @ known / len(known))
    variance, directions = variance.flip(0)[:dim], directions.flip(1)[:, :dim]
    kept = variance > _NEGLIGIBLE * variance[0].clamp(min=tiny)
    variance, directions = variance[kept], directions[:, kept]
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    return mean, directions * largest.sign() / variance.sqrt()


def whitened_components(
    x: Float[Tensor, "rows features"], learn: Bool[Tensor, " rows"], dim: int
) -> Float[Tensor, "rows found"]:
    """The first `dim` principal components of all rows, whitened on the rows `learn`: (x - m) A of `whitening`.

    Raises ValueError when no row is to be learnt from.
    """
    mean, directions = whitening(x[learn], dim)
    return ((x.double() - mean) @ directions).to(x.dtype)
