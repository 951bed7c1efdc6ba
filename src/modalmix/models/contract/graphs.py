"""Item graphs of models that propagate over what items look and sound like: cosine nearest neighbours, cached."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar, cast

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Int32, Int64
from pydantic import Field
from torch import Tensor, nn

from modalmix.data.catalog import Catalog
from modalmix.data.modality import Modality
from modalmix.data.split import TrainData
from modalmix.errors import ConfigError, nearest
from modalmix.files import cache_folder, cached_arrays, sha256_array, sha256_values
from modalmix.models.contract.content import Content, ModalityFeatures, chosen_modalities
from modalmix.models.contract.dot import DotScorer
from modalmix.models.contract.initial import InitialConfig, start_items
from modalmix.models.contract.query import Scorer
from modalmix.models.contract.recommender import GradientRecommender
from modalmix.nn.graph import Graph, bipartite, chance_co_occurrence, co_occurrence, symmetric_normalize
from modalmix.nn.neighbors import cosine_neighbors
from modalmix.nn.rows import zero_cold

_VERSION = 1  # of cosine_neighbors: an entry of another version is made again
Rows = Int32[np.ndarray, "items k"]
Cosines = Float32[np.ndarray, "items k"]


class ItemGraphConfig(InitialConfig):
    """Settings of a model over item graphs."""

    modalities: tuple[str, ...] | None = None
    """Names of the modalities to use; all of the catalogue's without it."""
    neighbors: int = Field(10, ge=1)
    """Nearest neighbours of an item in the graph of each modality, the item itself among them."""
    standardize: bool = False
    """Whether the features that the model reads have each column standardised (on warm items) before each row is scaled
    to length 1. Item graphs are of the features as they are."""
    given_graphs: bool = True
    """Whether the graph that comes with a data set (<modality>_knn10.npz) is used instead of one of the features."""
    trainable_features: bool = False
    """Whether the features are trained too, as some public codes do; slower by far."""
    lr_factor: float = Field(1.0, gt=0, le=1)
    """What becomes of the learning rate in 50 epochs, bit by bit; 1: it stays."""


def item_graph(
    catalog: Catalog, name: str, k: int, *, given: bool = True, training_items: int | None = None
) -> sp.csr_matrix:
    """Each item's k nearest in one modality, itself among them, weighted by cosine: [all items, training items].

    Items beyond the training ones (added later) have neighbours among these and are nobody's. An item without the
    modality has an empty row and column: it is isolated. With `given`, a graph that came with the data is taken as it
    is, as far as its items are present; its weights are those of its file. Where it lists nobody for an item added
    later, that item's neighbours are those of the features, their cosines scaled to the mean weight of the file.
    Raises ModelError for an unknown modality, ConfigError when k is more than there are training items, or than the
    given graph lists.
    """
    modality = catalog.modality(name)
    within = len(catalog) if training_items is None else training_items
    if k > within:
        raise ConfigError("neighbors", got=k, expected=f"at most the {within:,} items", fix="Lower it.")
    given = given and modality.neighbors is not None
    rows, weights = (_given if given else _of_features)(modality, k, within)
    new = within + np.flatnonzero((rows[within:] < 0).all(axis=1) & modality.present[within:])
    if len(new):
        rows[new], cosines = _of_new_items(modality, k, within, new)
        weights[new] = cosines * _scale(weights[:within][rows[:within] >= 0], cosines) if given else cosines
    return _matrix(rows, weights, within)


