"""Modality-swap contrast: two modality sequences of a user exchange elements; both results should mean the user.

CAMMSR (arXiv 2603.04320): elements at the same positions are exchanged between two modality sequences, the results are
complementary, go through the same encoder, and are contrasted by InfoNCE.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modalmix.nn.contrast import masked_cosines


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


def draw_share(real: Bool[Tensor, "batch length"], share: float) -> Bool[Tensor, "batch length"]:
    """floor(share n) of the n real positions of each row, drawn at random."""
    order = torch.rand(real.shape, device=real.device).masked_fill(~real, 2.0).argsort(dim=1)
    wanted = (share * real.sum(dim=1, keepdim=True).double() + 1e-9).floor()  # .3 x 10 is a little below 3
    return order.argsort(dim=1) < wanted


def swap_contrast(
    one: Float[Tensor, "batch dim"],
    other: Float[Tensor, "batch dim"],
    target: Int[Tensor, " batch"],
    temperature: float,
    user: Int[Tensor, " batch"] | None = None,
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE of cosines: row k of `one` should find row k of `other` among the batch, and the reverse.

    Rows with the same target as k are no negatives of k; nor are those of the same user, where users are given.
    """
    similarity = masked_cosines(one, other, target, temperature, user)
    own = torch.arange(len(one), device=one.device)
    entropy = torch.nn.functional.cross_entropy
    return (entropy(similarity, own) + entropy(similarity.T, own)) / 2
