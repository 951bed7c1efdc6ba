"""BSARec: attention beside a filter of low and high frequencies (Shin et al., AAAI 2024, arXiv 2312.10325).

X is a window of L positions, the history at its right end, padding (a zero vector and a position) on its left.
LFC[X] = F^-1 of the lowest frequencies of F X,  HFC[X] = X - LFC[X],  F the Fourier transform over the whole window
A_IB = alpha LN(X + LFC[X] + beta HFC[X]) + (1 - alpha) LN(X + SA(X)),  X' = LN(A_IB + FFN(A_IB)),  beta learned
s(u,i) = <X' at position L, e(i)>,  L = mean of -log softmax(<., e(.)>)[next item]

TRAP: the transform runs over the whole window, so every position hears of every other one, later ones too: one causal
pass over a history would read the targets it is to predict. Training therefore takes each prefix by itself, as the
published code does, and serving the last L items in the same way. A causal filter would be another model.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from modalmix.data.catalog import Catalog
from modalmix.data.split import TrainData
from modalmix.models.contract.initial import initial_items
from modalmix.models.contract.sequential import Items, SequentialRecommender, Steps, TransformerConfig
from modalmix.nn.dropout import FastDropout
from modalmix.nn.packing import Packing

EPS = 1e-12  # of every LayerNorm, as published: at first the input's variance is .0008


class BSARecConfig(TransformerConfig):
    """Settings of BSARec."""

    hidden: int = Field(512, ge=1)
    """Hidden width of the network in a layer; published: four times dim."""
    alpha: float = Field(0.7, ge=0, le=1)
    """Share of the filter in a layer; the rest is attention's."""
    cutoff: int = Field(5, ge=0)
    """The published c: the mean and the c // 2 lowest frequencies of a window are its low part."""
    training: Literal["prefixes"] = "prefixes"
    """Each prefix by itself: in one pass over a history a position would hear of the later ones."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {
            "dim": 64,
            "hidden": 256,
            "init_std": 0.02,
            "heads": 1,
            "dropout": 0.5,
            "attention_dropout": 0.5,
            "long_histories": "last",
            "batch_size": 256,
            "lr": 5e-4,
            "lr_decay": "none",
            "weight_decay": 0.0,
            "epochs": 200,
            "patience": 10,
            "eval_every": 1,
        }
    }


@final
class BSARec(SequentialRecommender[BSARecConfig]):
    """One item table, one position table, layers of attention beside a filter."""

    def __init__(self, config: BSARecConfig, data: TrainData) -> None:
        super().__init__(config, data)
        start = initial_items(data, config.dim, config.init_std, config.id_init, config.init_modalities)
        self.table = nn.Parameter(start)
        self.positions = nn.Parameter(torch.randn(config.length, config.dim) * 0.02)
        self.norm = nn.LayerNorm(config.dim, eps=EPS)
        self.dropout = FastDropout(config.dropout)
        self.layers = nn.ModuleList(BSARecLayer(config) for _ in range(config.layers))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def items(self, catalog: Catalog) -> Items:
        """The table, on both sides; a cold or new item has the mean vector of the warm ones."""
        table = self.known(self.table, catalog)
        return Items(table, table)

    def states(self, history: Int[Tensor, "batch length"], items: Items) -> Float[Tensor, "batch length dim"]:
        """The state after each item, each prefix being a window of its own; zeros at padding.

        Neither training nor serving asks for it: they need one state a window.
        """
        packing = Packing(history >= 0)
        later = torch.arange(history.shape[1], device=history.device) > packing.place.unsqueeze(1)
        prefixes = history[packing.rows // history.shape[1]].masked_fill(later, -1)
        return packing.unpack(self.last_states(prefixes, items))

    def last_states(self, history: Int[Tensor, "batch length"], items: Items) -> Float[Tensor, "batch dim"]:
        """X' at position L, for the last L items of each history; the last layer works out nothing else."""
        window = left_padded(history, self.config.length)
        packing = Packing(window >= 0)
        x = packing.unpack(items.inputs.index_select(0, packing.pack(window))) + self.positions
        x, heard = self.dropout(self.norm(x)), heard_by(window >= 0)
        for depth, layer in enumerate(self.layers, start=1):
            x = layer(x, heard, slice(-1 if depth == self.config.layers else None, None))
        return x[:, -1]

    def loss(self, batch: Steps) -> Mapping[str, Tensor]:
        """{"softmax", "sampled" or "bce", "reg"} of a batch of prefixes, with one target each."""
        items, one = self.items(self.train_catalog), batch.targets >= 0
        others = None if batch.negatives is None else batch.negatives[one].unsqueeze(1)
        asked = batch._replace(targets=batch.targets[one].unsqueeze(1), negatives=others)
        return self.next_item_terms(self.last_states(batch.inputs, items).unsqueeze(1), asked, items)