def modality_weights(
    given: Mapping[str, float] | None,
    modalities: tuple[str, ...],
    graphs: Sequence[sp.csr_matrix],
    interactions: sp.csr_matrix,
) -> list[float]:
    """The weight of each modality's item graph: the given ones, sum 1, or else how far each foretells behaviour.

    Without `given`: with c_m how often neighbours have users in common in training (`nn.graph.co_occurrence`), and
    e_m = max(0, c_m - chance) what of that is not chance, w_m = (e_m / sum_n e_n) (e_m / c_m). Weights sum to 1 where
    all co-occurrence of neighbours is theirs, and to 0 where content says nothing about who meets what.
    Raises ConfigError unless all modalities are named, and no other, with weights that are not negative and not all 0.
    """
    if given is None:
        found = [co_occurrence(graph, interactions) for graph in graphs]
        chance = [chance_co_occurrence(graph, interactions) for graph in graphs]
        beyond = [max(0.0, one - other) for one, other in zip(found, chance, strict=True)]
        return [e * e / (c * sum(beyond)) if e else 0.0 for e, c in zip(beyond, found, strict=True)]
    for name in given:
        if name not in modalities:
            raise ConfigError(f"graph_weights has no modality '{name}' to weigh", fix=nearest(name, modalities))
    for name in modalities:
        if name not in given:
            raise ConfigError(f"graph_weights has no weight for '{name}'", fix="Give one, 0 to leave its graph out.")
    weights = [given[name] for name in modalities]
    if min(weights) < 0 or sum(weights) == 0:
        raise ConfigError("graph_weights", got=dict(given), expected="no negative weight, and one above 0")
    return [weight / sum(weights) for weight in weights]


G = TypeVar("G", bound=ItemGraphConfig)


class ItemGraphRecommender(GradientRecommender[G]):
    """Id tables, the user-item graph, features and item graphs: what graph models with content start from.

    A model says how they become vectors (`vectors`) and what it minimises (`loss`). Score = <user, item>. For another
    catalogue than the training one (items added, content lost) `vectors` gets its features and item graphs.
    """

    def __init__(self, config: G, data: TrainData) -> None:
        super().__init__(config, data)
        self.modalities = chosen_modalities(config.modalities, data.catalog)
        self.train_catalog = data.catalog
        self.features = nn.ModuleList(
            ModalityFeatures(data.catalog.modality(name), data.warm, config.standardize, config.trainable_features)
            for name in self.modalities
        )
        self.dims = [data.catalog.modality(name).dim for name in self.modalities]
        self.users = nn.Embedding(self.n_users, config.dim)
        self.items = nn.Embedding(self.n_items, config.dim)
        nn.init.xavier_uniform_(self.users.weight)
        nn.init.xavier_uniform_(self.items.weight)
        start_items(self.items.weight, data, config)
        self.graph = Graph(symmetric_normalize(bipartite(data.interactions.csr)))
        self.warm_users: Tensor
        self.warm_items: Tensor
        self.register_buffer("warm_users", torch.from_numpy(data.interactions.user_degree > 0), persistent=False)
        self.register_buffer("warm_items", torch.from_numpy(data.warm), persistent=False)

    @abstractmethod
    def vectors(self, catalog: Catalog) -> tuple[Float[Tensor, "users dim"], Float[Tensor, "items dim"]]:
        """Final vectors of all users and all items of `catalog`; items beyond the training ones have no id vector."""

    def content(self, catalog: Catalog) -> Content:
        """Features and presence of a catalogue, absent rows zero; trained features where they are trained."""
        features = cast(Iterable[ModalityFeatures], self.features)
        if catalog is self.train_catalog:
            parts = [self._trained(modality) for modality in features]
        else:
            parts = [self._read(modality, catalog) for modality in features]
        x, present = zip(*parts, strict=True)
        return Content(x, torch.stack(present, dim=1))

    def _trained(self, modality: ModalityFeatures) -> tuple[Tensor, Tensor]:
        if not self.config.trainable_features:
            return modality.x, modality.present
        return modality.x.masked_fill(~modality.present.unsqueeze(1), 0.0), modality.present

    def _read(self, modality: ModalityFeatures, catalog: Catalog) -> tuple[Tensor, Tensor]:
        x, present = (part.to(modality.x.device) for part in modality.read(catalog.modality(modality.name)))
        if self.config.trainable_features:
            x = torch.cat([modality.x, x[self.n_items :].to(modality.x)]).masked_fill(~present.unsqueeze(1), 0.0)
        return x, present

    def item_graph(self, name: str, catalog: Catalog) -> sp.csr_matrix:
        """Each item's nearest in one modality, weighted by cosine: [items of `catalog`, training items]."""
        settings = self.config
        return item_graph(catalog, name, settings.neighbors, given=settings.given_graphs, training_items=self.n_items)

    def lr_scale(self, epoch: int) -> float:
        """lr_factor^((epoch - 1) / 50)."""
        return float(self.config.lr_factor ** ((epoch - 1) / 50))

    def id_vectors(self, catalog: Catalog) -> Float[Tensor, "items dim"]:
        """The item embeddings, zeros for items beyond the training ones."""
        return F.pad(self.items.weight, (0, 0, 0, len(catalog) - self.n_items))

    def scorer(self, catalog: Catalog) -> Scorer:
        """Inner products of the final vectors; a user without a train event scores zero."""
        self.check_extends(catalog)
        was_training = self.training
        self.eval()
        with torch.no_grad():
            users, items = self.vectors(catalog)
        self.train(was_training)
        return DotScorer(zero_cold(users, self.warm_users), items)


