"""How well each modality knows an item's category, and what weight that earns it.

CAMMSR (arXiv 2603.04320) publishes one weight per item and modality from a category predictor; the formulas are ours.
"""

from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

_TINY = 1e-6


@final
class Labels(NamedTuple):
    """Categories of rows: row r has labels[offsets[r] : offsets[r + 1]]; none where the two are equal."""

    offsets: Int[Tensor, " rows_plus_one"]
    labels: Int[Tensor, " labels"]

    @property
    def counts(self) -> Int[Tensor, " rows"]:
        """Labels of each row."""
        return self.offsets.diff()

    @property
    def rows(self) -> Int[Tensor, " labels"]:
        """The row of each label."""
        return torch.repeat_interleave(torch.arange(len(self.offsets) - 1, device=self.labels.device), self.counts)


def balanced_bce(logits: Float[Tensor, "rows categories"], labels: Labels) -> Float[Tensor, " rows"]:
    """(mean over a row's labels of softplus(-c) + mean over all other categories of softplus(c)) / 2.

    A plain mean over thousands of sparse labels says "no" everywhere and tells modalities apart by nothing. A row
    without labels, or with all of them, takes the half there is.
    """
    rows, counts = labels.rows, labels.counts.to(logits.dtype)
    own = logits[rows, labels.labels]
    positive = torch.zeros_like(counts).index_add(0, rows, F.softplus(-own)) / counts.clamp(min=1)
    of_own = torch.zeros_like(counts).index_add(0, rows, F.softplus(own))
    negative = (F.softplus(logits).sum(dim=1) - of_own) / (logits.shape[1] - counts).clamp(min=1)
    return (positive + negative) / 2


def plain_bce(logits: Float[Tensor, "rows categories"], labels: Labels) -> Float[Tensor, " rows"]:
    """Mean over all categories of the binary cross entropy with sigmoid(c); a row without labels is a no to all."""
    rows = labels.rows
    own = torch.zeros_like(logits[:, 0]).index_add(0, rows, logits[rows, labels.labels])
    return (F.softplus(logits).sum(dim=1) - own) / logits.shape[1]


def cross_entropy(logits: Float[Tensor, "rows categories"], labels: Labels) -> Float[Tensor, " rows"]:
    """-log softmax(c) of a row's label, the mean over several; 0 for a row without one.

    Several: an item that was added to a catalogue where each has one.
    """
    rows, counts = labels.rows, labels.counts.to(logits.dtype)
    each = F.cross_entropy(logits[rows], labels.labels, reduction="none")
    return torch.zeros_like(counts).index_add(0, rows, each.to(logits.dtype)) / counts.clamp(min=1)


def confidence(logits: Float[Tensor, "rows categories"]) -> Float[Tensor, " rows"]:
    """Minus the mean binary entropy of sigmoid(c): 0 when sure of every category, -log 2 when of none."""
    p = logits.sigmoid()
    entropy = F.softplus(logits) - p * logits  # H(sigmoid(c)), without a logarithm of p
    return -entropy.mean(dim=1)


def certainty(logits: Float[Tensor, "rows categories"]) -> Float[Tensor, " rows"]:
    """Minus the entropy of softmax(c), the log likelihood that a head expects of its only label: 0 when sure."""
    log_p = logits.log_softmax(dim=1)
    return (log_p.exp() * log_p).sum(dim=1)


def modality_weights(
    quality: Float[Tensor, "modalities rows"],
    present: Bool[Tensor, "rows modalities"],
    temperature: float,
    moves: bool = False,
) -> Float[Tensor, "modalities rows"]:
    """w^m = n softmax_m(q^m / tau) over the n modalities that a row has: they average 1; 0 where one is absent.

    No gradient flows into the qualities unless it `moves` them: a weight is what a modality has earned, not what the
    ranking loss wants.
    """
    there = present.T
    logits = ((quality if moves else quality.detach()) / temperature).masked_fill(~there, -torch.inf)
    none = ~there.any(dim=0)
    weights = logits.masked_fill(none, 0.0).softmax(dim=0) * there.sum(dim=0)
    return weights.masked_fill(none, 0.0)
