"""What models that know items by their content alone share: features, candidates, the ranking loss, the scorer."""

import warnings
from abc import abstractmethod
from collections.abc import Iterable
from typing import Literal, NamedTuple, TypeVar, cast, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from modalmix.data.catalog import Catalog
from modalmix.data.modality import Modality
from modalmix.data.split import TrainData
from modalmix.errors import ModelError
from modalmix.models.contract.dot import DotScorer
from modalmix.models.contract.query import Triples
from modalmix.models.contract.recommender import GradientRecommender
from modalmix.models.contract.settings import GradientConfig
from modalmix.nn.components import whitening
from modalmix.nn.features import column_statistics, standardise, unit_rows
from modalmix.nn.losses import bpr_loss, l2_penalty
from modalmix.nn.rows import zero_cold
from modalmix.nn.softmax import full_softmax_loss

_BLOCK = 1 << 16  # items a scorer encodes at once


class ContentConfig(GradientConfig):
    """Settings of a model whose item vectors come from content."""

    dim: int = Field(128, ge=1)
    """Length of user and item vectors."""
    modalities: tuple[str, ...] | None = None
    """Names of the modalities to use; all of the catalogue's without it."""
    standardize: bool = True
    """Whether each feature column is standardised (on warm items) before each row is scaled to length 1."""
    loss: Literal["bpr", "softmax"] = "softmax"
    """bpr: each positive against one drawn negative; softmax: against all candidate items."""
    negatives: Literal["warm", "all"] = "warm"
    """The candidates of the loss: items with a train interaction, or all items, held-out ones too."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay of Adam."""


class Content(NamedTuple):
    """Features of a catalogue, one matrix a modality, absent rows zero; and who has what."""

    features: tuple[Float[Tensor, "items features"], ...]
    present: Bool[Tensor, "items modalities"]


class Asked(NamedTuple):
    """Which items a batch needs (all without `rows`), and where among them its positives and negatives are."""

    rows: Int[Tensor, " rows"] | None
    positive: Int[Tensor, " batch"]
    negative: Int[Tensor, " batch"]


@final
class ModalityFeatures(nn.Module):
    """The features of one modality: columns standardised on warm items that have it, then rows of length 1.

    With `whiten` these are then z = (x - m) A / sqrt(k), their first k whitened principal components over the same
    items, of mean square length 1. What was learnt of warm items is saved with the model; the features are not, they
    are the catalogue's. Trainable ones are parameters that start there, and are saved.
    """

    mean: Float[Tensor, " features"] | None
    scale: Float[Tensor, " features"] | None
    centre: Float[Tensor, " features"] | None
    directions: Float[Tensor, "features width"] | None
    present: Bool[Tensor, " items"]

    def __init__(
        self,
        modality: Modality,
        warm: Bool[np.ndarray, " items"],
        standardize: bool,
        trainable: bool = False,
        whiten: int = 0,
    ) -> None:
        """`whiten`: components, at most; 0 leaves the features as they are.

        Raises ModelError when no warm item has the modality: nothing can be learnt from it.
        """
        super().__init__()
        self.name, self.dim, self.width = modality.name, modality.dim, modality.dim
        learnt_on = np.flatnonzero(warm & modality.present)
        if len(learnt_on) == 0:
            raise ModelError(
                f"no item with a train interaction has modality '{modality.name}'",
                fix="Leave it out: name the others in `modalities`.",
            )
        statistics = column_statistics(torch.from_numpy(modality.matrix(learnt_on))) if standardize else (None, None)
        self.register_buffer("mean", statistics[0])
        self.register_buffer("scale", statistics[1])
        self.register_buffer("centre", None)
        self.register_buffer("directions", None)
        x, present = self.read(modality)
        if whiten:
            centre, directions = whitening(x[learnt_on], whiten)
            self.width = directions.shape[1]
            if not self.width:
                alike = f"all {len(learnt_on):,} items with train interactions that have modality '{modality.name}'"
                warnings.warn(f"{alike} have the same features: nothing is read of it", stacklevel=2)
            self.centre, self.directions = centre.float(), (directions / max(1, self.width) ** 0.5).float()
            x = self.whitened(x, present)
        self.x: Tensor
        if trainable:
            self.x = nn.Parameter(x)
        else:
            self.register_buffer("x", x, persistent=False)
        self.register_buffer("present", present, persistent=False)

    def read(self, modality: Modality) -> tuple[Float[Tensor, "items width"], Bool[Tensor, " items"]]:
        """Features and presence of a catalogue's modality. Raises ModelError when its dim is another."""
        if modality.dim != self.dim:
            raise ModelError(f"features of '{self.name}'", got=f"dim {modality.dim}", expected=f"dim {self.dim}")
        x, present = torch.from_numpy(modality.matrix()), torch.from_numpy(np.array(modality.present))
        if self.mean is not None and self.scale is not None:
            x, present = x.to(self.mean.device), present.to(self.mean.device)
            x = standardise(x, self.mean, self.scale).masked_fill_(~present.unsqueeze(1), 0.0)
        return self.whitened(unit_rows(x), present), present

    def whitened(
        self, x: Float[Tensor, "items features"], present: Bool[Tensor, " items"]
    ) -> Float[Tensor, "items width"]:
        """z, zeros where the modality is absent; x itself without `whiten`."""
        if self.centre is None or self.directions is None:
            return x
        x, present = x.to(self.centre.device), present.to(self.centre.device)
        return ((x - self.centre) @ self.directions).masked_fill_(~present.unsqueeze(1), 0.0)


