"""Modality-swap contrast: two modality sequences of a user exchange elements; both results should mean the user.

CAMMSR (arXiv 2603.04320): elements at the same positions are exchanged between two modality sequences, the results are
complementary, go through the same encoder, and are contrasted by InfoNCE.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modalmix.nn.features import unit_rows


def swap(
    one: Float[Tensor, "*positions dim"],
    other: Float[Tensor, "*positions dim"],
    chosen: Bool[Tensor, "*positions"],
) -> tuple[Float[Tensor, "*positions dim"], Float[Tensor, "*positions dim"]]:
    """Both sequences, the elements at the chosen positions exchanged; as they were where none is chosen."""
    exchanged = chosen.unsqueeze(-1)
    return torch.where(exchanged, other, one), torch.where(exchanged, one, other)


def draw_positions(
    real: Bool[Tensor, "*positions"], rho: float, generator: torch.Generator | None = None
) -> Bool[Tensor, "*positions"]:
    """r ~ Bernoulli(rho) on real positions, never on padding."""
    return (torch.rand(real.shape, device=real.device, generator=generator) < rho) & real


def swap_contrast(
    one: Float[Tensor, "batch dim"],
    other: Float[Tensor, "batch dim"],
    target: Int[Tensor, " batch"],
    temperature: float,
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE of cosines: row k of `one` should find row k of `other` among the batch, and the reverse.

    Rows with the same target as k are no negatives of k: masked with -inf after the similarity, so that they add
    nothing (0 before the exponential would add 1 each to the denominator).
    """
    similarity = unit_rows(one) @ unit_rows(other).T / temperature
    same = (target[:, None] == target[None, :]).fill_diagonal_(False)
    similarity = similarity.masked_fill(same, -torch.inf)
    own = torch.arange(len(one), device=one.device)
    entropy = torch.nn.functional.cross_entropy
    return (entropy(similarity, own) + entropy(similarity.T, own)) / 2
