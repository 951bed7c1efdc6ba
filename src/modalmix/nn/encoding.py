"""An item's vector out of its modalities, everything on the way to it, and the terms that keep the way balanced.

MAMEX (arXiv 2508.08042): h = sum_m pi_m h_m, pi = softmax of the fusion logits.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from modalmix.nn.balance import expert_balance, fusion_balance, load_balance
from modalmix.nn.experts import Mixture
from modalmix.nn.fusion import fuse
from modalmix.nn.gates import mask_absent


class Encoding(NamedTuple):
    """Item vectors and everything on the way to them."""

    vectors: Float[Tensor, "rows dim"]
    misalignment: Float[Tensor, ""]
    mixtures: list[Mixture]
    fusion_logits: Float[Tensor, "rows modalities"]
    weights: Float[Tensor, "rows modalities"]
    present: Bool[Tensor, "rows modalities"]


def fuse_modalities(
    parts: Float[Tensor, "rows modalities dim"],
    logits: Float[Tensor, "rows modalities"],
    mixtures: list[Mixture],
    present: Bool[Tensor, "rows modalities"],
    *,
    even: bool = False,
) -> Encoding:
    """The modality vectors weighed by the softmax of their logits; a row without any modality gets zeros.

    With `even` those that are present weigh the same, whatever the logits.
    """
    if even:
        logits = mask_absent(torch.zeros_like(logits), present)
    weights = logits.softmax(dim=1) * present.any(dim=1, keepdim=True)
    vectors, misalignment = fuse(parts, weights, present)
    return Encoding(vectors, misalignment, mixtures, logits, weights, present)


def auxiliary_terms(
    encoding: Encoding,
    modalities: Sequence[str],
    *,
    align: float,
    balance: float,
    load: float,
    fusion: float,
) -> dict[str, Tensor]:
    """ "align", "balance/<modality>", "load/<modality>" and "balance/fusion", weighted; those of weight 0 left out."""
    terms = {"align": align * encoding.misalignment} if align else {}
    for name, mixture, has in zip(modalities, encoding.mixtures, encoding.present.unbind(dim=1), strict=True):
        if balance:
            terms[f"balance/{name}"] = balance * expert_balance(mixture.logits, has)
        if load:
            terms[f"load/{name}"] = load * load_balance(mixture.logits, mixture.weights, has)
    if fusion:
        terms["balance/fusion"] = fusion * fusion_balance(encoding.fusion_logits, encoding.present)
    return terms
