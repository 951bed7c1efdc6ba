"""Losses: scalars to minimise, means over a batch."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from modalmix.nn.features import unit_rows
from modalmix.nn.softmax import full_softmax_loss


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


def info_nce(
    queries: Float[Tensor, "batch dim"], keys: Float[Tensor, "batch dim"], temperature: float
) -> Float[Tensor, ""]:
    """mean -log softmax(cos(q_k, .) / t)[k] over the rows: each query's own key against the keys of the whole batch.

    InfoNCE, van den Oord et al. 2018, one direction. Never holds all batch x batch cosines.
    """
    own = torch.arange(len(queries), device=queries.device)
    return full_softmax_loss(unit_rows(queries) / temperature, unit_rows(keys), own)
