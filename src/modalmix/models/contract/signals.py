"""Signals of users and items on graphs: what was met, in one view or two, and what is alike in each modality.

z^b, behaviour, is LightGCN over the user-item graph (view A), and over the same graph with content-induced edges
(view B), fused by a gate a node. z^m of an item is its id smoothed over the graph of items alike in modality m; of a
user the mean of their history, in training without the positive.
"""

from collections.abc import Iterable, Sequence
from typing import Literal, Self, TypeVar

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from modalmix.data.catalog import Catalog
from modalmix.data.split import TrainData
from modalmix.models.contract.graphs import ItemGraphConfig, ItemGraphRecommender, modality_weights
from modalmix.models.contract.pseudo import ContentEdgesConfig, content_edges
from modalmix.models.contract.query import Triples
from modalmix.nn.graph import Graph, bipartite, row_normalize, symmetric_normalize, symmetrized, thin
from modalmix.nn.linear import FeatureLinear
from modalmix.nn.pseudo import augmented_adjacency, mixed_similarity

BEHAVIOUR = "behaviour"


class SignalsConfig(ItemGraphConfig):
    """Settings of a model over these signals."""

    layers: int = Field(2, ge=0)
    """Steps over the user-item graph, in both views."""
    dropout: float = Field(0.8, ge=0, lt=1)
    """Share of the user-item edges left out in an epoch, more of those between popular items and busy users."""
    dual_view: bool = False
    """Whether the user-item graph is seen a second time, with content-induced edges."""
    edges: ContentEdgesConfig = ContentEdgesConfig()
    """The content-induced edges."""
    edge_weight: float = Field(0.5, ge=0)
    """Weight of content-induced edges beside the real ones."""
    graph_weights: dict[str, float] | None = None
    """Weight of each modality's item graph, by name; else how far neighbours have users in common beyond chance."""
    both_ways: bool = False
    """Whether the signals of content go both ways between an item and the neighbours it lists."""
    purify: bool = False
    """Whether an item's id is gated by its features before it goes over the item graph."""
    cue: Literal["leave-out", "full"] = "leave-out"
    """A user's mean over their history in training: without the positive, or with it."""

    @model_validator(mode="after")
    def _features_must_be_read(self) -> Self:
        if self.trainable_features and not self.purify:
            raise ValueError("trainable_features=True with purify=False: no feature is read; set purify=True")
        return self


S = TypeVar("S", bound=SignalsConfig)


