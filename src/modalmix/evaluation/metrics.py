"""Ranking metrics with binary relevance, as the exact expectation over the orders of tied items.

A user has relevant items P and a ranked list of candidates. Tied candidates form a group: `above` of them rank strictly
higher, `size` share the score, `positives` of those are relevant; the group fills the ranks above+1 .. above+size in
every order with equal probability. Below, c = clip(K - above, 0, size) is how many of the group's ranks are within K.
Without ties (size 1 everywhere) each metric is the usual one; ir-measures, pytrec_eval and scikit-learn agree in tests.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

PerUser = Float64[np.ndarray, " users"]


@dataclass(frozen=True, eq=False)
class TieGroups:
    """The groups of tied candidates that hold a positive and start within the largest cut-off, by user, best first."""

    relevant: Int64[np.ndarray, " users"]
    """|P|, at least 1."""
    user: Int64[np.ndarray, " groups"]
    """Position of the user in `relevant`, ascending."""
    above: Int64[np.ndarray, " groups"]
    """Candidates that score strictly higher."""
    size: Int64[np.ndarray, " groups"]
    """Candidates in the group."""
    positives: Int64[np.ndarray, " groups"]
    """Relevant items in the group."""
    earlier: Int64[np.ndarray, " groups"]
    """Relevant items of the user in better groups."""

    @classmethod
    def of(
        cls,
        relevant: Int64[np.ndarray, " users"],
        user: Int64[np.ndarray, " positives"],
        above: Int64[np.ndarray, " positives"],
        size: Int64[np.ndarray, " positives"],
    ) -> "TieGroups":
        """Groups from single positives in any order: those of one user with the same `above` are tied."""
        order = np.lexsort((above, user))
        user, above, size = user[order], above[order], size[order]
        start = np.flatnonzero(_is_first(user) | _is_first(above))
        counts = np.diff(start, append=len(user))
        first_of_user = np.searchsorted(user, user[start])
        return cls(relevant, user[start], above[start], size[start], counts, start - first_of_user)

    def within(self, k: int) -> Int64[np.ndarray, " groups"]:
        """c: how many ranks of each group are within the first k."""
        return np.clip(k - self.above, 0, self.size)

    def total(self, values: Float64[np.ndarray, " groups"]) -> PerUser:
        """Sum of the groups' values for each user."""
        return np.bincount(self.user, weights=values, minlength=len(self.relevant))


def per_user(groups: TieGroups, metrics: tuple[str, ...], ks: tuple[int, ...]) -> dict[str, PerUser]:
    """Every metric at every cut-off, keyed "recall@20"."""
    return {f"{name}@{k}": METRICS[name](groups, k) for name in metrics for k in ks}


def hits(groups: TieGroups, k: int) -> PerUser:
    """Expected relevant items among the first K: the sum of positives * c / size."""
    return groups.total(groups.positives * groups.within(k) / groups.size)


def recall(groups: TieGroups, k: int) -> PerUser:
    """Recall@K = hits / |P|."""
    return hits(groups, k) / groups.relevant


def recall_capped(groups: TieGroups, k: int) -> PerUser:
    """Hits / min(K, |P|): 1 is reachable also where a user has more than K relevant items."""
    return hits(groups, k) / np.minimum(k, groups.relevant)


def precision(groups: TieGroups, k: int) -> PerUser:
    """Precision@K = hits / K, also where there are fewer than K candidates."""
    return hits(groups, k) / k


def ndcg(groups: TieGroups, k: int) -> PerUser:
    """NDCG@K: sum over ranks r <= K with a relevant item of 1 / log2(r + 1), over the same sum for r <= min(K, |P|).

    A tied group adds positives / size times the discounts of its ranks within K (McSherry and Najork, 2008).
    """
    discount = _prefix_sums(1 / np.log2(np.arange(2, k + 2)))
    gained = _between(discount, groups, k) * groups.positives / groups.size
    return groups.total(gained) / discount[np.minimum(k, groups.relevant)]


def hitrate(groups: TieGroups, k: int) -> PerUser:
    """HitRate@K = P(some relevant item is among the first K).

    A group misses with the hypergeometric probability C(size - positives, c) / C(size, c), which is the product over
    i < positives of 1 - c / (size - i); groups are independent.
    """
    rate = np.zeros(len(groups.relevant))
    if len(groups.user) == 0:
        return rate
    group = np.repeat(np.arange(len(groups.user)), groups.positives)
    placed = np.arange(len(group)) - np.searchsorted(group, group)
    missed = np.maximum(0.0, 1 - groups.within(k)[group] / (groups.size[group] - placed))
    start = np.flatnonzero(_is_first(groups.user[group]))
    rate[groups.user[group][start]] = 1 - np.multiply.reduceat(missed, start)
    return rate


def mrr(groups: TieGroups, k: int) -> PerUser:
    """MRR@K: 1 / rank of the first relevant item, 0 when that rank is beyond K.

    It is in the user's best group, at place j with probability C(size - j, positives - 1) / C(size, positives):
    positives / size for j = 1, then times (size - j - positives + 1) / (size - j) to get from j to j + 1.
    """
    best = np.flatnonzero(groups.earlier == 0)
    above, size, positives = groups.above[best], groups.size[best], groups.positives[best]
    within = groups.within(k)[best]
    probability = positives / size
    expected = np.zeros(len(best))
    for place in range(1, int(within.max(initial=0)) + 1):
        expected += np.where(place <= within, probability / (above + place), 0.0)
        remaining = np.maximum(size - place, 1)
        probability = probability * np.maximum(size - place - positives + 1, 0) / remaining
    reciprocal = np.zeros(len(groups.relevant))
    reciprocal[groups.user[best]] = expected
    return reciprocal


def average_precision(groups: TieGroups, k: int) -> PerUser:
    """MAP@K: sum over ranks r <= K with a relevant item of Precision@r, over min(K, |P|). One of five variants in use.

    Place j of a group (rank r = above + j) is relevant with probability positives / size; given that, the relevant
    items up to it number earlier + 1 + (positives - 1)(j - 1) / (size - 1) in expectation. With H the sum of 1 / r over
    the group's c ranks within K, the sum of (j - 1) / r is c - (above + 1) H.
    """
    within = groups.within(k)
    inverse = _between(_prefix_sums(1 / np.arange(1, k + 1)), groups, k)
    others = (groups.positives - 1) / np.maximum(groups.size - 1, 1)
    precisions = (groups.earlier + 1) * inverse + others * (within - (groups.above + 1) * inverse)
    return groups.total(precisions * groups.positives / groups.size) / np.minimum(k, groups.relevant)


METRICS: Mapping[str, Callable[[TieGroups, int], PerUser]] = {
    "recall": recall,
    "ndcg": ndcg,
    "precision": precision,
    "hitrate": hitrate,
    "mrr": mrr,
    "map": average_precision,
    "recall_capped": recall_capped,
}


def _prefix_sums(values: Float64[np.ndarray, " k"]) -> Float64[np.ndarray, " k+1"]:
    return np.concatenate([[0.0], np.cumsum(values)])


def _between(prefix: Float64[np.ndarray, " k+1"], groups: TieGroups, k: int) -> Float64[np.ndarray, " groups"]:
    """The sum over each group's ranks within k."""
    return prefix[np.minimum(groups.above + groups.size, k)] - prefix[np.minimum(groups.above, k)]


def _is_first(values: Int64[np.ndarray, " n"]) -> np.ndarray:
    """Where a value differs from the one before."""
    return np.concatenate([[True], values[1:] != values[:-1]])[: len(values)]
