"""What the id tables of items start from: random numbers, or the items' content."""

import warnings
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from modalmix.data.split import TrainData
from modalmix.models.contract.content import chosen_modalities
from modalmix.models.contract.settings import GradientConfig
from modalmix.nn.components import whitened_components
from modalmix.nn.features import column_statistics, standardise

Start = Literal["normal", "content"]


class InitialConfig(GradientConfig):
    """Settings of a model with an id table of items."""

    id_init: Start = "normal"
    """What the id table starts from: random numbers, or whitened principal components of the items' content."""
    init_modalities: tuple[str, ...] | None = None
    """Names of the modalities for id_init="content"; all of the catalogue's without it."""


def initial_items(
    data: TrainData, dim: int, std: float, start: Start = "normal", modalities: tuple[str, ...] | None = None
) -> Float[Tensor, "items dim"]:
    """A table of N(0, std^2), or started from content as `start_from_content` says. Raises ModelError as it does."""
    table = torch.randn(data.n_items, dim) * std
    if start == "content":
        start_from_content(table, data, modalities, std)
    return table


def start_items(table: Float[Tensor, "items dim"], data: TrainData, config: InitialConfig) -> None:
    """Start a table that holds a model's random numbers from content, where `id_init` asks for it.

    Its columns keep the standard deviation of what it holds. Raises ModelError as `start_from_content` does.
    """
    if config.id_init == "content":
        start_from_content(table, data, config.init_modalities, float(table.detach().square().mean().sqrt()))


@torch.no_grad()
def start_from_content(
    table: Float[Tensor, "items dim"], data: TrainData, modalities: tuple[str, ...] | None, std: float
) -> None:
    """Put the whitened principal components of the items' content into the columns of a random table.

    Components have standard deviation `std` over the warm items. Where content spans less than `dim` directions the
    other columns stay random; so does the row of an item without any content. Several modalities (all without names)
    stand side by side, columns standardised, each with total variance 1; an absent one is its mean.
    Raises ModelError for an unknown modality, and where there is none.
    """
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
        warnings.warn("no warm item has any content: the id table starts from random numbers", stacklevel=3)
    else:
        components = whitened_components(torch.cat(blocks, dim=1), warm & anything, table.shape[1])
        table[anything, : components.shape[1]] = std * components[anything]
