"""What sequential models share: one causal pass trains every position, the last state scores all items."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from modalmix.data.catalog import Catalog
from modalmix.data.samplers import negatives
from modalmix.data.sequence_samplers import Windows, causal_batches, windows
from modalmix.data.split import TrainData
from modalmix.models.contract.history import SequentialScorer
from modalmix.models.contract.initial import Start
from modalmix.models.contract.recommender import GradientRecommender
from modalmix.models.contract.settings import GradientConfig
from modalmix.nn.losses import l2_penalty
from modalmix.nn.packing import last_positions
from modalmix.nn.rows import typical_cold
from modalmix.nn.softmax import full_softmax_loss


class SequentialConfig(GradientConfig):
    """Settings of a sequential model."""

    length: int = Field(50, ge=1)
    """Items of a history that are read, the last ones."""
    long_histories: Literal["windows", "last"] = "windows"
    """Training on longer ones: in windows, so that every event is a target once an epoch, or on the last window."""
    dropout: float = Field(0.5, ge=0, lt=1)
    """Share of values dropped from embeddings and layers in training."""
    loss: Literal["softmax", "bce"] = "softmax"
    """softmax: over all warm items; bce: each target against one drawn item that its user has not met."""
    id_init: Start = "normal"
    """What the id table starts from: random numbers, or whitened principal components of the items' content."""
    init_modalities: tuple[str, ...] | None = None
    """Names of the modalities for id_init="content"; all of the catalogue's without it."""
    init_std: float = Field(0.02, gt=0)
    """Standard deviation of the id table's columns at the start."""
    batch_size: int = Field(1024, ge=1)
    """Targets a step, on average."""
    lr: float = Field(2e-3, gt=0)
    """Learning rate of AdamW in the first epoch."""
    lr_decay: Literal["none", "linear", "cosine"] = "linear"
    """How the learning rate falls, from epoch to epoch, until it would reach 0 after the last of `epochs`."""
    weight_decay: float = Field(0.01, ge=0)
    """Weight decay of AdamW."""
    reg: float = Field(0.0, ge=0)
    """Weight of the L2 penalty on the states and the target vectors of a batch."""
    epochs: int = Field(40, ge=1)
    """Most epochs."""
    patience: int = Field(40, ge=1)
    """Epochs without a better validation score before training stops."""


class TransformerConfig(SequentialConfig):
    """Settings of a sequential model with a causal Transformer."""

    layers: int = Field(2, ge=0)
    """Transformer layers."""
    heads: int = Field(2, ge=1)
    """Attention heads; they divide dim."""
    hidden: int = Field(256, ge=1)
    """Hidden width of the network in a layer."""
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of attention weights dropped in training."""

    @model_validator(mode="after")
    def _heads_divide_dim(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"heads divide dim: {self.dim} is no multiple of {self.heads}")
        return self


@dataclass(frozen=True)
class Items:
    """The vectors of a catalogue's items: what an encoder reads of them, and what states are compared with."""

    inputs: Float[Tensor, "items width"]
    outputs: Float[Tensor, "items dim"]
    beside: Any = None
    """What else the encoder reads of them."""


class Steps(NamedTuple):
    """A training batch: row k is what somebody met, and what followed at each position; padded right with -1.

    `negatives` has an item the user has not met for each target; None where the loss does not ask for them.
    """

    inputs: Int[Tensor, "batch length"]
    targets: Int[Tensor, "batch length"]
    negatives: Int[Tensor, "batch length"] | None = None


C = TypeVar("C", bound=SequentialConfig)