class SignalsRecommender(ItemGraphRecommender[S]):
    """The two views of the user-item graph, the content signals, and a user's cue in training.

    `signals` are their names, behaviour first; `shares` [modalities] weigh the item graphs; `degree` [users + items]
    counts train events, `met_with` [users, modalities] those of items that have the modality; `untrained` are the nodes
    without any.
    """

    degree: Float[Tensor, " nodes"]
    shares: Float[Tensor, " modalities"]
    met_with: Float[Tensor, "users modalities"]
    untrained: Int[Tensor, " untrained"]

    def __init__(self, config: S, data: TrainData) -> None:
        super().__init__(config, data)
        self.signals = (BEHAVIOUR, *self.modalities)
        self.interactions = data.interactions.csr
        self.history = Graph(row_normalize(self.interactions))
        degree = torch.from_numpy(bipartite(self.interactions).getnnz(axis=1)).float()
        self.register_buffer("degree", degree, persistent=False)
        self.register_buffer("untrained", torch.nonzero(degree == 0).squeeze(1), persistent=False)
        graphs = self.item_graphs(data.catalog)
        weights = modality_weights(config.graph_weights, self.modalities, graphs, self.interactions)
        self.register_buffer("shares", torch.tensor(weights), persistent=False)
        self.similar = nn.ModuleList(self._smoothing(graph) for graph in graphs)
        self.register_buffer("met_with", self.met(self.content(data.catalog).present), persistent=False)
        self.added: tuple[sp.csr_matrix, sp.csr_matrix] | None = None
        if config.dual_view:  # P [users, items] and S [items, items]
            similarity = mixed_similarity(graphs, weights, config.edges.agree)
            self.added = content_edges(data, graphs, weights, config.edges), similarity
            self.fuse = nn.Linear(2 * config.dim, 1)
            nn.init.zeros_(self.fuse.weight)
            nn.init.constant_(self.fuse.bias, -0.85)
            self.fuse_degree = nn.Parameter(torch.tensor(-0.1))
        self.second = self.second_view(self.interactions)
        self.thinned: tuple[Graph, ...] | None = None
        if config.purify:
            linear = nn.Linear if config.trainable_features else FeatureLinear
            self.project = nn.ModuleList(linear(features, config.dim) for features in self.dims)
            self.gate = nn.ModuleList(nn.Linear(config.dim, config.dim) for _ in self.dims)

    # the two views

    @property
    def views(self) -> tuple[Graph, ...]:
        """View A, the user-item graph, and view B where there are two."""
        return (self.graph,) if self.second is None else (self.graph, self.second)

    def second_view(self, interactions: sp.csr_matrix) -> Graph | None:
        """View B: the user-item graph with content-induced edges of weight `edge_weight`."""
        if self.added is None:
            return None
        config = self.config
        adjacency = augmented_adjacency(interactions, *self.added, config.edge_weight, config.edges.augment)
        return Graph(symmetric_normalize(adjacency)).to(self.users.weight.device)

    def start_epoch(self, epoch: int) -> None:
        """Thin the graphs; which edges stay follows from the seed and the epoch."""
        if self.config.dropout:
            rng = np.random.default_rng([self.config.seed, epoch])
            kept = thin(self.interactions, self.config.dropout, rng)
            real = Graph(symmetric_normalize(bipartite(kept))).to(self.users.weight.device)
            second = self.second_view(kept)
            self.thinned = (real,) if second is None else (real, second)

    def behaviour(
        self, views: tuple[Graph, ...], rows: Int[Tensor, " asked"] | None = None
    ) -> list[Float[Tensor, "asked dim"]]:
        """Z^A, and Z^B where there are two views: LightGCN's vectors of the users, then the items, or of these rows.

        Without a train event a node has no id: it is zero in Z^A, and in Z^B what content-induced edges bring.
        """
        nodes = torch.cat([self.users.weight, self.items.weight])
        nodes.index_fill_(0, self.untrained, 0.0)
        return [view.mean_of_layers(nodes, self.config.layers, rows) for view in views]

    def fused(
        self, of_views: list[Float[Tensor, "nodes dim"]], degree: Float[Tensor, " nodes"]
    ) -> Float[Tensor, "nodes dim"]:
        """z^b = (1 - beta) Z^A + beta Z^B, beta = sigmoid(w_f [Z^A || Z^B] + c_f log(1 + degree) + b_f) a node."""
        if self.added is None:
            return of_views[0]
        real, added = of_views
        logit = self.fuse(torch.cat(of_views, dim=1)) + self.fuse_degree * degree.log1p().unsqueeze(1)
        return real + logit.sigmoid() * (added - real)

    # content

    def item_graphs(self, catalog: Catalog) -> list[sp.csr_matrix]:
        """The neighbour graph of each modality, weighted by cosine: [items of `catalog`, training items]."""
        return [self.item_graph(name, catalog) for name in self.modalities]

    def content_signals(
        self, catalog: Catalog
    ) -> tuple[Float[Tensor, "modalities items dim"], Bool[Tensor, "items modalities"]]:
        """z_i^m = S^m a^m, a_i^m = E_I[i] (purified: times sigmoid(W2 (W1 x_i^m))), 0 if cold, and which items have m.

        Zeros where an item lacks m: the graph of m has neither its row nor its column. Items added later are what their
        neighbours among the training items are.
        """
        content, n = self.content(catalog), self.n_items
        similar = list(self.similar)
        if catalog is not self.train_catalog:
            similar = [self._smoothing(graph).to(self.users.weight.device) for graph in self.item_graphs(catalog)]
        streams = []
        for k, graph in enumerate(similar):
            ids = self.items.weight
            if self.config.purify:
                ids = ids * self.gate[k](self.project[k](content.features[k][:n])).sigmoid()
            streams.append(graph(ids))
        return torch.stack(streams), content.present

    def _smoothing(self, graph: sp.csr_matrix) -> Graph:
        """S: a neighbour graph, each listing of weight 1, symmetrically normalised. An item without a train event is
        not heard: its random initial id would speak for its neighbours."""
        heard = sp.diags(self.warm_items.cpu().numpy().astype(np.float32))
        listed = sp.csr_matrix(graph != 0, dtype=np.float32)
        smoothing = symmetric_normalize(symmetrized(listed) if self.config.both_ways else listed) @ heard
        smoothing.eliminate_zeros()
        return Graph(smoothing)

    def mean_of_history(self, x: Float[Tensor, "modalities items dim"]) -> Float[Tensor, "modalities users dim"]:
        """The mean over the items a user met."""
        return torch.stack([self.history(one[: self.n_items]) for one in x])

    def met(self, present: Bool[Tensor, "items modalities"]) -> Float[Tensor, "users modalities"]:
        """How many of the items a user met have each modality."""
        share = self.history(present[: self.n_items].float())
        return (share * self.degree[: self.n_users, None]).round()

    def cue(
        self,
        z: Sequence[Float[Tensor, "items dim"]] | Float[Tensor, "modalities items dim"],
        present: Bool[Tensor, "items modalities"],
        batch: Triples,
    ) -> tuple[Float[Tensor, "modalities batch dim"], Bool[Tensor, "batch modalities"]]:
        """z_u^m of the batch's users in training, the positive left out, and where anything is left.

        `z` and `present` are of the training catalogue. (|N| mean - z_i) / (|N| - 1). The median user of
        a shop has four train items: with the positive among them the cue would contain the answer.
        """
        of_users, count = self.mean_of_batch(z, batch.user), self.met_with[batch.user]
        if self.config.cue == "full":
            return of_users, count > 0
        n = self.degree[batch.user].unsqueeze(1)
        left = count > present[batch.positive]  # counted: where nothing is left the difference is rounding, not 0
        rest = (n * of_users - rows_of(z, batch.positive)) / (n - 1).clamp(min=1.0)
        return rest * left.T.unsqueeze(2), left

    def mean_of_batch(
        self, z: Iterable[Float[Tensor, "items dim"]], users: Int[Tensor, " batch"]
    ) -> Float[Tensor, "modalities batch dim"]:
        """`mean_of_history` of these users."""
        part = self.history.part(users)
        return rows_of([part.graph(one) for one in z], part.place)


def rows_of(z: Iterable[Float[Tensor, "nodes dim"]], rows: Int[Tensor, " rows"]) -> Float[Tensor, "signals rows dim"]:
    """These rows of each signal. As lookups: their gradient is several times faster than that of an index."""
    return torch.stack([F.embedding(rows, one) for one in z])
