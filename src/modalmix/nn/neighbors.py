"""Cosine nearest neighbours, exact, in chunks: memory is chunk x items, never items x items."""

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor

from modalmix.nn.features import unit_rows

_STEPS = 2.0**20  # cosines are told apart in steps of 1e-6: equal rows tie exactly, however the product is blocked
_TIED_ROWS = 128


@torch.no_grad()
def cosine_neighbors(
    x: Float[Tensor, "items features"],
    present: Bool[Tensor, " items"],
    k: int,
    queries: Float[Tensor, "queries features"] | None = None,
    chunk: int = 1024,
) -> tuple[Int32[Tensor, "rows k"], Float[Tensor, "rows k"]]:
    """The k most similar items of each item, itself first, and their cosines; -1 and 0 where there are fewer.

    With `queries`, the k most similar items of each query instead, which is no item itself. Absent and all-zero rows
    have no neighbour and are nobody's. A negative cosine is no similarity. Among equals the next ones in row order
    (circular, from the item on) go first, so that in a block of equal rows nobody becomes everybody's neighbour.
    Raises ValueError for k < 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}; expected at least 1")
    unit = unit_rows(x)
    usable = present & (unit.abs().sum(dim=1) > 0)
    asked = unit if queries is None else unit_rows(queries)
    rows = torch.full((len(asked), k), -1, dtype=torch.int32, device=x.device)
    cosines = torch.zeros((len(asked), k), device=x.device)
    for start in range(0, len(asked), chunk):
        stop = min(start + chunk, len(asked))
        similarity = (asked[start:stop] @ unit.T).mul_(_STEPS).round_().div_(_STEPS).clamp_(max=1.0)
        similarity.masked_fill_(~usable, -1.0)
        place = torch.arange(start, stop, device=x.device)
        if queries is None:
            similarity[torch.arange(stop - start, device=x.device), place] = 2.0  # itself first, also among equals
            similarity[~usable[start:stop]] = -1.0
        best, found = _best(similarity, place, min(k, len(x)))
        found = found.masked_fill(best <= 0, -1)
        rows[start:stop, : found.shape[1]] = found.int()
        cosines[start:stop, : found.shape[1]] = best.clamp(0.0, 1.0)
    return rows, cosines


def _best(similarity: Float[Tensor, "rows items"], place: Tensor, k: int) -> tuple[Float[Tensor, "rows k"], Tensor]:
    """The k best of each row and where they are; where the k-th ties with others, those that follow `place` first."""
    items = similarity.shape[1]
    best, found = similarity.topk(min(k + 1, items), dim=1)
    if items > k:
        last, beyond = best[:, k - 1], best[:, k]
        best, found = best[:, :k], found[:, :k]
        tied = torch.nonzero((last == beyond) & (last > 0)).squeeze(1)
        for part in tied.split(_TIED_ROWS):
            found[part] = _in_circular_order(similarity[part], last[part, None], place[part], k)
        best = similarity.gather(1, found)
    return best, found


def _in_circular_order(similarity: Float[Tensor, "rows items"], last: Tensor, place: Tensor, k: int) -> Tensor:
    """The columns of all that are better than `last`, then those equal to it in circular order from `place` on."""
    items = similarity.shape[1]
    distance = (torch.arange(items, device=similarity.device) - place[:, None]) % items
    key = torch.where(similarity > last, similarity, torch.where(similarity == last, -distance / items, -torch.inf))
    return key.topk(k, dim=1).indices