C = TypeVar("C", bound=ContentConfig)


class ContentRecommender(GradientRecommender[C]):
    """User embeddings against item vectors made of content: warm and cold items take the same path. Score = <e_u, h_i>.

    A model says how content becomes vectors (`item_vectors`) and what else it minimises (`loss`).
    """

    def __init__(self, config: C, data: TrainData) -> None:
        super().__init__(config, data)
        self.modalities = chosen_modalities(config.modalities, data.catalog)
        self.train_catalog = data.catalog
        self.features = nn.ModuleList(
            ModalityFeatures(data.catalog.modality(name), data.warm, config.standardize) for name in self.modalities
        )
        self.dims = [data.catalog.modality(name).dim for name in self.modalities]
        self.users = nn.Embedding(data.n_users, config.dim)
        nn.init.normal_(self.users.weight, std=0.1)
        self.warm: Tensor
        self.candidates: Tensor
        self.register_buffer("warm", torch.from_numpy(data.warm), persistent=False)
        self.warm_users: Tensor
        self.register_buffer("warm_users", torch.from_numpy(data.interactions.user_degree > 0), persistent=False)
        candidates = torch.from_numpy(np.flatnonzero(self.negative_pool(data)))
        self.register_buffer("candidates", candidates, persistent=False)

    @abstractmethod
    def item_vectors(
        self, content: Content, rows: Int[Tensor, " rows"] | None
    ) -> tuple[Float[Tensor, "rows dim"], Bool[Tensor, " rows"]]:
        """Vectors of content[rows] (all without `rows`), and which of them have any content."""

    def negative_pool(self, data: TrainData) -> Bool[np.ndarray, " items"]:
        """The candidates of the loss: warm items, or all of them with `negatives="all"`."""
        return data.warm if self.config.negatives == "warm" else np.ones(data.n_items, dtype=bool)

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam over all parameters, fused, with weight decay."""
        settings = self.config
        return torch.optim.Adam(self.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)

    @property
    def train_content(self) -> Content:
        """The training catalogue, read once."""
        return self.read(self.train_catalog)

    def read(self, catalog: Catalog) -> Content:
        """The features of a catalogue as this model was trained on them."""
        return read_content(self.features, catalog, self.train_catalog)

    def asked(self, batch: Triples, *, all_items: bool = False) -> Asked:
        """The items that the loss of a batch needs: each once, however often the batch names it."""
        if all_items:
            return Asked(None, batch.positive, batch.negative)
        if self.config.loss == "softmax":
            return Asked(self.candidates, torch.searchsorted(self.candidates, batch.positive), batch.negative)
        rows, places = torch.cat([batch.positive, batch.negative]).unique(return_inverse=True)
        return Asked(rows, places[: len(batch.positive)], places[len(batch.positive) :])

    def ranking_terms(
        self, batch: Triples, asked: Asked, vectors: Float[Tensor, "rows dim"], has_content: Bool[Tensor, " rows"]
    ) -> dict[str, Tensor]:
        """The ranking loss and the L2 penalty of a batch, from the vectors of the items it asked for."""
        warm = self.warm if asked.rows is None else self.warm[asked.rows]
        vectors = fill_without_content(vectors, has_content, warm)
        user, positive = self.users(batch.user), vectors.index_select(0, asked.positive)
        if self.config.loss == "softmax":
            candidates, place = vectors, asked.positive
            if asked.rows is None and len(self.candidates) < self.n_items:
                candidates = vectors.index_select(0, self.candidates)
                place = torch.searchsorted(self.candidates, asked.positive)
            terms = {"softmax": full_softmax_loss(user, candidates, place)}
            penalised = [user, positive]
        else:
            negative = vectors.index_select(0, asked.negative)
            terms = {"bpr": bpr_loss((user * positive).sum(dim=1), (user * negative).sum(dim=1))}
            penalised = [user, positive, negative]
        return terms | {"reg": self.config.reg * l2_penalty(*penalised)}

    def scorer(self, catalog: Catalog) -> DotScorer:
        """Inner products with the vectors of the catalogue's items; `without_content` says who has nothing to go by."""
        self.check_extends(catalog)
        with self.frozen():
            vectors, has_content = self.catalog_vectors(catalog)
            users = zero_cold(self.users.weight, self.warm_users)
        return DotScorer(users, vectors, without_content=~has_content)

    def catalog_vectors(self, catalog: Catalog) -> tuple[Float[Tensor, "items dim"], Bool[Tensor, " items"]]:
        """Vectors of all items of a catalogue, the typical warm one for those without content; and who has any."""
        content = self.read(catalog)
        blocks = torch.arange(len(catalog), device=self.warm.device).split(_BLOCK)
        encoded = [self.item_vectors(content, rows if len(blocks) > 1 else None) for rows in blocks]
        vectors, has_content = (torch.cat(parts) for parts in zip(*encoded, strict=True))
        warm = torch.nn.functional.pad(self.warm, (0, len(catalog) - self.n_items))
        return fill_without_content(vectors, has_content, warm), content.present.any(dim=1)


