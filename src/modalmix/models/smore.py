"""SMORE: modalities fused in the frequency domain gate the ids that item graphs spread (Ong & Khong, WSDM 2025).

Source: Spectrum-based Modality Representation Fusion Graph Convolutional Network, arXiv 2412.14978.

h_m = W_m x_m + b_m;  c_1, ..., c_M, c_f = spectrum fusion of the h_m (nn/spectrum.py)
z_s = S_s^l (e_i * sigmoid(W_s c_s + b_s)) for items, s a modality or f;  z_s of users = D^-1/2 R D^-1/2 z_s of items
S_m = the kNN graph of m, weighted by cosine, symmetric-normalised;  S_f = their element-wise largest
b = mean of E^(0) .. E^(L) over the user-item graph (LightGCN)
side = mean over s of sigmoid(U_s b + u_s) * a_s * z_s,  a_m = softmax(Q_m tanh(P_m z_f + p_m)) over the dim, a_f = 1
v = b + side;  s(u,i) = <v_u, v_i>
L = BPR + contrast (InfoNCE(side_i, b_i) + InfoNCE(side_u, b_u)) + reg (|v_u|^2 + |v_i|^2 + |v_j|^2)

Ours: any number of modalities; frozen features of length 1; an absent modality is no factor of the product of spectra
and isolated in its graph; an item without a train event has no id, its content streams are those of its neighbours.
Expected here: Recall@20 .099 on validation of amazon-baby (given graphs, mask=train), see docs/models/smore.md.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, final

import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from modalmix.data.catalog import Catalog
from modalmix.data.split import TrainData
from modalmix.models.contract import ItemGraphConfig, ItemGraphRecommender, Triples
from modalmix.models.contract.content import Content
from modalmix.nn.dropout import FastDropout
from modalmix.nn.graph import Graph, bipartite, symmetric_normalize
from modalmix.nn.linear import FeatureLinear
from modalmix.nn.losses import bpr_loss, info_nce, l2_penalty
from modalmix.nn.rows import zero_cold
from modalmix.nn.spectrum import SpectrumFusion


class SMOREConfig(ItemGraphConfig):
    """Settings of SMORE. Preset `paper` has the published ones for amazon-baby."""

    layers: int = Field(4, ge=0)
    """Steps over the user-item graph."""
    item_layers: int = Field(1, ge=1)
    """Steps over the item graphs."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Chance that an entry of a preference gate is dropped."""
    contrast: float = Field(0.01, ge=0)
    """Weight of the contrast of the content side with behaviour (InfoNCE)."""
    temperature: float = Field(0.2, gt=0)
    """Divides the cosines under the contrast."""
    lr: float = Field(4e-3, gt=0)
    """Learning rate of Adam."""
    reg: float = Field(5e-5, ge=0)
    """Weight of the squared length of the batch's final vectors. The paper's lambda is twice it."""
    patience: int = Field(12, ge=1)
    """Epochs without a better validation score before training stops."""
    eval_every: int = Field(3, ge=1)
    """Epochs between validations."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "lr": 1e-3,
            "epochs": 1000,
            "patience": 20,
            "eval_every": 1,
            "trainable_features": True,
            "lr_factor": 0.96,
        },
        "sports": {"layers": 3, "contrast": 0.03, "dropout": 0.0},  # what the authors publish for amazon-sports
    }


@final
class Preference(nn.Module):
    """How much each node takes from each stream: side = mean over s of gate_s(b) * a_s(z_f) * z_s.

    The softmax of a_m runs over the entries of the vector, as in the published code: they sum to 1.
    """

    def __init__(self, modalities: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.ModuleList(nn.Linear(dim, dim) for _ in range(modalities))
        self.query = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(modalities))
        self.gate = nn.Linear(dim, (modalities + 1) * dim)
        self.dropout = FastDropout(dropout)

    def forward(
        self, streams: Float[Tensor, "rows streams dim"], behaviour: Float[Tensor, "rows dim"]
    ) -> Float[Tensor, "rows dim"]:
        """Of z_1, ..., z_M, z_f and b."""
        fused = streams[:, -1]
        pairs = zip(self.hidden, self.query, strict=True)
        attention = [query(hidden(fused).tanh()).softmax(dim=1) for hidden, query in pairs]
        weights = torch.stack([*attention, torch.ones_like(fused)], dim=1)
        gates = self.dropout(self.gate(behaviour).sigmoid()).view_as(streams)
        return (gates * weights * streams).mean(dim=1)


@final
class SMORE(ItemGraphRecommender[SMOREConfig]):
    """A behaviour vector and a content side for each user and item; a step works out the sides of its batch only."""

    def __init__(self, config: SMOREConfig, data: TrainData) -> None:
        super().__init__(config, data)
        modalities, dim = len(self.modalities), config.dim
        linear = nn.Linear if config.trainable_features else FeatureLinear
        self.project = nn.ModuleList(linear(features, dim) for features in self.dims)
        self.spectrum = SpectrumFusion(modalities, dim)
        self.item_gates = nn.ModuleList(nn.Linear(dim, dim) for _ in range(modalities + 1))
        self.preference = Preference(modalities, dim, config.dropout)
        nodes = symmetric_normalize(bipartite(data.interactions.csr))
        self.histories = Graph(nodes[: self.n_users, self.n_users :])
        self.item_graphs = nn.ModuleList(Graph(matrix) for matrix in self.stream_graphs(data.catalog))

    def stream_graphs(self, catalog: Catalog) -> list[sp.csr_matrix]:
        """S_1, ..., S_M, S_f: [items of `catalog`, training items]."""
        graphs = [symmetric_normalize(self.item_graph(name, catalog)) for name in self.modalities]
        largest = graphs[0]
        for graph in graphs[1:]:
            largest = largest.maximum(graph)
        return [*graphs, largest.tocsr()]

    def behaviour(self, rows: Int[Tensor, " asked"] | None = None) -> Float[Tensor, "asked dim"]:
        """b of the users, then of the training items, or of these rows; zeros for an item without a train event."""
        items = zero_cold(self.items.weight, self.warm_items)
        return self.graph.mean_of_layers(torch.cat([self.users.weight, items]), self.config.layers, rows)

    def item_streams(self, catalog: Catalog) -> Float[Tensor, "items streams_dim"]:
        """z_1, ..., z_M, z_f of the items, side by side."""
        ids = zero_cold(self.items.weight, self.warm_items, len(catalog))
        if catalog is self.train_catalog:
            graphs = list(self.item_graphs)
        else:
            graphs = [Graph(matrix).to(ids.device) for matrix in self.stream_graphs(catalog)]
        streams = []
        for gate, fused, graph in zip(self.item_gates, self.fuse(self.content(catalog)), graphs, strict=True):
            stream = ids * gate(fused).sigmoid()
            for _ in range(self.config.item_layers):
                stream = graph(stream[: self.n_items])
            streams.append(stream)
        return torch.cat(streams, dim=1)

    def fuse(self, content: Content) -> Float[Tensor, "streams items dim"]:
        """c_1, ..., c_M, c_f."""
        projected = [linear(x) for linear, x in zip(self.project, content.features, strict=True)]
        return self.spectrum(torch.stack(projected), content.present)

    def side(
        self, streams: Float[Tensor, "rows streams_dim"], behaviour: Float[Tensor, "rows dim"]
    ) -> Float[Tensor, "rows dim"]:
        """The content side of nodes."""
        return self.preference(streams.unflatten(1, (-1, self.config.dim)), behaviour)

    def vectors(self, catalog: Catalog) -> tuple[Float[Tensor, "users dim"], Float[Tensor, "items dim"]]:
        """b + side of all users and of the items of `catalog`."""
        items = self.item_streams(catalog)
        behaviour = nn.functional.pad(self.behaviour(), (0, 0, 0, len(catalog) - self.n_items))
        vectors = behaviour + self.side(torch.cat([self.histories(items[: self.n_items]), items]), behaviour)
        users, items = vectors.split([self.n_users, len(catalog)])
        return users, items

    def loss(self, batch: Triples) -> Mapping[str, Tensor]:
        """{"bpr", "contrast", "reg"} of a batch. Each of its users and items is worked out once."""
        users, user = batch.user.unique(return_inverse=True)
        items, place = torch.cat([batch.positive, batch.negative]).unique(return_inverse=True)
        positive, negative = (len(users) + place).chunk(2)
        streams = self.item_streams(self.train_catalog)
        streams = torch.cat([self.histories.at(streams, users), streams.index_select(0, items)])
        behaviour = self.behaviour(torch.cat([users, self.n_users + items]))
        side = self.side(streams, behaviour)
        u, i, j = (behaviour + side).index_select(0, torch.cat([user, positive, negative])).chunk(3)
        contrast = sum(
            info_nce(side.index_select(0, rows), behaviour.index_select(0, rows), self.config.temperature)
            for rows in (user, positive)
        )
        return {
            "bpr": bpr_loss((u * i).sum(dim=1), (u * j).sum(dim=1)),
            "contrast": self.config.contrast * contrast,
            "reg": self.config.reg * l2_penalty(u, i, j),
        }
