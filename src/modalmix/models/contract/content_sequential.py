"""What sequential models share whose item vectors are an id vector plus what maps make of content."""

from abc import abstractmethod
from typing import TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from modalmix.data.catalog import Catalog
from modalmix.data.split import TrainData
from modalmix.models.contract.content import ModalityFeatures, chosen_modalities, fill_without_content, read_content
from modalmix.models.contract.initial import Start, initial_items
from modalmix.models.contract.sequential import Items, SequentialRecommender, TransformerConfig
from modalmix.nn.packing import Packing
from modalmix.nn.positioned import PositionedTransformer


class SequenceContentConfig(TransformerConfig):
    """Settings of a sequential model that reads content."""

    id_init: Start = "content"
    """What the id table starts from: random numbers, or whitened principal components of the items' content."""
    epochs: int = Field(12, ge=1)
    """Most epochs: those over which the learning rate falls."""
    modalities: tuple[str, ...] | None = None
    """Names of the content modalities to use; all of the catalogue's without it."""
    standardize: bool = True
    """Whether each feature column is standardised (on warm items) before each row is scaled to length 1."""
    whiten: int = Field(0, ge=0)
    """Whitened principal components of each modality that are read, at most; 0: the features, rows of length 1."""


class ContentSequentialConfig(SequenceContentConfig):
    """Settings of a sequential model that sums id and content."""

    ids: bool = True
    """Whether items have an id vector beside their content."""


C = TypeVar("C", bound=ContentSequentialConfig)


def content_features(config: SequenceContentConfig, data: TrainData) -> list[ModalityFeatures]:
    """The features of each modality that is read. Raises ModelError for an unknown one, or one no warm item has."""
    return [
        ModalityFeatures(data.catalog.modality(name), data.warm, config.standardize, whiten=config.whiten)
        for name in chosen_modalities(config.modalities, data.catalog)
    ]


def content_vectors(
    features: nn.ModuleList, maps: nn.ModuleList, catalog: Catalog, known: Catalog
) -> tuple[list[Float[Tensor, "items dim"]], Bool[Tensor, "items modalities"]]:
    """f_m(x_i^m) of each modality, zeros where item i lacks it; and who has what. As `read_content` reads x."""
    content = read_content(features, catalog, known)
    said = [
        f(x).masked_fill(~there.unsqueeze(1), 0.0)
        for f, x, there in zip(maps, content.features, content.present.T, strict=True)
    ]
    return said, content.present


class ContentSequentialRecommender(SequentialRecommender[C]):
    """v_i = id_i + sum_m f_m(x_i^m) over the modalities that i has;  S = Transformer(v + p), s(u,i) = <S_n, v_i>.

    A model says what f_m is (`projection`). A modality that an item lacks adds nothing. With ids a cold or new item has
    the mean id vector of the warm ones; without, an item that has no content at all has the mean vector of the warm
    ones that have.
    """

    def __init__(self, config: C, data: TrainData) -> None:
        """Raises ModelError for an unknown modality, and for one that no warm item has."""
        super().__init__(config, data)
        self.modalities = chosen_modalities(config.modalities, data.catalog)
        self.table: nn.Parameter | None = None
        if config.ids:
            start = initial_items(data, config.dim, config.init_std, config.id_init, config.init_modalities)
            self.table = nn.Parameter(start)
        features = content_features(config, data)
        self.features = nn.ModuleList(features)
        self.projections = nn.ModuleList(self.projection(modality) for modality in features)
        self.encoder = PositionedTransformer(
            config.length,
            config.dim,
            config.layers,
            config.heads,
            config.hidden,
            config.dropout,
            config.attention_dropout,
        )

    @abstractmethod
    def projection(self, modality: ModalityFeatures) -> nn.Module:
        """f_m, of features [items, features] to [items, dim]. Called once a modality, by the constructor."""

    def items(self, catalog: Catalog) -> Items:
        """v, on both sides."""
        said, present = content_vectors(self.features, self.projections, catalog, self.train_catalog)
        vectors = torch.stack(said).sum(dim=0)
        if self.table is None:
            warm = F.pad(self.warm, (0, len(catalog) - self.n_items))
            vectors = fill_without_content(vectors, present.any(dim=1), warm)
        else:
            vectors = vectors + self.known(self.table, catalog)
        return Items(vectors, vectors)

    def states(self, history: Int[Tensor, "batch length"], items: Items) -> Float[Tensor, "batch length dim"]:
        """S; zeros at padding."""
        packing = Packing(history >= 0)
        return packing.unpack(self.encoder(items.inputs.index_select(0, packing.pack(history)), packing))