class SequentialRecommender(GradientRecommender[C]):
    """s(u,i) = <state after the last item of u, output vector of i>.

    A model says what vectors items have (`items`) and how a history becomes states (`states`). Cold items are neither
    candidates of the loss nor in a training history. Learnt by AdamW, the learning rate falling from epoch to epoch.
    """

    warm: Bool[Tensor, " items"]
    candidates: Int[Tensor, " candidates"]
    candidate_of: Int[Tensor, " items"]

    def __init__(self, config: C, data: TrainData) -> None:
        super().__init__(config, data)
        self.train_catalog, self.sequences = data.catalog, data.sequences
        self.popularity = torch.from_numpy(np.log1p(data.interactions.item_degree)).float()
        self.register_buffer("warm", torch.from_numpy(data.warm), persistent=False)
        candidates = torch.from_numpy(np.flatnonzero(self.negative_pool(data)))
        self.register_buffer("candidates", candidates, persistent=False)
        place = torch.full((data.n_items,), -1).index_copy(0, candidates, torch.arange(len(candidates)))
        self.register_buffer("candidate_of", place, persistent=False)

    @abstractmethod
    def items(self, catalog: Catalog) -> Items:
        """The vectors of all items of the training catalogue, or of one that extends it. Called in every step."""

    @abstractmethod
    def states(self, history: Int[Tensor, "batch length"], items: Items) -> Float[Tensor, "batch length dim"]:
        """The state after each item of histories (oldest first, padded right with -1), of no later one.

        What stands at padding is never read.
        """

    def known(self, table: Float[Tensor, "items dim"], catalog: Catalog) -> Float[Tensor, "more dim"]:
        """An id table for all items of a catalogue: cold and new ones have the mean vector of the warm ones.

        In training the table as it is: no cold item is read.
        """
        return table if self.training else typical_cold(table, self.warm, len(catalog))

    def last_states(self, history: Int[Tensor, "batch length"], items: Items) -> Float[Tensor, "batch dim"]:
        """The state after the last item of each history; none is empty."""
        return last_positions(self.states(history, items), history >= 0)

    def loss(self, batch: Steps) -> Mapping[str, Tensor]:
        """{"softmax" or "bce", "reg"} over all real positions of a batch."""
        items = self.items(self.train_catalog)
        return self.next_item_terms(self.states(batch.inputs, items), batch, items)

    def next_item_terms(
        self, states: Float[Tensor, "batch length dim"], batch: Steps, items: Items
    ) -> dict[str, Tensor]:
        """The loss of predicting the target at every real position, and the penalty."""
        real = batch.targets >= 0
        state, target = states[real], batch.targets[real]
        own = items.outputs.index_select(0, target)
        penalty = {"reg": self.config.reg * l2_penalty(state, own)}
        if batch.negatives is not None:
            other = items.outputs.index_select(0, batch.negatives[real])
            bce = F.softplus(-(state * own).sum(dim=1)) + F.softplus((state * other).sum(dim=1))
            return {"bce": bce.mean(), **penalty}
        everything = len(self.candidates) == len(items.outputs)
        outputs = items.outputs if everything else items.outputs.index_select(0, self.candidates)
        return {"softmax": full_softmax_loss(state, outputs, self.candidate_of[target]), **penalty}

    def batches(self, data: TrainData, size: int, rng: np.random.Generator) -> Iterator[Steps]:
        """One causal pass over every history, in windows of `length` targets, in random order."""
        pool = self.negative_pool(data)
        for user, inputs, targets in causal_batches(data.sequences, self._windows(data), size, rng):
            others = None
            if self.config.loss == "bce":
                owner = np.broadcast_to(user[:, None], targets.shape)[targets >= 0].astype(np.int32)
                drawn = np.full_like(targets, -1)
                drawn[targets >= 0] = negatives(data.interactions, owner, rng, pool)
                others = torch.from_numpy(drawn)
            yield Steps(torch.from_numpy(inputs), torch.from_numpy(targets), others)

    def n_batches(self, data: TrainData, size: int) -> int:
        """Steps of about `size` targets each."""
        return self._windows(data).steps(size)

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW over all parameters, fused."""
        settings = self.config
        return torch.optim.AdamW(self.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)

    def lr_scale(self, epoch: int) -> float:
        """What is left of the learning rate: 1 in the first epoch, falling towards 0."""
        done = min(1.0, (epoch - 1) / self.config.epochs)
        return {"none": 1.0, "linear": 1.0 - done, "cosine": (1.0 + np.cos(np.pi * done)) / 2}[self.config.lr_decay]

    def scorer(self, catalog: Catalog) -> SequentialScorer:
        """Inner products of the last state with the items' vectors. Raises ModelError for another catalogue."""
        self.check_extends(catalog)
        with self.frozen():
            items = self.items(catalog)

        def encode(history: Int[Tensor, "batch longest"]) -> Float[Tensor, "batch dim"]:
            with self.frozen():
                return self.last_states(history.to(items.outputs.device), items)

        popularity = F.pad(self.popularity, (0, len(catalog) - self.n_items))
        return SequentialScorer(self.config.length, self.sequences, encode, items.outputs, popularity)

    def _windows(self, data: TrainData) -> Windows:
        return windows(data.sequences, self.config.length, last_only=self.config.long_histories == "last")
