"""Whitened principal components: content as an embedding table to start from."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_NEGLIGIBLE = 1e-6  # of the largest variance: directions below it are rounding, and whitening would blow them up


def whitened_components(
    x: Float[Tensor, "rows features"], learn: Bool[Tensor, " rows"], dim: int
) -> Float[Tensor, "rows found"]:
    """The first `dim` principal components of the rows, each with mean 0 and variance 1 over the rows `learn`.

    (x - m) V diag(1 / sqrt(lambda)),  (lambda, V) the largest eigenpairs of the covariance of x[learn], m its mean.
    Fewer columns where the rows span less. Each direction is signed so that its largest entry is positive.
    Raises ValueError when no row is to be learnt from.
    """
    if not learn.any():
        raise ValueError("principal components need at least one row")
    known = x[learn].double()
    mean = known.mean(dim=0)
    known = known - mean
    variance, directions = torch.linalg.eigh(known.T @ known / len(known))
    variance, directions = variance.flip(0)[:dim], directions.flip(1)[:, :dim]
    kept = variance > _NEGLIGIBLE * variance[0].clamp(min=torch.finfo(x.dtype).tiny)
    variance, directions = variance[kept], directions[:, kept]
    largest = directions.gather(0, directions.abs().argmax(dim=0, keepdim=True))
    return ((x.double() - mean) @ (directions * largest.sign() / variance.sqrt())).to(x.dtype)
