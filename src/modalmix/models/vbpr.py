"""VBPR: BPR-MF with a second inner product over content (He & McAuley 2016), for any number of modalities.

s(u,i) = <gamma_u, gamma_i> + <theta_u, E f_i> + <beta', f_i> + beta_i,   E f_i = sum over modalities m of E_m f_i^m
L = mean softplus(s(u,j) - s(u,i)) + reg (|gamma_u|^2 + |theta_u|^2 + |gamma_i|^2 + |E f_i|^2 + beta_i^2 + those of j)

One matrix over the concatenated features, as the field does it, is the sum over modalities written here. A missing
modality adds nothing. A cold item has its content only: gamma_i = 0, beta_i = 0. The features are frozen.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Literal, cast, final

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from modalmix.data.catalog import Catalog
from modalmix.data.split import TrainData
from modalmix.models.contract import DotScorer, GradientRecommender, Triples
from modalmix.models.contract.content import ModalityFeatures, chosen_modalities
from modalmix.models.contract.initial import InitialConfig, start_items
from modalmix.nn.linear import frozen_linear
from modalmix.nn.losses import bpr_loss, l2_penalty
from modalmix.nn.rows import round_up, zero_cold


class VBPRConfig(InitialConfig):
    """Settings of VBPR."""

    dim: int = Field(64, ge=1)
    """Length of the id vectors (gamma), and of the content vectors (theta, E f)."""
    modalities: tuple[str, ...] | None = None
    """Names of the modalities to use; all of the catalogue's without it."""
    standardize: bool = True
    """Whether each feature column is standardised (on warm items); each row is scaled to length 1 in any case."""
    bias: bool = True
    """Whether items have a bias (beta) and a bias from content (beta')."""
    lr: float = Field(2e-3, gt=0)
    """Learning rate of Adam."""
    reg: float = Field(1e-2, ge=0)
    """Weight of the squared length of the batch's vectors and biases."""
    epochs: int = Field(400, ge=1)
    """Most epochs."""
    patience: int = Field(40, ge=1)
    """Epochs without a better validation score before training stops."""
    eval_every: int = Field(5, ge=1)
    """Epochs between validations: an epoch costs less than a validation, or about as much."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 halves the memory of the features; on a CPU with AMX or AVX512-BF16 it projects several times faster."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "field": {
            "bias": False,
            "standardize": False,
            "lr": 1e-3,
            "reg": 1e-4,
            "epochs": 1000,
            "patience": 20,
            "eval_every": 1,
        }
    }


@final
class Projection(nn.Module):
    """E_m f and <beta'_m, f> of one modality's frozen features."""

    def __init__(self, features: ModalityFeatures, dim: int, bias: bool, dtype: torch.dtype) -> None:
        super().__init__()
        self.features = features
        self.features.x = features.x.to(dtype)
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(dim, features.dim)))
        self.bias = nn.Parameter(torch.zeros(1, features.dim)) if bias else None
        self._gathered = torch.empty(0)

    def forward(self, x: Float[Tensor, "rows features"]) -> Float[Tensor, "rows dim_and_bias"]:
        """E_m f, and <beta'_m, f> as the last column where there is a bias."""
        weight = self.weight if self.bias is None else torch.cat([self.weight, self.bias])
        return frozen_linear(x, weight)

    def rows(self, rows: Int[Tensor, " rows"]) -> Float[Tensor, "rows dim_and_bias"]:
        """The same for rows of the training catalogue, gathered into a buffer that is used again at the next batch."""
        x, rounded = self.features.x, round_up(rows)
        if len(self._gathered) < len(rounded) or self._gathered.device != x.device:
            self._gathered = x.new_empty(len(rounded) * 5 // 4, x.shape[1])
        return self(torch.index_select(x, 0, rounded, out=self._gathered[: len(rounded)]))[: len(rows)]

    def all_rows(self, catalog: Catalog) -> Float[Tensor, "items dim_and_bias"]:
        """The same for every item of a catalogue. Raises ModelError when the features have another dim."""
        x, _ = self.features.read(catalog.modality(self.features.name))
        return self(x.to(self.features.x.dtype))


@final
class VBPR(GradientRecommender[VBPRConfig]):
    """Users hold [gamma_u | theta_u], items gamma_i and beta_i; content is projected for the items of a batch only."""

    warm_users: Bool[Tensor, " users"]
    warm_items: Bool[Tensor, " items"]

    def __init__(self, config: VBPRConfig, data: TrainData) -> None:
        super().__init__(config, data)
        self.modalities = chosen_modalities(config.modalities, data.catalog)
        self.users = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.n_users, 2 * config.dim)))
        self.items = nn.Parameter(nn.init.xavier_uniform_(torch.empty(self.n_items, config.dim)))
        start_items(self.items, data, config)
        self.bias = nn.Parameter(torch.zeros(self.n_items)) if config.bias else None
        dtype = torch.bfloat16 if config.precision == "bfloat16" else torch.float32
        self.projections = nn.ModuleList()
        for name in self.modalities:
            features = ModalityFeatures(data.catalog.modality(name), data.warm, config.standardize)
            self.projections.append(Projection(features, config.dim, config.bias, dtype))
        self.register_buffer("warm_users", torch.from_numpy(data.interactions.user_degree > 0), persistent=False)
        self.register_buffer("warm_items", torch.from_numpy(data.warm), persistent=False)

    def loss(self, batch: Triples) -> Mapping[str, Tensor]:
        """{"bpr", "reg"} of a batch."""
        pairs = torch.cat([batch.positive, batch.negative])
        unique, places = pairs.unique(return_inverse=True)
        content = self._sum(lambda projection: projection.rows(unique)).index_select(0, places)
        users = self.users.index_select(0, batch.user)
        vectors = torch.cat([self.items.index_select(0, pairs), content[:, : self.config.dim]], dim=1)
        scores = (users * vectors.view(2, *users.shape)).sum(-1)
        penalty = l2_penalty(users, *vectors.chunk(2))
        if self.bias is not None:
            bias = self.bias.index_select(0, pairs)
            scores = scores + (bias + content[:, -1]).view(2, -1)
            penalty = penalty + l2_penalty(*bias.chunk(2))
        return {"bpr": bpr_loss(*scores), "reg": self.config.reg * penalty}

    @torch.no_grad()
    def scorer(self, catalog: Catalog) -> DotScorer:
        """Inner products of [gamma | theta] with [gamma | E f]. Raises ModelError for another catalogue or dim."""
        self.check_extends(catalog)
        content = self._sum(lambda projection: projection.all_rows(catalog))
        ids = zero_cold(self.items, self.warm_items, len(catalog))
        bias = None
        if self.bias is not None:
            bias = zero_cold(self.bias, self.warm_items, len(catalog)) + content[:, -1]
        vectors = torch.cat([ids, content[:, : self.config.dim]], dim=1)
        return DotScorer(zero_cold(self.users, self.warm_users), vectors, bias)

    def _sum(self, content: Callable[[Projection], Tensor]) -> Float[Tensor, "rows dim_and_bias"]:
        """The sum over modalities."""
        parts = [content(projection) for projection in cast(Iterable[Projection], self.projections)]
        return functools.reduce(torch.add, parts)
