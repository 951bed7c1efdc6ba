"""Gates: who is listened to, and how much."""

from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from modalmix.nn.dropout import FastDropout


def top_k_softmax(logits: Float[Tensor, "rows experts"], k: int) -> Float[Tensor, "rows experts"]:
    """Softmax over the k largest logits of each row; exactly 0 elsewhere.

    Sparse gate of Shazeer et al. 2017 (eq. 3-5) without noise: selection first, softmax after.
    """
    if k == logits.shape[1]:
        return logits.softmax(dim=1)
    largest, chosen = logits.topk(k, dim=1)
    return torch.zeros_like(logits).scatter(1, chosen, largest.softmax(dim=1))


def mask_absent(
    logits: Float[Tensor, "rows parts"], present: Bool[Tensor, "rows parts"]
) -> Float[Tensor, "rows parts"]:
    """-inf at the absent parts of each row, so that softmax gives exactly 0; a row without any part stays as it is."""
    return logits.masked_fill(~present & present.any(dim=1, keepdim=True), -torch.inf)


@final
class FusionGate(nn.Module):
    """How much an item listens to each of its modalities.

    a = W2 Dropout(ReLU(W1 [h_1; ...; h_M] + b1)) + b2; weights = softmax(a), over the modalities that the item has.
    Source: MAMEX (arXiv 2508.08042), the dynamic fusion gate. Without a mask it is the published one.
    """

    def __init__(self, modalities: int, dim: int, dropout: float) -> None:
        super().__init__()
        self.hidden = nn.Linear(modalities * dim, dim)
        self.dropout = FastDropout(dropout)
        self.out = nn.Linear(dim, modalities)

    def forward(
        self, parts: Float[Tensor, "rows modalities dim"], present: Bool[Tensor, "rows modalities"]
    ) -> Float[Tensor, "rows modalities"]:
        """The logits a, -inf at a modality that the item lacks (`mask_absent`); their softmax are the weights."""
        return mask_absent(self.out(self.dropout(self.hidden(parts.flatten(1)).relu())), present)