@final
class BSARecLayer(nn.Module):
    """alpha Filter(X) + (1 - alpha) Attention(X), then FFN, each with dropout, residual and LayerNorm."""

    low_pass: Float[Tensor, "length length"]

    def __init__(self, config: BSARecConfig) -> None:
        super().__init__()
        dim, self.alpha, self.heads = config.dim, config.alpha, config.heads
        self.register_buffer("low_pass", low_pass(config.length, config.cutoff), persistent=False)
        self.root_beta = nn.Parameter(torch.randn(dim))
        self.attention_dropout = config.attention_dropout
        self.query, self.key, self.value, self.output = (nn.Linear(dim, dim) for _ in range(4))
        self.network = nn.Sequential(nn.Linear(dim, config.hidden), nn.GELU(), nn.Linear(config.hidden, dim))
        self.dropout = FastDropout(config.dropout)
        self.filter_norm, self.attention_norm, self.network_norm = (nn.LayerNorm(dim, eps=EPS) for _ in range(3))

    def forward(
        self, x: Float[Tensor, "batch length dim"], heard: Bool[Tensor, "batch length length"], asked: slice
    ) -> Float[Tensor, "batch asked dim"]:
        """X' at the positions `asked` for."""
        own = x[:, asked]
        filtered = self.filter_norm(own + self.dropout(self.filter(x, asked)))
        attended = self.attention_norm(own + self.dropout(self.attend(x, heard, asked)))
        mixed = self.alpha * filtered + (1 - self.alpha) * attended
        return torch.as_tensor(self.network_norm(mixed + self.dropout(self.network(mixed))))

    def filter(self, x: Float[Tensor, "batch length dim"], asked: slice) -> Float[Tensor, "batch asked dim"]:
        """LFC[X] + beta HFC[X], beta a square."""
        low = self.low_pass[asked] @ x
        return low + self.root_beta.square() * (x[:, asked] - low)

    def attend(
        self, x: Float[Tensor, "batch length dim"], heard: Bool[Tensor, "batch length length"], asked: slice
    ) -> Float[Tensor, "batch asked dim"]:
        """SA(X): softmax(Q K' / sqrt(dim / heads)) V over the positions heard, heads concatenated, times W_O."""
        query, key, value = (
            part.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for part in (self.query(x[:, asked]), self.key(x), self.value(x))
        )
        dropout = self.attention_dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, heard[:, None, asked], dropout)
        return torch.as_tensor(self.output(mixed.transpose(1, 2).flatten(2)))


def low_pass(length: int, cutoff: int) -> Float[Tensor, "length length"]:
    """The matrix that leaves of a real signal its mean and its cutoff // 2 lowest frequencies.

    Fourier transform over all of `length`, the others set to 0, and back: the signal's own length goes in, so that the
    result at any one position costs one row.
    """
    spectrum = torch.fft.rfft(torch.eye(length, dtype=torch.float64), dim=0)
    spectrum[cutoff // 2 + 1 :] = 0
    return torch.fft.irfft(spectrum, n=length, dim=0).float()


def left_padded(history: Int[Tensor, "batch given"], length: int) -> Int[Tensor, "batch length"]:
    """The last `length` items of histories that are padded right with -1, at the right end, padded left with -1."""
    place = torch.arange(length, device=history.device) - length + (history >= 0).sum(dim=1, keepdim=True)
    return history.gather(1, place.clamp(min=0)).masked_fill(place < 0, -1)


def heard_by(real: Bool[Tensor, "batch length"]) -> Bool[Tensor, "batch length length"]:
    """[b, t, j]: whether position t attends to j: a real one to itself and earlier real ones, padding to everything.

    Padding hears everything because the published code lowers all its scores by the same number, which a softmax does
    not see; the filter of the next layer passes on what it heard.
    """
    length = real.shape[1]
    earlier = torch.ones(length, length, dtype=torch.bool, device=real.device).tril()
    return (earlier & real.unsqueeze(1)) | ~real.unsqueeze(2)
