"""What the id tables of items start from: random numbers, or the items' content."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from modalmix.data.split import TrainData
from modalmix.models.contract.content import chosen_modalities
from modalmix.nn.components import whitened_components
from modalmix.nn.features import column_statistics, standardise

Start = Literal["normal", "content"]


def initial_items(
    data: TrainData, dim: int, std: float, start: Start = "normal", modalities: tuple[str, ...] | None = None
) -> Float[Tensor, "items dim"]:
    """A table of N(0, std^2); with "content" its columns are the whitened principal components of the items' content.

    Components have standard deviation `std` over the warm items, as a random column has. Where content spans less than
    `dim` directions the other columns stay random; an item without any content has a random row. Several modalities
    (all without names) stand side by side, columns standardised, each with total variance 1; an absent one is its mean.
    Raises ModelError for an unknown modality, and where there is none.
    """
    table = torch.randn(data.n_items, dim) * std
    if start == "normal":
        return table
    warm = torch.from_numpy(data.warm)
    blocks, anything = [], torch.zeros(data.n_items, dtype=torch.bool)
    for name in chosen_modalities(modalities, data.catalog):
        modality = data.catalog.modality(name)
        x, present = torch.from_numpy(modality.matrix()), torch.from_numpy(modality.present.copy())
        if not bool((warm & present).any()):
            continue
        x = standardise(x, *column_statistics(x[warm & present])) / modality.dim**0.5
        blocks.append(x.masked_fill(~present.unsqueeze(1), 0.0))
        anything |= present
    if not blocks:
        return table
    components = whitened_components(torch.cat(blocks, dim=1), warm & anything, dim)
    table[anything, : components.shape[1]] = std * components[anything]
    return table
