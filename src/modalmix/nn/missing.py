"""Modalities that items lack, or that training hides."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_STEP = 0.1  # of the running mean


def drop_modalities(present: Bool[Tensor, "rows modalities"], p: float) -> Bool[Tensor, "rows modalities"]:
    """Hide each present modality with chance p, but never all of a row: the largest draw among them stays."""
    draw = torch.rand(present.shape, device=present.device).masked_fill(~present, -1.0)
    return present & ((draw >= p) | (draw == draw.amax(dim=1, keepdim=True)))


@torch.no_grad()
def follow_mean(
    typical: Float[Tensor, "modalities dim"],
    parts: Float[Tensor, "rows modalities dim"],
    has: Bool[Tensor, "rows modalities"],
) -> None:
    """Move `typical`, in place, a tenth of the way to the mean vector of the rows that have the modality.

    It stays where no row has it.
    """
    count = has.sum(dim=0).unsqueeze(1)
    mean = (parts * has.unsqueeze(2)).sum(dim=0) / count.clamp(min=1)
    typical.lerp_(torch.where(count > 0, mean, typical), _STEP)
