"""LATTICE: item graphs that are learnt while recommending (Zhang et al., ACM MM 2021), for any number of modalities.

Given:    S_m   = D^-1/2 kNN(cos(x^m)) D^-1/2                          of the features, built once
Learnt:   A_m   = kNN(cos(W_m x^m + b_m))                              of the projected features, again each epoch
Mixed:    alpha = softmax(a);   A = (1 - skip) D^-1/2 (sum_m alpha_m A_m) D^-1/2 + skip sum_m alpha_m S_m
Vectors:  h = A^L e over the item ids;   users LightGCN(e)_u,   items LightGCN(e)_i + h_i / |h_i|
L = mean softplus(s(u,j) - s(u,i)) + reg (|v_u|^2 + |v_i|^2 + |v_j|^2), of the final vectors

As in the public code, A is built in the first step of an epoch, and W, b, a get a gradient in that step alone: through
the cosines of the kept edges and the degrees, not through which edges are kept. The other steps take A as it is. For
scoring A is built from the weights as they are then. Nothing of size items x items is ever held.
Expected here: amazon-baby, given graphs, Recall@20 on validation (train items left out): .0846 after 18 epochs.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple, final

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from modalmix.data.catalog import Catalog
from modalmix.data.split import TrainData
from modalmix.models.contract import ItemGraphConfig, ItemGraphRecommender, Triples
from modalmix.nn.features import unit_rows
from modalmix.nn.graph import Graph, symmetric_normalize
from modalmix.nn.linear import FeatureLinear
from modalmix.nn.losses import bpr_loss, l2_penalty
from modalmix.nn.neighbors import cosine_neighbors
from modalmix.nn.rows import zero_cold

_LEAST_DEGREE = 1e-12  # of an item without an edge, whose weights are all 0


class LatticeConfig(ItemGraphConfig):
    """Settings of LATTICE."""

    layers: int = Field(2, ge=0)
    """Steps over the user-item graph."""
    item_layers: int = Field(1, ge=1)
    """Steps over the item graph."""
    projected: int = Field(64, ge=1)
    """Length of the projected features that the learnt graph compares."""
    skip: float = Field(0.9, ge=0, le=1)
    """Share of the graph of the raw features, against the learnt one; the paper's lambda."""
    lr: float = Field(4e-3, gt=0)
    """Learning rate of Adam."""
    reg: float = Field(5e-4, ge=0)
    """Weight of the squared length of the batch's final vectors. The paper's lambda is twice it."""
    eval_every: int = Field(3, ge=1)
    """Epochs between validations."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "lr": 5e-4,
            "reg": 5e-6,
            "batch_size": 1024,
            "epochs": 200,
            "patience": 50,
            "eval_every": 5,
            "trainable_features": True,
            "lr_factor": 0.96,
        }
    }


class Edges(NamedTuple):
    """Weighted edges from each item to training items. What is no edge has weight 0 and points anywhere."""

    items: Int[Tensor, "items edges"]
    weights: Float[Tensor, "items edges"]

    def propagate(self, x: Float[Tensor, "training_items dim"]) -> Float[Tensor, "items dim"]:
        """The weighted sum over each item's neighbours, differentiable in `x` and in the weights."""
        return F.embedding_bag(self.items, x, mode="sum", per_sample_weights=self.weights)

    def normalized(self) -> "Edges":
        """D^-1/2 A D^-1/2 with D the row sums, as `symmetric_normalize`, differentiable in the weights."""
        root = self.weights.sum(dim=1).clamp(min=_LEAST_DEGREE).rsqrt()
        return Edges(self.items, self.weights * root.unsqueeze(1) * root[self.items])

    def constant(self, training_items: int) -> Graph:
        """The same as a graph whose weights stay as they are; edges between the same two are added up."""
        columns, weights = self.items.cpu().numpy(), self.weights.detach().cpu().numpy()
        rows = np.repeat(np.arange(len(columns)), columns.shape[1])
        shape = (len(columns), training_items)
        matrix = sp.csr_matrix((weights.ravel(), (rows, columns.ravel())), shape=shape, dtype=np.float32)
        matrix.eliminate_zeros()
        return Graph(matrix).to(self.items.device)


