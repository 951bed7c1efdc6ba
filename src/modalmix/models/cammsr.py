"""CAMMSR: category-guided attentive experts over modality sequences (Xu et al., ICDE 2026, arXiv 2603.04320).

e_m = W_m x_m + b_m + p_l (ids: a table), p one position table for all;  e~_m = e_m + w_m e^_m, e^ = CAMoE(e)
z^m = Transformer_m(Dropout(DyT_m(e~_m)));  s(u,i) = t phi(u,i) + sum_m <z^m at the last item, e_m of i without place>
w_m: how well a linear head on e_m knows the item's categories, averaging 1 over the modalities an item has.
L = L_next + mu L_cat + lambda L_swap: next item, the heads, and the contrast of sequences that swap elements between
two modalities. phi counts what came after the items of a history and has no part in training; how far it is trusted,
t, validation says. What the public text leaves open is ours: docs/models/cammsr.md.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, final

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from modalmix.data.split import TrainData
from modalmix.errors import ModelError
from modalmix.models.contract.categories import labels_of
from modalmix.models.contract.query import Query
from modalmix.models.contract.sequential import Items, Steps
from modalmix.models.contract.streams import StreamConfig, StreamRecommender
from modalmix.nn.camoe import CAMoE
from modalmix.nn.category import Labels, balanced_bce, certainty, confidence, cross_entropy, modality_weights
from modalmix.nn.dyt import DynamicTanh
from modalmix.nn.packing import Packing, last_positions
from modalmix.nn.swap import draw_positions, swap, swap_contrast


class CammsrConfig(StreamConfig):
    """Settings of CAMMSR."""

    whiten: int = Field(128, ge=0)
    """Whitened principal components of each modality that are read, at most; 0: the features, rows of length 1."""
    epochs: int = Field(8, ge=1)
    """Most epochs: those over which the learning rate falls. It learns faster than the others: with 12 it is as good
    where nothing is masked, and worse where what was met is (docs/models/cammsr.md)."""
    prior: Literal["none", "transitions"] = "transitions"
    """What is added to the scores of the trained model: nothing, or what came after the history's items, counted."""
    experts: int = Field(4, ge=0)
    """Experts of the mixture; 0 leaves it out."""
    expert_hidden: int = Field(0, ge=0)
    """Width of each expert's hidden layer; 0 makes it linear."""
    gate: Literal["attention", "linear"] = "attention"
    """How a modality chooses among the experts."""
    category_weighting: Literal["agreement", "confidence", "learned", "none"] = "agreement"
    """What a modality's weight is made of: how well its head agrees with the item's categories (how sure it is, for an
    item without any), how sure it is, a learned score, or nothing (all weigh 1)."""
    category_temperature: float = Field(1.0, gt=0)
    """Temperature of the weights: low, and the best modality takes all."""
    weigh_ids: bool = True
    """Whether the id takes part in the weights; else it weighs 1 and the content modalities average 1."""
    category: float = Field(1.0, ge=0)
    """Weight mu of the category heads' loss; there are heads where category_weighting is agreement or confidence."""
    swap: float = Field(0.1, ge=0)
    """Weight lambda of the modality-swap contrast."""
    swap_rate: float = Field(0.5, ge=0, le=1)
    """Share rho of positions that are swapped."""
    swap_pairs: Literal["content", "all"] | tuple[tuple[str, str], ...] = "content"
    """Modalities that swap: pairs of content ones (with the id, where there is one), all pairs, or these."""
    temperature: float = Field(0.2, gt=0)
    """Temperature tau of the contrast."""
    input_norm: Literal["dyt", "layer"] = "dyt"
    """What scales each sequence before its Transformer: dynamic tanh, or LayerNorm."""
    dyt_scope: Literal["input", "all"] = "input"
    """Where dynamic tanh stands: before the Transformer, or in place of every LayerNorm."""
    map_std: float = Field(0.0, ge=0)
    """Standard deviation of linear maps, experts and gates at the start, biases 0; 0 leaves it to their width."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {**StreamConfig.presets["paper"], "prior": "none", "map_std": 0.02},
        "no-prior": {"prior": "none"},
    }
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "no-category-guidance": {"category_weighting": "none"},
        "no-swap": {"swap": 0.0},
        "no-experts": {"experts": 0},
        "layer-norm": {"input_norm": "layer"},
        "random-ids": {"id_init": "normal"},
        "no-prior": {"prior": "none"},
    }

    def uses_categories(self) -> bool:
        """Whether there are heads of categories."""
        return self.category_weighting in ("agreement", "confidence")

    @model_validator(mode="after")
    def _heads_must_learn(self) -> Self:
        if self.category_weighting in ("agreement", "confidence") and self.category == 0:
            raise ValueError(
                f"category_weighting={self.category_weighting} with category=0: the weights send no gradient to the "
                "heads, which would stay as they started; set category > 0, or category_weighting to learned or none"
            )
        return self


@final
@dataclass(frozen=True)
class Read:
    """A batch of histories as read: one sequence a modality, packed."""

    packing: Packing
    streams: Float[Tensor, "modalities positions dim"]
    present: Bool[Tensor, "positions modalities"]
    category_loss: Float[Tensor, ""] | None


@final
class Cammsr(StreamRecommender[CammsrConfig]):
    """An id table and a linear map a modality; the mixture; category heads; a Transformer a modality."""

    reads_categories = True

    def __init__(self, config: CammsrConfig, data: TrainData) -> None:
        """Raises ModelError for an unknown modality or swap pair."""
        super().__init__(config, data)
        dim, n = config.dim, len(self.streams)
        self.mixture = (
            CAMoE(n, dim, config.experts, config.expert_hidden, config.dropout, config.gate) if config.experts else None
        )
        self.weighting = self.check_weighting()
        if self.weighting in ("agreement", "confidence"):
            self.heads = nn.ModuleList(nn.Linear(dim, len(self.categories.names)) for _ in self.streams)
        if self.weighting == "learned":
            self.heads = nn.ModuleList(nn.Linear(dim, 1) for _ in self.streams)
        norm = DynamicTanh if config.input_norm == "dyt" else nn.LayerNorm
        self.add_encoders(norm, inner="dyt" if config.dyt_scope == "all" else "layer")
        self.pairs = self.swap_pairs()
        if config.map_std:
            self.start_maps(config.map_std)
            if self.mixture is not None:
                self.mixture.start(config.map_std)

    def check_weighting(self) -> str:
        """The category weighting; "none", with a warning, where the catalogue has no categories to guide it."""
        asked = self.config.category_weighting
        if asked in ("agreement", "confidence") and not self.categories.names:
            column = self.config.category_column
            there = "no category in" if column in self.train_catalog.table.columns else "no"
            warnings.warn(f"the items have {there} column '{column}': all modalities weigh the same", stacklevel=3)
            return "none"
        return asked

    def swap_pairs(self) -> list[tuple[int, int]]:
        """The pairs of streams that swap, by place. Raises ModelError for one that is not there."""
        chosen, place = self.config.swap_pairs, {name: k for k, name in enumerate(self.streams)}
        if isinstance(chosen, tuple):
            for pair in chosen:
                for name in pair:
                    if name not in place:
                        raise ModelError(f"swap pair {pair}", got=f"'{name}'", expected=f"of {', '.join(place)}")
                if pair[0] == pair[1]:
                    raise ModelError(f"swap pair {pair}", got="one sequence twice", expected="two modalities")
            return [(place[one], place[other]) for one, other in chosen]
        every = (
            range(len(self.streams)) if chosen == "all" or len(self.modalities) == 1 else range(1, len(self.streams))
        )
        return [(one, other) for one in every for other in every if one < other]

    # sequences

    def read(self, history: Int[Tensor, "batch length"], items: Items) -> Read:
        """e~ of each modality at every real position."""
        packing = Packing(history >= 0)
        e, present, labels = self.look_up(packing.pack(history), packing.place, items)
        weights, loss = self.weigh(e, present, labels)
        if self.mixture is not None:
            e = e + weights.unsqueeze(2) * self.mixture(e, present)
        return Read(packing, e, present, loss)

    def look_up(
        self, rows: Int[Tensor, " positions"], place: Int[Tensor, " positions"], items: Items
    ) -> tuple[Float[Tensor, "modalities positions dim"], Bool[Tensor, "positions modalities"], Labels]:
        """e of each modality where these items stand at these places of a sequence, who has what, and the labels."""
        e, about = self.placed(items.inputs.index_select(0, rows), place), items.beside
        return e, about.present.index_select(0, rows), labels_of(about.labels, rows)

    def weigh(
        self,
        e: Float[Tensor, "modalities positions dim"],
        present: Bool[Tensor, "positions modalities"],
        labels: Labels,
    ) -> tuple[Float[Tensor, "modalities positions"], Float[Tensor, ""] | None]:
        """w of each modality, and the loss of the heads: the mean over modalities, of positions with labels."""
        if self.weighting == "none":
            return present.T.to(e), None
        logits = torch.stack([head(one) for head, one in zip(self.heads, e, strict=True)])
        if self.weighting == "learned":
            return self.shared(logits.squeeze(2), present, moves=True), None
        labelled = labels.counts > 0
        error, surety = (cross_entropy, certainty) if self.categories.single else (balanced_bce, confidence)
        errors = torch.stack([error(one, labels) for one in logits])
        sure = torch.stack([surety(one.detach()) for one in logits])
        quality = sure if self.weighting == "confidence" else torch.where(labelled, -errors.detach(), sure)
        counted = (labelled.unsqueeze(1) & present).T
        each = (errors * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
        return self.shared(quality, present), each.mean()

    def shared(self, quality: Tensor, present: Tensor, moves: bool = False) -> Float[Tensor, "modalities positions"]:
        """Weights that average 1 over what is present: over all, or, without `weigh_ids`, over content alone."""
        temperature = self.config.category_temperature
        if self.config.weigh_ids:
            return modality_weights(quality, present, temperature, moves)
        content = modality_weights(quality[1:], present[:, 1:], temperature, moves)
        return torch.cat([present[:, :1].T.to(quality), content])

    def states(self, history: Int[Tensor, "batch length"], items: Items) -> Float[Tensor, "batch length wide"]:
        """[z^1 || .. || z^M] at every position; zeros at padding."""
        read = self.read(history, items)
        return self.states_of(read.streams, read.packing)

    def routing(self, query: Query, items: Int[Tensor, " items"]) -> Mapping[str, Tensor]:
        """Weights and gates of training items at the first place of a sequence; the query does not matter.

        Both read e_m = W_m x_m + b_m + p_l, so an item's differ a little from place to place; p_1 is the place that
        every history has. "modality": w [items, streams] in the order of `self.streams`, averaging 1 over what is
        present. "experts/<stream>": the gates [items, experts]; a row sums to 1. Zeros where an item lacks a modality;
        no gates with experts=0.
        """
        with self.frozen():
            e, present, labels = self.look_up(items, torch.zeros_like(items), self.items(self.train_catalog))
            found = {"modality": self.weigh(e, present, labels)[0].T}
            if self.mixture is not None:
                gates = (self.mixture.gates(e) * present.T.unsqueeze(2)).unbind()
                found |= {f"experts/{name}": gate for name, gate in zip(self.streams, gates, strict=True)}
        return found

    # training

    def loss(self, batch: Steps) -> Mapping[str, Tensor]:
        """{"softmax", "sampled" or "bce", "reg", "category", "swap"} of a batch, the last two if they have a weight."""
        items = self.items(self.train_catalog)
        read = self.read(batch.inputs, items)
        terms = self.next_item_terms(self.states_of(read.streams, read.packing), batch, items)
        if read.category_loss is not None and self.config.category:
            terms["category"] = self.config.category * read.category_loss
        if self.config.swap and self.pairs:
            contrasts = [self.contrast(read, one, other, batch) for one, other in self.pairs]
            terms["swap"] = self.config.swap * torch.stack(contrasts).mean()
        return terms

    def contrast(self, read: Read, one: int, other: int, batch: Steps) -> Float[Tensor, ""]:
        """InfoNCE of the users' last states when two of their sequences swap elements where both have content."""
        both = read.present[:, one] & read.present[:, other]
        swapped = swap(read.streams[one], read.streams[other], draw_positions(both, self.config.swap_rate))
        first, second = (self.encode_last(k, x, read.packing) for k, x in zip((one, other), swapped, strict=True))
        target = last_positions(batch.targets.unsqueeze(2), batch.inputs >= 0).squeeze(1)
        return swap_contrast(first, second, target, self.config.temperature, batch.users)
