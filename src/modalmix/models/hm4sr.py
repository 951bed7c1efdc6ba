"""HM4SR: time-aware experts over modality sequences (Zhang et al., WWW 2025, arXiv 2501.14269).

e_m = W_m x_m + b_m + p_l (ids: a table), p one position table for all
E_m = e_m + c_m sum_k g_k^m E_k^m([e_1; ..; e_M]),  g^m = softmax(W_g^m e_m),  c_m learned
time = [v of log2(interval) || cos(absolute time)],  r = softmax(W_r time + b_r),  e~_m = E_m * sum_k r_k w_k^m
z^m = Transformer_m(Dropout(LN_m(e~_m)));  s(u,i) = sum_m <z^m at the last item, e_m of i without position>
L = L_next + L_IDCL + L_CP + L_PCL: the next item; the id state against the id of the target; categories of the items
read; content states against those of the same history with some elements replaced by W_m^p time + b_m^p.
What is published and what is ours: docs/models/hm4sr.md.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, final

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from modalmix.data.split import TrainData
from modalmix.errors import ModelError
from modalmix.models.contract.categories import labels_of
from modalmix.models.contract.sequential import Items, Steps
from modalmix.models.contract.streams import StreamConfig, StreamRecommender
from modalmix.nn.camoe import CAMoE
from modalmix.nn.category import Labels, plain_bce
from modalmix.nn.contrast import info_nce_of_targets
from modalmix.nn.packing import Packing, last_positions
from modalmix.nn.swap import draw_share
from modalmix.nn.times import TemporalExperts, TimeEncoding

EPS = 1e-12  # of the input's LayerNorm, as published: at first the weighted input's variance is about 1e-6


class Hm4srConfig(StreamConfig):
    """Settings of HM4SR."""

    experts: int = Field(4, ge=0)
    """Experts of the interactive mixture; 0 leaves it out."""
    temporal_experts: int = Field(4, ge=0)
    """Experts of the temporal mixture; 0 leaves it out."""
    interval_scale: float = Field(100.0, gt=0)
    """Buckets each time the interval between two events doubles."""
    time_unit: float = Field(86400.0, gt=0)
    """Seconds in a unit of the absolute time that is encoded; it is counted from the first train event."""
    id_contrast: float = Field(1.0, ge=0)
    """Weight of the contrast of the id state with the id of the target (IDCL)."""
    temperature: float = Field(0.2, gt=0)
    """Temperature of that contrast."""
    category: float = Field(1.0, ge=0)
    """Weight of the prediction of categories (CP)."""
    placeholder: float = Field(1.0, ge=0)
    """Weight of the contrast with histories that have placeholders (PCL)."""
    placeholder_rate: float = Field(0.3, ge=0, le=1)
    """Share of a history's elements that are replaced by placeholders."""
    placeholder_temperature: float = Field(1.0, gt=0)
    """Temperature of that contrast."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {**StreamConfig.presets["paper"], "time_unit": 1.0}}
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "no-interactive-moe": {"experts": 0},
        "no-temporal-moe": {"temporal_experts": 0},
        "no-contrast": {"id_contrast": 0.0, "placeholder": 0.0},
        "no-id-contrast": {"id_contrast": 0.0},
        "no-category": {"category": 0.0},
        "no-placeholder": {"placeholder": 0.0},
    }

    def uses_categories(self) -> bool:
        """Whether there are heads of categories."""
        return self.category > 0


@final
@dataclass(frozen=True)
class Read:
    """A batch of histories as read, packed: e~ of each modality, and the encoded times where they are used."""

    packing: Packing
    rows: Int[Tensor, " positions"]
    raw: Float[Tensor, "positions wide"]
    streams: Float[Tensor, "modalities positions dim"]
    time: Float[Tensor, "positions time_dim"] | None


@final
class Hm4sr(StreamRecommender[Hm4srConfig]):
    """An id table and a linear map a modality; two mixtures, the second chosen by time; a Transformer a modality."""

    reads_times = True

    def __init__(self, config: Hm4srConfig, data: TrainData) -> None:
        """Raises ModelError for an unknown modality, and, where times are read, for events without timestamps."""
        super().__init__(config, data)
        dim, n = config.dim, len(self.streams)
        self.clock: TimeEncoding | None = None
        if config.temporal_experts or config.placeholder:
            first, self.latest = first_and_last(data)
            longest = data.sequences.longest_interval
            self.clock = TimeEncoding(dim, config.interval_scale, longest, first, config.time_unit)
        self.temporal = TemporalExperts(n, dim, config.temporal_experts, 2 * dim) if config.temporal_experts else None
        self.add_encoders(partial(nn.LayerNorm, eps=EPS))
        self.start_maps(0.02)  # as in the public code, what is made below keeps the start that PyTorch gives it
        self.mixture = CAMoE(n, dim, config.experts, gate="linear") if config.experts else None
        if self.mixture is not None:
            self.strength = nn.Parameter(torch.tensor([0.0] + [1.0] * (n - 1)))
        self.placeholders = nn.ModuleList(nn.Linear(2 * dim, dim) for _ in self.modalities if config.placeholder)
        self.head = nn.Linear(n * dim, len(self.categories.names)) if self.predicts_categories() else None

    def predicts_categories(self) -> bool:
        """Whether categories have a loss; not, with a warning, where the catalogue has no such column."""
        column = self.config.category_column
        if self.config.category and column not in self.train_catalog.table.columns:
            warnings.warn(f"the items have no column '{column}': categories are not predicted", stacklevel=3)
        return bool(self.config.category and self.categories.names)

    # sequences

    def read(
        self, history: Int[Tensor, "batch length"], times: Int[Tensor, "batch length"] | None, items: Items
    ) -> Read:
        """e~ of each modality at every real position. Unknown times: all events at the latest time of training."""
        packing = Packing(history >= 0)
        rows = packing.pack(history)
        raw = items.inputs.index_select(0, rows)
        e = self.placed(raw, packing.place)
        if self.mixture is not None:
            present = items.beside.present.index_select(0, rows)
            e = e + self.strength.view(-1, 1, 1) * self.mixture(e, present)
        time = None
        if self.clock is not None:
            time = self.clock(torch.full_like(rows, self.latest) if times is None else packing.pack(times), packing)
        if self.temporal is not None:
            e = self.temporal(e, time)
        return Read(packing, rows, raw, e, time)

    def states(
        self,
        history: Int[Tensor, "batch length"],
        items: Items,
        times: Int[Tensor, "batch length"] | None = None,
    ) -> Float[Tensor, "batch length wide"]:
        """[z^1 || .. || z^M] at every position; zeros at padding."""
        read = self.read(history, times, items)
        return self.states_of(read.streams, read.packing)

    def query_states(
        self, history: Int[Tensor, "batch length"], times: Int[Tensor, "batch length"] | None, items: Items
    ) -> Float[Tensor, "batch wide"]:
        """The last states. Without times all events count as now, one after another, and a warning says so."""
        if times is None and self.temporal is not None:
            warnings.warn("histories without times are read as if all of it happened now", stacklevel=2)
        return last_positions(self.states(history, items, times), history >= 0)

    # training

    def loss(self, batch: Steps) -> Mapping[str, Tensor]:
        """{"softmax", "sampled" or "bce"; "reg"; "id-contrast", "category", "placeholder"}, the last three where they
        have a weight."""
        config, items = self.config, self.items(self.train_catalog)
        read = self.read(batch.inputs, batch.times, items)
        states = self.states_of(read.streams, read.packing)
        terms = self.next_item_terms(states, batch, items)
        if config.id_contrast:
            terms["id-contrast"] = config.id_contrast * self.target_contrast(states, batch, items)
        if self.head is not None:
            terms["category"] = config.category * self.category_loss(read, items.beside.labels)
        if config.placeholder:
            terms["placeholder"] = config.placeholder * self.placeholder_contrast(read, states, batch)
        return terms

    def target_contrast(
        self, states: Float[Tensor, "batch length wide"], batch: Steps, items: Items
    ) -> Float[Tensor, ""]:
        """InfoNCE of the id state at every target with the target's id. Nothing a user met is a negative."""
        dim, asked = self.config.dim, batch.targets >= 0
        target, state = batch.targets[asked], states[:, :, :dim][asked]
        own = items.outputs[:, :dim].index_select(0, target)
        user = None if batch.users is None else batch.users.repeat_interleave(asked.sum(dim=1))
        return info_nce_of_targets(state, own, target, self.config.temperature, user)

    def category_loss(self, read: Read, labels: Labels) -> Float[Tensor, ""]:
        """Binary cross entropy of a linear map of all of an item's modalities, mean of the positions with labels."""
        assert self.head is not None
        own = labels_of(labels, read.rows)
        labelled = own.counts > 0
        return (plain_bce(self.head(read.raw), own) * labelled).sum() / labelled.sum().clamp(min=1)

    def placeholder_contrast(
        self, read: Read, states: Float[Tensor, "batch length wide"], batch: Steps
    ) -> Float[Tensor, ""]:
        """InfoNCE of the users' last content states with those of histories that have placeholders, mean of modalities.

        The same positions are replaced in every modality.
        """
        real = batch.inputs >= 0
        chosen = read.packing.pack(draw_share(real, self.config.placeholder_rate)).unsqueeze(1)
        before = last_positions(states, real).split(self.config.dim, dim=1)
        target = last_positions(batch.targets.unsqueeze(2), real).squeeze(1)
        losses = []
        for k, fill in enumerate(self.placeholders, start=1):
            replaced = torch.where(chosen, fill(read.time), read.streams[k])
            after = self.encode_last(k, replaced, read.packing)
            temperature = self.config.placeholder_temperature
            losses.append(info_nce_of_targets(before[k], after, target, temperature, batch.users))
        return torch.stack(losses).mean()


def first_and_last(data: TrainData) -> tuple[int, int]:
    """First and last time of the train events. Raises ModelError when these have none, or an order in its place."""
    time = data.interactions.time
    if time is None or not data.interactions.in_seconds:
        raise ModelError(
            "HM4SR reads when events happened",
            got="interactions without timestamps" if time is None else "times that are an order",
            expected="unix seconds",
            fix="Add a column of timestamps, or leave out what reads them: temporal_experts=0 and placeholder=0.",
        )
    return int(time.min()), int(time.max())
