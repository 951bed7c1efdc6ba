"""What sequential models share: one causal pass trains every position, the last state scores all items."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Int64
from pydantic import Field, model_validator
from torch import Tensor

from modalmix.data.catalog import Catalog
from modalmix.data.samplers import inclusion_probabilities, negatives, systematic_sample
from modalmix.data.sequence_samplers import Examples, Windows, causal_batches, prefix_batches, prefix_targets, windows
from modalmix.data.split import TrainData
from modalmix.models.contract.history import SequentialScorer
from modalmix.models.contract.initial import InitialConfig
from modalmix.models.contract.recommender import GradientRecommender
from modalmix.models.contract.transitions import TransitionConfig, TransitionPrior, transition_prior
from modalmix.nn.losses import l2_penalty
from modalmix.nn.packing import last_positions
from modalmix.nn.rows import typical_cold
from modalmix.nn.softmax import full_softmax_loss, sampled_softmax_loss


class SequentialConfig(InitialConfig):
    """Settings of a sequential model."""

    dim: int = Field(128, ge=1)
    """Length of item vectors and states."""
    length: int = Field(50, ge=1)
    """Items of a history that are read, the last ones."""
    training: Literal["causal", "prefixes"] = "causal"
    """causal: one pass over a history trains all of its positions; prefixes: each event is predicted from the `length`
    items before it, a row by itself, as published code often does: the same targets, many times as dear."""
    long_histories: Literal["windows", "last"] = "windows"
    """Training on longer ones: in windows, so that every event is a target once an epoch, or on the last window."""
    dropout: float = Field(0.3, ge=0, lt=1)
    """Share of values dropped from embeddings and layers in training."""
    loss: Literal["softmax", "sampled", "bce"] = "softmax"
    """softmax: over all warm items; sampled: estimated from some of them; bce: against one drawn item not met."""
    sampled: int = Field(1024, ge=1)
    """Warm items that are drawn for a step of loss="sampled", each at most once; all its targets share them."""
    proposal_power: float = Field(1.0, ge=0, le=1)
    """Items are drawn in proportion to their train events to this power: 0 all alike, 1 by popularity."""
    correct_target: bool = True
    """Whether the target's logit is corrected for how often it is drawn, as those of drawn items are."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Numbers that the full softmax multiplies; bfloat16 has 8 significant bits: faster where the hardware has it."""
    init_std: float = Field(0.1, gt=0)
    """Standard deviation of the id table's columns at the start."""
    batch_size: int = Field(1024, ge=1)
    """Targets a step, on average."""
    lr: float = Field(2e-3, gt=0)
    """Learning rate of AdamW in the first epoch."""
    lr_decay: Literal["none", "linear", "cosine"] = "linear"
    """How the learning rate falls, from epoch to epoch, until it would reach 0 after the last of `epochs`."""
    warmup: int = Field(0, ge=0)
    """Epochs over which the learning rate rises first: 1/(n+1), 2/(n+1), ... of what it would be."""
    weight_decay: float = Field(0.01, ge=0)
    """Weight decay of AdamW."""
    prior: Literal["none", "transitions"] = "none"
    """What is added to the scores of the trained model: nothing, or what came after the history's items, counted."""
    transitions: TransitionConfig = TransitionConfig()
    """How it is counted."""
    trust: float = Field(0.1, gt=0)
    """What one standard deviation of the prior adds to a score, before validation says how much it is worth."""
    reg: float = Field(0.0, ge=0)
    """Weight of the L2 penalty on the states and the target vectors of a batch."""
    epochs: int = Field(48, ge=1)
    """Most epochs: those over which the learning rate falls. Ids that start from content need 12, and are worse with
    more; ids drawn at random need all (docs/models/sasrec.md)."""
    patience: int = Field(12, ge=1)
    """Epochs without a better validation score before training stops."""
    eval_every: int = Field(2, ge=1)
    """Epochs between validations."""

    came_later: ClassVar[Mapping[str, Any]] = {"prior": "none"}

    @model_validator(mode="after")
    def _coarse_softmax_alone(self) -> Self:
        if self.precision != "float32" and self.loss != "softmax":
            raise ValueError(f"precision={self.precision} is of the full softmax: loss={self.loss} has none")
        return self


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
    """A training batch: row k is what somebody met, and what followed at each position, -1 where nothing is asked;
    padded right with -1.

    `negatives` has an item the user has not met for each target, `sampled` the items that stand for all of them; None
    where the loss does not ask for them. `times` of the inputs where the model reads them. `users` of the rows: a long
    history is several rows.
    """

    inputs: Int[Tensor, "batch length"]
    targets: Int[Tensor, "batch length"]
    negatives: Int[Tensor, "batch length"] | None = None
    sampled: Int[Tensor, " samples"] | None = None
    times: Int[Tensor, "batch length"] | None = None
    users: Int[Tensor, " batch"] | None = None