def read_content(features: nn.ModuleList, catalog: Catalog, known: Catalog) -> Content:
    """The features of a catalogue as the `ModalityFeatures` of a model read them; `known` is the one they hold."""
    each = cast(Iterable[ModalityFeatures], features)
    read = ((one.x, one.present) if catalog is known else one.read(catalog.modality(one.name)) for one in each)
    x, present = zip(*read, strict=True)
    return Content(x, torch.stack(present, dim=1))


def chosen_modalities(names: tuple[str, ...] | None, catalog: Catalog) -> tuple[str, ...]:
    """The modalities a model reads: the named ones, or with None all of the catalogue's.

    Raises ModelError for an unknown name (with the nearest), one that is named twice, or when there is none.
    """
    if names == ():
        raise ModelError("modalities", got="an empty list", expected="one name at least", fix="Leave it out for all.")
    chosen = tuple(catalog.modalities) if names is None else names
    if not chosen:
        raise ModelError("the catalogue has no modality", fix="Encode its pictures or texts first.")
    for place, name in enumerate(chosen):
        catalog.modality(name)
        if name in chosen[:place]:
            raise ModelError(f"modality '{name}' is named twice", expected="each name once")
    return chosen


def fill_without_content(
    vectors: Float[Tensor, "rows dim"], has_content: Bool[Tensor, " rows"], warm: Bool[Tensor, " rows"]
) -> Float[Tensor, "rows dim"]:
    """Give rows without any content the mean vector of the warm rows with content (zeros where there is none)."""
    if bool(has_content.all()):
        return vectors
    typical = vectors[warm & has_content]
    mean = typical.sum(dim=0) / max(1, len(typical))
    return torch.where(has_content.unsqueeze(1), vectors, mean)
