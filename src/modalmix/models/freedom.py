"""FREEDOM: LightGCN on a thinned user-item graph, plus a frozen graph of similar items (Zhou & Shen 2023).

S = sum over modalities m of w_m D_m^-1/2 S_m D_m^-1/2,  S_m: each item's k nearest by cosine, edges of 1; never trained
e_u, e_i = mean of layers 0..L over D^-1/2 A D^-1/2,  s(u,i) = <e_u, e_i + (S^K E_I)_i>
L = BPR(s) + lambda sum over m of BPR(<e_u, W_m x_i^m + b_m>)

In training A is thinned anew each epoch: a share `dropout` of the edges is left out, those between nodes of high degree
most, and the rest is normalised by the degrees it leaves. Scores use the whole of A.
Expected here: amazon-baby, given graphs, Recall@20 on validation (train items left out): .0959 after 105 epochs.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, cast, final

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from modalmix.data.catalog import Catalog
from modalmix.data.split import TrainData
from modalmix.models.contract import ItemGraphConfig, ItemGraphRecommender, Triples
from modalmix.models.contract.content import ModalityFeatures
from modalmix.models.contract.graphs import modality_weights
from modalmix.nn.graph import Graph, bipartite, symmetric_normalize, thin
from modalmix.nn.linear import FeatureLinear
from modalmix.nn.losses import bpr_loss, l2_penalty
from modalmix.nn.rows import round_up, zero_cold

_PUBLISHED = {"image": 0.1, "text": 0.9}


class FREEDOMConfig(ItemGraphConfig):
    """Settings of FREEDOM."""

    layers: int = Field(2, ge=0)
    """Steps over the user-item graph (L)."""
    item_layers: int = Field(1, ge=1)
    """Steps over the graph of similar items (K)."""
    graph_weights: dict[str, Annotated[float, Field(ge=0)]] | None = None
    """Weight of the item graph of each modality, by name. Without it .1 for image... and .9 for text..., else equal."""
    dropout: float = Field(0.8, ge=0, lt=1)
    """Share of the user-item edges left out in an epoch."""
    content_weight: float = Field(1e-3, ge=0)
    """Weight of the ranking loss of each modality's projected features (lambda)."""
    reg: float = Field(0.0, ge=0)
    """Weight of the squared length of the batch's embeddings before propagation, as in LightGCN. The paper has none."""
    epochs: int = Field(400, ge=1)
    """Most epochs."""
    patience: int = Field(40, ge=1)
    """Epochs without a better validation score before training stops."""
    eval_every: int = Field(5, ge=1)
    """Epochs between validations: an epoch costs less than a validation, or about as much."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"epochs": 1000, "patience": 20, "eval_every": 1, "trainable_features": True},
        "l2": {"reg": 1e-2},
    }


@final
class FREEDOM(ItemGraphRecommender[FREEDOMConfig]):
    """Both graphs are constants; what is learnt are the id embeddings, and a projection of each modality."""

    def __init__(self, config: FREEDOMConfig, data: TrainData) -> None:
        """Raises ConfigError when `graph_weights` names other modalities than the model reads."""
        super().__init__(config, data)
        given = config.graph_weights or published_weights(self.modalities)
        self.weights = modality_weights(given, self.modalities, (), data.interactions.csr)
        self.similar = Graph(self.similarity(data.catalog))
        self.interactions = data.interactions.csr
        self.thinned = self.graph
        linear = nn.Linear if config.trainable_features else FeatureLinear
        self.projections = nn.ModuleList(linear(dim, config.dim) for dim in self.dims)

    def similarity(self, catalog: Catalog) -> sp.csr_matrix:
        """S, the frozen graph of similar items: [items of `catalog`, training items]."""
        graphs = (self.item_graph(name, catalog) for name in self.modalities)
        normalised = (symmetric_normalize(sp.csr_matrix(graph != 0, dtype=np.float32)) for graph in graphs)
        return sp.csr_matrix(sum(w * graph for w, graph in zip(self.weights, normalised, strict=True)))

    def start_epoch(self, epoch: int) -> None:
        """Thin the user-item graph; which edges stay follows from the seed and the epoch."""
        if self.config.dropout:
            kept = thin(self.interactions, self.config.dropout, np.random.default_rng([self.config.seed, epoch]))
            self.thinned = Graph(symmetric_normalize(bipartite(kept))).to(self.users.weight.device)

    def propagate(self, graph: Graph, rows: Int[Tensor, " asked"] | None = None) -> Float[Tensor, "asked dim"]:
        """LightGCN's vectors over a user-item graph: of the users, then the items, or of these rows."""
        nodes = torch.cat([self.users.weight, self.items.weight])
        return graph.mean_of_layers(nodes, self.config.layers, rows)

    def similar_items(self, similar: Graph, items: Int[Tensor, " asked"] | None = None) -> Float[Tensor, "asked dim"]:
        """S^K E_I, or these items of it. Items below the training items (added later) are made of these."""
        vectors = self.items.weight
        for _ in range(self.config.item_layers - 1):
            vectors = similar(vectors)[: self.n_items]
        return similar(vectors) if items is None else similar.at(vectors, items)

    def vectors(self, catalog: Catalog) -> tuple[Float[Tensor, "users dim"], Float[Tensor, "items dim"]]:
        """Over the whole user-item graph. A cold or new item has no edge in it, and is what similar items are."""
        users, items = self.propagate(self.graph).split([self.n_users, self.n_items])
        similar = self.similar
        if catalog is not self.train_catalog:
            similar = Graph(self.similarity(catalog)).to(users.device)
        return users, zero_cold(items, self.warm_items, len(catalog)) + self.similar_items(similar)

    def loss(self, batch: Triples) -> Mapping[str, Tensor]:
        """{"bpr", "reg", "content/<modality>" of each} of a batch."""
        pairs = torch.cat([batch.positive, batch.negative])
        rows = torch.cat([batch.user, self.n_users + pairs])
        user, items = self.propagate(self.thinned, rows).split([len(batch.user), len(pairs)])
        items = items + self.similar_items(self.similar, pairs)
        ids = self.users(batch.user), *self.items(pairs).chunk(2)
        return {
            "bpr": bpr_loss(*(user * items.view(2, *user.shape)).sum(-1)),
            "reg": self.config.reg * l2_penalty(*ids),
            **self.content_terms(user, pairs),
        }

    def content_terms(self, user: Float[Tensor, "batch dim"], pairs: Int[Tensor, " pairs"]) -> dict[str, Tensor]:
        """lambda BPR(<e_u, W x + b>) of each modality; a triple whose items do not both have it counts as a draw.

        `pairs` holds the positives, then the negatives. Each item is projected once, however often it is named.
        """
        rows, places = pairs.unique(return_inverse=True)
        rounded = round_up(rows)
        terms = {}
        features = cast(Iterable[ModalityFeatures], self.features)
        for modality, projection in zip(features, self.projections, strict=True):
            projected = projection(modality.x.index_select(0, rounded)).index_select(0, places)
            both = modality.present[pairs].view(2, -1).all(dim=0)
            scores = (user * projected.view(2, *user.shape)).sum(-1) * both
            terms[f"content/{modality.name}"] = self.config.content_weight * bpr_loss(*scores)
        return terms


def published_weights(modalities: tuple[str, ...]) -> dict[str, float]:
    """.1 for the one whose name starts with image and .9 for text, where these two are all; else equal weights."""
    kinds = {name: next((kind for kind in _PUBLISHED if name.startswith(kind)), name) for name in modalities}
    if sorted(kinds.values()) == sorted(_PUBLISHED):
        return {name: _PUBLISHED[kind] for name, kind in kinds.items()}
    return dict.fromkeys(modalities, 1 / len(modalities))