def _given(modality: Modality, k: int, within: int) -> tuple[Rows, Cosines]:
    graph = modality.neighbors
    assert graph is not None
    if k > graph.k:
        raise ConfigError(
            f"neighbors of '{modality.name}'",
            got=k,
            expected=f"at most {graph.k}, which the given graph lists",
            fix="Lower it, or set given_graphs=False to compute them from the features.",
        )
    rows = graph.rows[:, :k].copy()
    rows[~modality.present] = -1
    rows[rows >= within] = -1
    rows[~modality.present[rows]] = -1  # row -1 looks up the last item: it stays -1 either way
    return rows, graph.weights[:, :k].astype(np.float32)


def _of_features(modality: Modality, k: int, within: int) -> tuple[Rows, Cosines]:
    """Of the training items; rows of the others are empty."""
    rows, cosines = _cached(modality.matrix(slice(None, within)), modality.present[:within], k)
    below = (0, len(modality.present) - within), (0, 0)
    return np.pad(rows, below, constant_values=-1), np.pad(cosines, below)


def _of_new_items(modality: Modality, k: int, within: int, new: Int64[np.ndarray, " new"]) -> tuple[Rows, Cosines]:
    x, asked = torch.from_numpy(modality.matrix(slice(None, within))), torch.from_numpy(modality.matrix(new))
    rows, cosines = cosine_neighbors(x, torch.from_numpy(modality.present[:within]), k, queries=asked)
    return rows.numpy(), cosines.numpy()


def _scale(given: Float32[np.ndarray, " edges"], cosines: Cosines) -> float:
    """What brings the mean cosine of listed neighbours to the mean given weight; 1 where there are none."""
    listed = cosines[cosines > 0]
    return float(given.mean() / listed.mean()) if len(given) and len(listed) else 1.0


def _matrix(rows: Rows, weights: Cosines, within: int) -> sp.csr_matrix:
    """[items, within] from neighbour lists."""
    kept = rows >= 0
    place = np.nonzero(kept)[0]
    matrix = sp.csr_matrix((weights[kept], (place, rows[kept])), shape=(len(rows), within), dtype=np.float32)
    matrix.sort_indices()
    return matrix


def _cached(
    x: Float32[np.ndarray, "items features"], present: Bool[np.ndarray, " items"], k: int
) -> tuple[Rows, Cosines]:
    """Neighbours and cosines, from the cache where these features have been asked about before."""
    key = sha256_values(_VERSION, sha256_array(x), sha256_array(present), k)
    rows, cosines = cached_arrays(
        cache_folder() / "graphs" / f"knn-{key[:32]}.npz",
        ("rows", "cosines"),
        lambda: (one.numpy() for one in cosine_neighbors(torch.from_numpy(x), torch.from_numpy(present), k)),
    )
    return rows, cosines