C = TypeVar("C", bound=SequentialConfig)


class SequentialRecommender(GradientRecommender[C]):
    """s(u,i) = <state after the last item of u, output vector of i>, and the prior where there is one.

    A model says what vectors items have (`items`) and how a history becomes states (`states`). Cold items are neither
    candidates of the loss nor in a training history. Learnt by AdamW, the learning rate falling from epoch to epoch.
    """

    reads_times: ClassVar[bool] = False
    """Whether states depend on when events happened: batches and queries then carry it."""

    warm: Bool[Tensor, " items"]
    candidates: Int[Tensor, " candidates"]
    candidate_of: Int[Tensor, " items"]
    log_expected: Float[Tensor, " items"]

    def __init__(self, config: C, data: TrainData) -> None:
        super().__init__(config, data)
        self.train_catalog, self.sequences = data.catalog, data.sequences
        self.popularity = torch.from_numpy(np.log1p(data.interactions.item_degree)).float()
        self.register_buffer("warm", torch.from_numpy(data.warm), persistent=False)
        candidates = torch.from_numpy(np.flatnonzero(self.negative_pool(data)))
        self.register_buffer("candidates", candidates, persistent=False)
        place = torch.full((data.n_items,), -1).index_copy(0, candidates, torch.arange(len(candidates)))
        self.register_buffer("candidate_of", place, persistent=False)
        events = np.maximum(data.interactions.item_degree[candidates.numpy()], 1)
        self.chances = inclusion_probabilities(events**config.proposal_power, config.sampled)
        log_expected = torch.from_numpy(np.log(self.chances)).float()
        log_expected = torch.zeros(data.n_items).index_copy(0, candidates, log_expected)
        self.register_buffer("log_expected", log_expected, persistent=False)

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

    def query_states(
        self, history: Int[Tensor, "batch length"], times: Int[Tensor, "batch length"] | None, items: Items
    ) -> Float[Tensor, "batch dim"]:
        """What the scorer compares items with: `last_states`, unless a model that reads times overrides it."""
        return self.last_states(history, items)

    def loss(self, batch: Steps) -> Mapping[str, Tensor]:
        """{"softmax", "sampled" or "bce", "reg"} over all real positions of a batch."""
        items = self.items(self.train_catalog)
        return self.next_item_terms(self.states(batch.inputs, items), batch, items)

    def next_item_terms(
        self, states: Float[Tensor, "batch length dim"], batch: Steps, items: Items
    ) -> dict[str, Tensor]:
        """The loss of predicting the target at every real position, and the penalty."""
        real = batch.targets >= 0
        state, target = states[real], batch.targets[real]
        own = items.outputs.index_select(0, target)
        reg = self.config.reg  # at 0 no gradient as large as the table is made for it
        penalty = {"reg": reg * l2_penalty(state, own) if reg else state.new_zeros(())}
        if batch.negatives is not None:
            other = items.outputs.index_select(0, batch.negatives[real])
            bce = F.softplus(-(state * own).sum(dim=1)) + F.softplus((state * other).sum(dim=1))
            return {"bce": bce.mean(), **penalty}
        if batch.sampled is not None:
            correct = self.config.correct_target
            sampled = sampled_softmax_loss(
                state, items.outputs, target, batch.sampled, self.log_expected, correct_positive=correct
            )
            return {"sampled": sampled, **penalty}
        everything = len(self.candidates) == len(items.outputs)
        outputs = items.outputs if everything else items.outputs.index_select(0, self.candidates)
        coarse = self.config.precision == "bfloat16"
        return {"softmax": full_softmax_loss(state, outputs, self.candidate_of[target], coarse=coarse), **penalty}

    def batches(self, data: TrainData, size: int, rng: np.random.Generator) -> Iterator[Steps]:
        """Every event with something before it as a target, in random order: a causal pass, or a row for each."""
        pool = self.negative_pool(data)
        for user, inputs, targets, when in self.examples(data, size, rng):
            others = None
            if self.config.loss == "bce":
                owner = np.broadcast_to(user[:, None], targets.shape)[targets >= 0].astype(np.int32)
                drawn = np.full_like(targets, -1)
                drawn[targets >= 0] = negatives(data.interactions, owner, rng, pool)
                others = torch.from_numpy(drawn)
            times = None if when is None else torch.from_numpy(when)
            owners = torch.from_numpy(user.astype(np.int64))
            yield Steps(torch.from_numpy(inputs), torch.from_numpy(targets), others, self.sample(rng), times, owners)

    def examples(self, data: TrainData, size: int, rng: np.random.Generator) -> Iterator[Examples]:
        """Windows of `length` targets, or prefixes of `length` items with one."""
        sequences, times = data.sequences, self.reads_times
        if self.config.training == "causal":
            return causal_batches(sequences, self._windows(data), size, rng, times=times)
        return prefix_batches(sequences, self._prefixes(data), self.config.length, size, rng, times=times)

    def sample(self, rng: np.random.Generator) -> Int[Tensor, " samples"] | None:
        """The items that stand for all candidates in a step of loss="sampled"; None for another loss."""
        if self.config.loss != "sampled":
            return None
        return self.candidates[torch.from_numpy(systematic_sample(self.chances, rng))]

    def n_batches(self, data: TrainData, size: int) -> int:
        """Steps of about `size` targets each."""
        if self.config.training == "causal":
            return self._windows(data).steps(size)
        return -(-len(self._prefixes(data)) // size)

    def optimizer(self) -> torch.optim.Optimizer:
        """AdamW over all parameters, fused."""
        settings = self.config
        return torch.optim.AdamW(self.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)

    def lr_scale(self, epoch: int) -> float:
        """What is left of the learning rate: 1 in the first epoch, falling towards 0."""
        done, rise = min(1.0, (epoch - 1) / self.config.epochs), min(1.0, epoch / (self.config.warmup + 1))
        scale = {"none": 1.0, "linear": 1.0 - done, "cosine": (1.0 + np.cos(np.pi * done)) / 2}[self.config.lr_decay]
        return float(rise * scale)

    def scorer(self, catalog: Catalog) -> SequentialScorer:
        """Inner products of the last state with the items' vectors. Raises ModelError for another catalogue."""
        self.check_extends(catalog)
        with self.frozen():
            items = self.items(catalog)

        def encode(
            history: Int[Tensor, "batch longest"], times: Int[Tensor, "batch longest"] | None
        ) -> Float[Tensor, "batch dim"]:
            device = items.outputs.device
            with self.frozen():
                return self.query_states(history.to(device), None if times is None else times.to(device), items)

        popularity = F.pad(self.popularity, (0, len(catalog) - self.n_items))
        return SequentialScorer(
            self.config.length,
            self.sequences,
            encode,
            items.outputs,
            popularity,
            reads_times=self.reads_times,
            transitions=self.prior(len(catalog)),
        )

    def prior(self, n_items: int) -> TransitionPrior | None:
        """What is added to the scores of so many items; it has no part in training."""
        return None if self.config.prior == "none" else self.counted.extended(n_items)

    @cached_property
    def counted(self) -> TransitionPrior:
        """The prior over the training items."""
        settings = self.config
        return transition_prior(self.sequences, self.n_items, settings.length, settings.trust, settings.transitions)

    def _windows(self, data: TrainData) -> Windows:
        return windows(data.sequences, self.config.length, last_only=self.config.long_histories == "last")

    def _prefixes(self, data: TrainData) -> Int64[np.ndarray, " targets"]:
        last = self.config.length if self.config.long_histories == "last" else None
        return prefix_targets(data.sequences, last)
