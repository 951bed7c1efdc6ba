"""Losses: scalars to minimise, means over a batch."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def bpr_loss(positive: Float[Tensor, " batch"], negative: Float[Tensor, " batch"]) -> Float[Tensor, ""]:
    """mean -log sigmoid(s(u,i) - s(u,j)) = mean softplus(s(u,j) - s(u,i)) over triples.

    Rendle et al. 2009, "BPR: Bayesian personalized ranking from implicit feedback", BPR-Opt.
    """
    return F.softplus(negative - positive).mean()


def l2_penalty(*vectors: Float[Tensor, "batch dim"]) -> Float[Tensor, ""]:
    """mean over the batch of |v_1|^2 + |v_2|^2 + ...: the L2 penalty on the vectors that the batch used.

    Without the factor 1/2 that some papers write: their weight is twice ours.
    """
    return sum(vector.square().sum() for vector in vectors) / len(vectors[0])  # type: ignore[return-value]
