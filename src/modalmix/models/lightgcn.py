"""LightGCN: embeddings smoothed over the user-item graph (He et al. 2020).

E^(k+1) = D^-1/2 A D^-1/2 E^(k),  E = mean of E^(0) .. E^(L),  s(u,i) = <e_u, e_i>
L = mean softplus(s(u,j) - s(u,i)) + reg (|e_u^(0)|^2 + |e_i^(0)|^2 + |e_j^(0)|^2)
An item or user without a train event has no edge: its vector is zero.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from modalmix.data.catalog import Catalog
from modalmix.data.split import TrainData
from modalmix.models.contract import DotScorer, GradientRecommender, Triples
from modalmix.models.contract.initial import InitialConfig, start_items
from modalmix.nn.graph import Graph, bipartite, symmetric_normalize
from modalmix.nn.losses import bpr_loss, l2_penalty
from modalmix.nn.rows import zero_cold


class LightGCNConfig(InitialConfig):
    """Settings of LightGCN."""

    layers: int = Field(3, ge=0)
    """Steps over the user-item graph; 0 is BPR-MF without bias."""
    lr: float = Field(4e-3, gt=0)
    """Learning rate of Adam."""
    reg: float = Field(1e-2, ge=0)
    """Weight of the squared length of the batch's embeddings before propagation. The paper's lambda is twice it."""
    epochs: int = Field(400, ge=1)
    """Most epochs."""
    patience: int = Field(40, ge=1)
    """Epochs without a better validation score before training stops."""
    eval_every: int = Field(5, ge=1)
    """Epochs between validations: an epoch costs less than a validation, or about as much."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {"lr": 1e-3, "reg": 5e-5, "epochs": 1000, "patience": 50, "eval_every": 1}
    }


@final
class LightGCN(GradientRecommender[LightGCNConfig]):
    """One embedding table over the nodes of the graph: the users, then the items."""

    warm: Bool[Tensor, " nodes"]

    def __init__(self, config: LightGCNConfig, data: TrainData) -> None:
        super().__init__(config, data)
        self.nodes = nn.Parameter(torch.empty(self.n_users + self.n_items, config.dim))
        users, items = self.nodes.detach().split([self.n_users, self.n_items])
        for table in (users, items):
            nn.init.xavier_uniform_(table)
        start_items(items, data, config)
        self.graph = Graph(symmetric_normalize(bipartite(data.interactions.csr)))
        self.register_buffer("warm", self.graph.offsets.diff() > 0, persistent=False)

    def propagate(self, rows: Int[Tensor, " asked"] | None = None) -> Float[Tensor, "asked dim"]:
        """The final vectors of all users, then all items, or of these rows."""
        return self.graph.mean_of_layers(self.nodes, self.config.layers, rows)

    def loss(self, batch: Triples) -> Mapping[str, Tensor]:
        """{"bpr", "reg"} of a batch."""
        rows = torch.cat([batch.user, self.n_users + batch.positive, self.n_users + batch.negative])
        users, positives, negatives = self.propagate(rows).chunk(3)
        penalty = l2_penalty(*self.nodes.index_select(0, rows).chunk(3))
        return {
            "bpr": bpr_loss((users * positives).sum(-1), (users * negatives).sum(-1)),
            "reg": self.config.reg * penalty,
        }

    @torch.no_grad()
    def scorer(self, catalog: Catalog) -> DotScorer:
        """Inner products of the propagated vectors. Raises ModelError for another catalogue."""
        self.check_extends(catalog)
        users, items = self.propagate().split([self.n_users, self.n_items])
        warm_users, warm_items = self.warm.split([self.n_users, self.n_items])
        return DotScorer(zero_cold(users, warm_users), zero_cold(items, warm_items, len(catalog)))
