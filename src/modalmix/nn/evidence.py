"""Experts that regress in closed form, and a gate that weighs them by the evidence for what they say."""

from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from modalmix.nn.dropout import FastDropout
from modalmix.nn.ridge import best_strength, draw_landmarks, fit_ridge, rbf

_TINY = 1e-6
_AT_ONCE = 1 << 24  # products of numbers that are held at once


def widths(experts: int) -> list[float]:
    """Kernel widths of E experts, from 1/2 (sees far) to 2 (near neighbours only), even in the exponent; 1 alone."""
    if experts == 1:
        return [1.0]
    return [2.0 ** (2.0 * e / (experts - 1) - 1.0) for e in range(experts)]


@final
class KernelExperts(nn.Module):
    """E kernel ridges of one modality: f_e(x) = sum over landmarks z of k_e(x, z) a_ez, k_e of width e of `widths`."""

    landmarks: Int[Tensor, " landmarks"]
    weights: Float[Tensor, "experts landmarks dim"]

    def __init__(self, experts: int, landmarks: int, dim: int) -> None:
        super().__init__()
        self.widths = widths(experts)
        self.register_buffer("landmarks", torch.zeros(landmarks, dtype=torch.int64))
        self.register_buffer("weights", torch.zeros(experts, landmarks, dim))

    def fit(
        self,
        x: Float[Tensor, "items features"],
        rows: Int[Tensor, " rows"],
        targets: Float[Tensor, "rows dim"],
        importance: Float[Tensor, " rows"],
        fold: Int[Tensor, " rows"],
        strengths: tuple[float, ...],
        seed: int,
    ) -> Float[Tensor, "rows experts dim"]:
        """Regress the targets on x[rows]; what each expert says of a row when it was fitted on the other folds.

        Each expert takes the strength that predicts held-out rows best. `rows` ascend.
        """
        self.landmarks.copy_(draw_landmarks(rows, len(self.landmarks), seed))
        places = torch.searchsorted(rows, self.landmarks)
        unseen = []
        for place, width in enumerate(self.widths):
            found = fit_ridge(x[rows], places, targets, fold, width, strengths)
            best = best_strength(found.unseen, targets, importance)
            self.weights[place].copy_(found.weights[best])
            unseen.append(found.unseen[best])
        return torch.stack(unseen, dim=1)

    def forward(
        self, x: Float[Tensor, "rows features"], landmarks: Float[Tensor, "landmarks features"]
    ) -> Float[Tensor, "rows experts dim"]:
        """What each expert says of x; `landmarks` are the features of `self.landmarks`."""
        said = [rbf(x, landmarks, width) @ a for width, a in zip(self.widths, self.weights, strict=True)]
        return torch.stack(said, dim=1)


def evidence(
    said: Float[Tensor, "rows modalities experts dim"], present: Bool[Tensor, "rows modalities"]
) -> Float[Tensor, "rows signals"]:
    """How sure the experts are and whether they agree: the length of what each says, the cosine of each two, presence.

    A kernel expert falls back to zero far from all it has seen: its length says how much it knows of an item.
    """
    flat = said.flatten(1, 2)
    length = flat.norm(dim=2)
    one, other = torch.triu_indices(flat.shape[1], flat.shape[1], offset=1, device=said.device)
    unit = flat / (length.unsqueeze(2) + _TINY)
    rows = max(1, _AT_ONCE // max(1, len(one) * unit.shape[2]))
    blocks = [(part[:, one] * part[:, other]).sum(dim=2) for part in unit.split(rows)]
    agreement = torch.cat(blocks)
    return torch.cat([length, agreement, present.to(said.dtype)], dim=1)


def n_signals(modalities: int, experts: int) -> int:
    """Length of `evidence`."""
    n = modalities * experts
    return n + n * (n - 1) // 2 + modalities


@final
class EvidenceGate(nn.Module):
    """Logits over each modality's experts and over the modalities: W2 Dropout(ReLU(W1 signals + b1)) + b2.

    It starts even-handed. The signals are standardised by what `standardise` saw.
    """

    mean: Float[Tensor, " signals"]
    scale: Float[Tensor, " signals"]

    def __init__(self, modalities: int, experts: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.modalities, self.experts = modalities, experts
        signals = n_signals(modalities, experts)
        self.register_buffer("mean", torch.zeros(signals))
        self.register_buffer("scale", torch.ones(signals))
        self.hidden = nn.Linear(signals, hidden)
        self.dropout = FastDropout(dropout)
        self.out = nn.Linear(hidden, modalities * (experts + 1))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def standardise(self, signals: Float[Tensor, "rows signals"]) -> None:
        """Take mean and deviation from these rows; a constant signal is left at 0."""
        self.mean.copy_(signals.mean(dim=0))
        deviation = signals.std(dim=0, correction=0)
        self.scale.copy_(torch.where(deviation > _TINY, 1.0 / deviation.clamp(min=_TINY), 0.0))

    def forward(
        self, signals: Float[Tensor, "rows signals"]
    ) -> tuple[Float[Tensor, "rows modalities experts"], Float[Tensor, "rows modalities"]]:
        """Logits of the experts, and of the modalities."""
        hidden = self.dropout(self.hidden((signals - self.mean) * self.scale).relu())
        logits = self.out(hidden).view(-1, self.modalities, self.experts + 1)
        return logits[..., :-1], logits[..., -1]


@final
class Profile(nn.Module):
    """What a user's own items look like: the mean of their principal components (content kNN in brief).

    y(x) = unit((x - mean) B / sd^(1/2)): between plain and whitened components.
    """

    mean: Float[Tensor, " features"]
    basis: Float[Tensor, "features components"]

    def __init__(self, features: int, components: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("basis", torch.zeros(features, components))

    def fit(self, x: Float[Tensor, "rows features"]) -> None:
        """Principal components of the rows; those without variance, to float32's precision, stay zeros."""
        self.mean.copy_(x.mean(dim=0))
        centred = x - self.mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(x))
        k = self.basis.shape[1]
        values, vectors = values.flip(0)[:k], vectors.flip(1)[:, :k]
        noise = max(_TINY**2, float(values[0]) * len(centred.T) * torch.finfo(values.dtype).eps)
        self.basis.copy_(vectors * torch.where(values > noise, values.clamp(min=_TINY**2) ** -0.25, 0.0))

    def forward(
        self, x: Float[Tensor, "rows features"], present: Bool[Tensor, " rows"]
    ) -> Float[Tensor, "rows components"]:
        """Unit vectors, zeros where absent."""
        return nn.functional.normalize((x - self.mean) @ self.basis, dim=1) * present.unsqueeze(1)