@final
class Lattice(ItemGraphRecommender[LatticeConfig]):
    """Projections and modality weights that make the item graph; id tables that are spread over it."""

    given_items: Int[Tensor, "items edges"]
    given_weights: Float[Tensor, "items modalities k"]

    def __init__(self, config: LatticeConfig, data: TrainData) -> None:
        super().__init__(config, data)
        linear = nn.Linear if config.trainable_features else FeatureLinear
        self.project = nn.ModuleList(linear(features, config.projected) for features in self.dims)
        self.modality_logits = nn.Parameter(torch.full((len(self.modalities),), 0.5))
        items, weights = self.given(data.catalog)
        self.register_buffer("given_items", items, persistent=False)
        self.register_buffer("given_weights", weights, persistent=False)
        self.built: Graph | None = None  # A without gradient, from the first step of an epoch on

    def start_epoch(self, epoch: int) -> None:
        """The item graph is built anew in the first step."""
        self.built = None

    def given(self, catalog: Catalog) -> tuple[Int[Tensor, "items edges"], Float[Tensor, "items modalities k"]]:
        """S_m of each modality as lists of neighbours, and their weights."""
        graphs = (symmetric_normalize(self.item_graph(name, catalog)) for name in self.modalities)
        edges = [neighbor_lists(graph, self.config.neighbors) for graph in graphs]
        device = self.warm_items.device
        items = torch.cat([one.items for one in edges], dim=1)
        return items.to(device), torch.stack([one.weights for one in edges], dim=1).to(device)

    def learnt(self, catalog: Catalog, shares: Float[Tensor, " modalities"]) -> Edges:
        """D^-1/2 (sum_m alpha_m A_m) D^-1/2."""
        content = self.content(catalog)
        edges = []
        for x, present, project in zip(content.features, content.present.unbind(dim=1), self.project, strict=True):
            edges.append(similar(project(x), present, self.config.neighbors, self.n_items))
        items = torch.cat([one.items for one in edges], dim=1)
        weights = torch.cat([share * one.weights for share, one in zip(shares, edges, strict=True)], dim=1)
        return Edges(items, weights).normalized()

    def mixed(self, catalog: Catalog) -> Edges:
        """A, differentiable in the projections and the modality weights."""
        shares, skip = self.modality_logits.softmax(dim=0), self.config.skip
        learnt = self.learnt(catalog, shares)
        known = catalog is self.train_catalog
        items, weights = (self.given_items, self.given_weights) if known else self.given(catalog)
        weights = (shares.view(1, -1, 1) * weights).flatten(1)
        weights = torch.cat([(1 - skip) * learnt.weights, skip * weights], dim=1)
        return Edges(torch.cat([learnt.items, items], dim=1), weights)

    def spread(
        self, ids: Float[Tensor, "training_items dim"], propagate: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "items dim"]:
        """h = A^L e."""
        h = ids
        for _ in range(self.config.item_layers):
            h = propagate(h[: self.n_items])
        return h

    def behaviour(
        self, ids: Float[Tensor, "training_items dim"], rows: Int[Tensor, " asked"] | None = None
    ) -> Float[Tensor, "asked dim"]:
        """LightGCN's vectors of the users, then of the training items, or of these rows."""
        return self.graph.mean_of_layers(torch.cat([self.users.weight, ids]), self.config.layers, rows)

    def ids(self) -> Float[Tensor, "training_items dim"]:
        """e, zeros for items without a train event."""
        return zero_cold(self.items.weight, self.warm_items)

    def vectors(self, catalog: Catalog) -> tuple[Float[Tensor, "users dim"], Float[Tensor, "items dim"]]:
        """Final vectors, with the item graph built from the weights as they are now."""
        ids = self.ids()
        users, items = self.behaviour(ids).split([self.n_users, self.n_items])
        h = self.spread(ids, self.mixed(catalog).propagate)
        return users, F.pad(items, (0, 0, 0, len(catalog) - self.n_items)) + unit_rows(h)

    def loss(self, batch: Triples) -> Mapping[str, Tensor]:
        """{"bpr", "reg"} of a batch. An epoch's first one builds the item graph, and alone trains what makes it."""
        ids, met = self.ids(), torch.cat([batch.positive, batch.negative])
        if self.built is None:
            edges = self.mixed(self.train_catalog)
            self.built = edges.constant(self.n_items)
            h = self.spread(ids, edges.propagate)
        else:
            h = self.spread(ids, self.built)
        nodes = self.behaviour(ids, torch.cat([batch.user, self.n_users + met]))
        users, items = nodes.split([len(batch.user), len(met)])
        positives, negatives = (items + unit_rows(h.index_select(0, met))).chunk(2)
        return {
            "bpr": bpr_loss((users * positives).sum(dim=1), (users * negatives).sum(dim=1)),
            "reg": self.config.reg * l2_penalty(users, positives, negatives),
        }


def similar(x: Float[Tensor, "items dim"], present: Bool[Tensor, " items"], k: int, training_items: int) -> Edges:
    """Each item's k nearest training items, weighted by cosine: differentiable in `x`, but for the choice of the k.

    A negative cosine is no edge; neither is one from or to an absent item.
    """
    unit = unit_rows(x) * present.unsqueeze(1)
    fixed = unit.detach()
    nearest, _ = cosine_neighbors(fixed[:training_items], present[:training_items], k)
    if len(x) > training_items:
        added, _ = cosine_neighbors(fixed[:training_items], present[:training_items], k, fixed[training_items:])
        nearest = torch.cat([nearest, added])
    items = nearest.long().clamp(min=0)
    others = unit.index_select(0, items.flatten()).view(*items.shape, -1)
    cosines = (others @ unit.unsqueeze(2)).squeeze(2)
    return Edges(items, cosines.masked_fill(nearest < 0, 0.0))


def neighbor_lists(graph: sp.csr_matrix, k: int) -> Edges:
    """A matrix of at most k entries a row as k edges a row."""
    items, weights = np.zeros((graph.shape[0], k), dtype=np.int64), np.zeros((graph.shape[0], k), dtype=np.float32)
    entries = np.diff(graph.indptr)
    rows = np.repeat(np.arange(graph.shape[0]), entries)
    places = np.arange(graph.nnz) - np.repeat(graph.indptr[:-1], entries)
    items[rows, places], weights[rows, places] = graph.indices, graph.data
    return Edges(torch.from_numpy(items), torch.from_numpy(weights))
