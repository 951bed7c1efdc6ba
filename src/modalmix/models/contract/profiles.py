"""Profiles: cold items compared with the content of the user's own items, and how much that should weigh."""

from collections.abc import Iterable, Sequence
from typing import cast, final

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from modalmix.models.contract.content import Content
from modalmix.models.contract.teacher import TeacherConfig, recall
from modalmix.nn.als import fold_in_users
from modalmix.nn.evidence import Profile

_WEIGHTS = (0.0, 0.3, 1.0, 3.0)  # to choose from, relative to the experts
_USERS = 2_000  # users that choose


@final
class Profiles(nn.ModuleList):
    """A `Profile` a modality; the modalities lie side by side, so that inner products add up."""

    def __init__(self, dims: Sequence[int], components: int) -> None:
        """`components` of a modality, at most."""
        widths = [min(components, dim) for dim in dims]
        super().__init__(Profile(dim, width) for dim, width in zip(dims, widths, strict=True))
        self.width = sum(widths)

    def fit(self, content: Content, warm: Bool[Tensor, " items"]) -> None:
        """Principal components of the warm items, modality by modality."""
        for profile, x, has in zip(self._each(), content.features, content.present.unbind(dim=1), strict=True):
            profile.fit(x[warm & has])

    def places(self, content: Content) -> Float[Tensor, "items components"]:
        """Where the content of items lies in the space of profiles."""
        parts = zip(self._each(), content.features, content.present.unbind(dim=1), strict=True)
        return torch.cat([profile(x, has) for profile, x, has in parts], dim=1)

    def _each(self) -> Iterable[Profile]:
        return cast(Iterable[Profile], self)


def mean_of_items(met: sp.csr_matrix, vectors: Float[Tensor, "items dim"]) -> Float[Tensor, "users dim"]:
    """The mean vector of each user's items, zeros without any: a user's profile, where the vectors are places."""
    count = np.maximum(met.getnnz(axis=1), 1).astype(np.float32)
    return torch.from_numpy((met.astype(np.float32) @ vectors.numpy()) / count[:, None])


def choose_weight(
    met: sp.csr_matrix,
    places: Float[Tensor, "items components"],
    unseen: Float[Tensor, "items modalities experts dim"],
    factors: Float[Tensor, "items dim"],
    away: Bool[Tensor, " items"],
    teacher: TeacherConfig,
) -> Float[Tensor, ""]:
    """The weight of profiles beside experts with the best recall@20 on the items `away`, as if those were cold.

    met: train events [users, items]; unseen: what experts say that were fitted without the items away; factors: the
    teacher's of the items. The users are folded in from what else they met. 0 where nobody can be asked.
    """
    kept = met.multiply(~away.numpy()).tocsr()
    candidates = torch.nonzero(away).squeeze(1)
    asked = met[:, candidates.numpy()]
    users = np.flatnonzero((asked.getnnz(axis=1) > 0) & (kept.getnnz(axis=1) > 0))[:_USERS]
    if len(users) == 0:
        return torch.zeros(())
    known = torch.where(away.unsqueeze(1), 0.0, factors)
    said = fold_in_users(kept[users], known, teacher.reg, teacher.alpha) @ unseen[candidates].mean(dim=(1, 2)).T
    alike = mean_of_items(kept[users], places) @ places[candidates].T
    unit = said.std(correction=0) / alike.std(correction=0).clamp(min=1e-6)
    recalls = [recall(said + weight * unit * alike, asked[users]) for weight in _WEIGHTS]
    return _WEIGHTS[int(np.argmax(recalls))] * unit
