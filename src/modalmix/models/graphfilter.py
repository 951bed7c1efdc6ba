"""Graph filter: what users of alike items also met; sparse products, no training.

K = D_i^-a Rᵀ D_u^-b R D_i^-c,   S = sum over modalities m of w_m rownorm(N_m + N_mᵀ),   W = (I + h_1 S + h_2 S²) K
s(u,i) = sum over j in history(u) of W_ji;   an item without a train event: the mean score of its neighbours in S

N_m: each item's cosine nearest neighbours in modality m. The linear graph filter R K is Shen et al., "How powerful is
graph convolution for recommendation?", CIKM 2021 (a = c = .5, b = 1); smoothing the user's history over content, and
a filter that keeps popularity, are ours. A history is scored exactly like a known user.
Expected here: validation Recall@20 of amazon-baby .1006 (train items masked).
"""

from typing import ClassVar, final

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float32, Float64, Int32, Int64
from pydantic import Field
from torch import Tensor

from modalmix.data.catalog import Catalog
from modalmix.data.split import TrainData
from modalmix.models.contract import ClosedFormRecommender, ModelConfig, Query, item_graph
from modalmix.models.contract.content import chosen_modalities
from modalmix.models.contract.graphs import modality_weights
from modalmix.models.contract.histories import history_rows
from modalmix.nn.filters import ItemFilter, content_filter, item_filter, mean_graph
from modalmix.nn.graph import row_normalize


class GraphFilterConfig(ModelConfig):
    """Settings of the graph filter."""

    modalities: tuple[str, ...] | None = None
    """Names of the modalities to use; all of the catalogue's without it. An empty tuple: no content, R K alone."""
    graph_weights: dict[str, float] | None = None
    """Weight of each modality's graph, by name; else how far neighbours have users in common beyond chance."""
    exponents: tuple[float, float, float] = (0.35, 0.5, 0.15)
    """Powers of the degrees in the item filter: of the item met (a), of the users (b), of the item scored (c)."""
    hops: tuple[float, ...] = (1.5, 0.5)
    """Weights of one step over the content graph, of two steps, and so on; the history itself has weight 1."""
    neighbors: int = Field(10, ge=1)
    """Nearest neighbours of an item in the graph of each modality, the item itself among them."""
    given_graphs: bool = True
    """Whether the graph that comes with a data set (<modality>_knn10.npz) is used instead of one of the features."""
    both_ways: bool = True
    """Whether an item's neighbours are those that list it too, beside those it lists: alike is alike both ways."""
    entries: int = Field(1000, ge=1)
    """Largest entries kept in each row of the item filter, before and after the content: memory is items x entries."""

    presets: ClassVar = {"no-content": {"modalities": (), "exponents": (0.3, 0.5, 0.1)}}
    ablations: ClassVar = {
        "no-content": {"modalities": ()},
        "one-hop": {"hops": (2.0,)},
        "listed": {"both_ways": False},
    }


@final
class GraphFilter(ClosedFormRecommender[GraphFilterConfig]):
    """The item filter K as CSR arrays. Content enters when a catalogue is scored: it may have lost or gained some."""

    offsets: Int64[Tensor, " items_plus_one"]
    neighbors: Int32[Tensor, " entries"]
    weights: Float32[Tensor, " entries"]
    shares: Float64[Tensor, " modalities"]

    def __init__(self, config: GraphFilterConfig, data: TrainData) -> None:
        """Raises ModelError for an unknown modality or none at all."""
        super().__init__(config, data)
        self.modalities = () if config.modalities == () else chosen_modalities(config.modalities, data.catalog)
        self.histories, self.warm = data.interactions.csr, data.warm

    def fit(self, data: TrainData) -> None:
        """One sparse product of the interactions with themselves. Raises ConfigError for weights that name others."""
        if self.modalities:
            graphs, given = self.item_graphs(data.catalog), self.config.graph_weights
            shares = modality_weights(given, self.modalities, graphs, data.interactions.csr)
            self.register_buffer("shares", torch.tensor(shares, dtype=torch.float64))
        weights = item_filter(data.interactions.csr, self.config.exponents, self.config.entries)
        self.register_buffer("offsets", torch.from_numpy(weights.indptr.astype(np.int64)))
        self.register_buffer("neighbors", torch.from_numpy(weights.indices.astype(np.int32)))
        self.register_buffer("weights", torch.from_numpy(weights.data))

    def scorer(self, catalog: Catalog) -> "GraphFilterScorer":
        """Fold the content of the catalogue into the filter. Raises ModelError when a modality is missing."""
        self.check_extends(catalog)
        arrays = [array.cpu().numpy() for array in (self.weights, self.neighbors, self.offsets)]
        weights = sp.csr_matrix(tuple(arrays), shape=(self.n_items, self.n_items))
        graph = self.content_graph(catalog)
        whole = content_filter(weights, graph, self.config.hops, self.config.entries)
        histories = self.histories.copy()
        histories.resize(self.n_users, len(catalog))  # nobody has met what was added
        cold = ~np.pad(self.warm, (0, len(catalog) - self.n_items))
        from_warm = row_normalize((graph[cold] @ sp.diags(self.warm.astype(np.float32))).tocsr())
        return GraphFilterScorer(ItemFilter(histories, whole), cold, from_warm)

    def content_graph(self, catalog: Catalog) -> sp.csr_matrix:
        """S [items of `catalog`, training items]; empty without modalities."""
        if not self.modalities:
            return sp.csr_matrix((len(catalog), self.n_items), dtype=np.float32)
        return mean_graph(self.item_graphs(catalog), self.shares.tolist(), self.config.both_ways)

    def item_graphs(self, catalog: Catalog) -> list[sp.csr_matrix]:
        """N_m of each modality."""
        k, given = self.config.neighbors, self.config.given_graphs
        return [item_graph(catalog, one, k, given=given, training_items=self.n_items) for one in self.modalities]


@final
class GraphFilterScorer:
    """The filter over one catalogue; what has no train event takes the mean score of its warm neighbours."""

    def __init__(self, weights: ItemFilter, cold: Bool[np.ndarray, " items"], from_warm: sp.csr_matrix) -> None:
        """`from_warm` [cold items, training items]: rows sum to 1, or 0 for an item without such a neighbour."""
        self.filter, self._parts = weights, (cold, from_warm)
        self.cold = torch.from_numpy(np.flatnonzero(cold))
        self.near_cold = np.unique(from_warm.indices)  # often few of all items
        self.from_warm = from_warm[:, self.near_cold]

    def __len__(self) -> int:
        return int(self.filter.weights.shape[0])

    def following(self, met: sp.csr_matrix) -> "GraphFilterScorer":
        """This scorer where users have met this: [users, training items]."""
        met = met.copy()
        met.resize(met.shape[0], len(self))
        return GraphFilterScorer(ItemFilter(met, self.filter.weights), *self._parts)

    def __call__(self, query: Query) -> Float[Tensor, "batch items"]:
        """Scores of all items. Raises QueryError for an empty history."""
        scores = self.filter.of(history_rows(query, self.filter.histories, len(self)))
        known = scores.numpy()[:, self.near_cold]
        added = len(self) - scores.shape[1]
        if added:
            scores = F.pad(scores, (0, added))
        if len(self.cold):
            scores[:, self.cold] = torch.from_numpy((self.from_warm @ known.T).T)
        return scores
