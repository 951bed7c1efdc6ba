"""BPR-MF: matrix factorisation trained on pairs (Rendle et al. 2009).

s(u,i) = <p_u, q_i> + b_i
L = mean softplus(s(u,j) - s(u,i)) + reg (|p_u|^2 + |q_i|^2 + |q_j|^2 + b_i^2 + b_j^2), i met by u, j not.
An item without a train event scores 0; a user without one gets the item biases.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, final

import torch
from jaxtyping import Bool
from pydantic import Field
from torch import Tensor, nn

from modalmix.data.catalog import Catalog
from modalmix.data.split import TrainData
from modalmix.models.contract import DotScorer, GradientRecommender, Triples
from modalmix.models.contract.initial import InitialConfig, start_items
from modalmix.nn.losses import bpr_loss, l2_penalty
from modalmix.nn.rows import zero_cold


class BPRMFConfig(InitialConfig):
    """Settings of BPR-MF."""

    lr: float = Field(2e-3, gt=0)
    """Learning rate of Adam."""
    reg: float = Field(3e-2, ge=0)
    """Weight of the squared length of the batch's vectors and biases. The setting that matters most."""
    epochs: int = Field(400, ge=1)
    """Most epochs."""
    patience: int = Field(40, ge=1)
    """Epochs without a better validation score before training stops."""
    eval_every: int = Field(5, ge=1)
    """Epochs between validations: an epoch costs less than a validation, or about as much."""
    bias: bool = True
    """Whether each item has a bias, its popularity learnt."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "field": {"bias": False, "lr": 1e-3, "reg": 1e-4, "epochs": 1000, "patience": 20, "eval_every": 1}
    }


@final
class BPRMF(GradientRecommender[BPRMFConfig]):
    """User and item embeddings of length `dim`, an optional item bias."""

    warm_users: Bool[Tensor, " users"]
    warm_items: Bool[Tensor, " items"]

    def __init__(self, config: BPRMFConfig, data: TrainData) -> None:
        super().__init__(config, data)
        self.users = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.n_users, config.dim)))
        self.items = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.n_items, config.dim)))
        start_items(self.items, data, config)
        self.bias = nn.Parameter(torch.zeros(self.n_items)) if config.bias else None
        self.register_buffer("warm_users", torch.from_numpy(data.interactions.user_degree > 0), persistent=False)
        self.register_buffer("warm_items", torch.from_numpy(data.warm), persistent=False)

    def loss(self, batch: Triples) -> Mapping[str, Tensor]:
        """{"bpr", "reg"} of a batch."""
        pairs = torch.cat([batch.positive, batch.negative])
        users = self.users.index_select(0, batch.user)
        items = self.items.index_select(0, pairs)
        scores = (users * items.view(2, *users.shape)).sum(-1)
        penalty = l2_penalty(users, *items.chunk(2))
        if self.bias is not None:
            bias = self.bias.index_select(0, pairs).view(2, -1)
            scores = scores + bias
            penalty = penalty + l2_penalty(bias.T)
        return {"bpr": bpr_loss(*scores), "reg": self.config.reg * penalty}

    @torch.no_grad()
    def scorer(self, catalog: Catalog) -> DotScorer:
        """Inner products of the tables. Raises ModelError for another catalogue."""
        self.check_extends(catalog)
        return DotScorer(
            zero_cold(self.users, self.warm_users),
            zero_cold(self.items, self.warm_items, len(catalog)),
            None if self.bias is None else zero_cold(self.bias, self.warm_items, len(catalog)),
        )
