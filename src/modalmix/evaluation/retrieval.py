"""Two-step serving against the exact list: how much of it is found, and what that costs."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from modalmix.data.split import Holdout
from modalmix.errors import EvaluateError
from modalmix.evaluation.pools import masked_items
from modalmix.evaluation.ranking import query_of
from modalmix.evaluation.settings import Mask
from modalmix.models.contract.query import Query, Scorer
from modalmix.models.contract.retrieval import FullRanking, PairScorer, Ranker, TwoStep

CANDIDATES = (50, 100, 200, 500)


@dataclass(frozen=True)
class RetrievalPoint:
    """One number of candidates."""

    candidates: int
    """Items that the index names, and as many that the prior names."""
    scored: float
    """Items that are scored exactly: mean over users. Less than twice the candidates where both name the same."""
    recall: Mapping[int, float]
    """k -> share of the items on the exact lists of k that two steps list too."""
    cpu_ms: float
    """CPU milliseconds a user."""


@dataclass(frozen=True)
class RetrievalCurve:
    """The result of `retrieval_curve`."""

    users: int
    items: int
    chunk: int
    """Users asked for at once."""
    exact_cpu_ms: float
    """CPU milliseconds a user when every item is scored."""
    points: tuple[RetrievalPoint, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One row a number of candidates, the last one for all items."""
        points = [
            {
                "candidates": f"{point.candidates:,}",
                "scored": point.scored,
                **{f"recall@{k}": recall for k, recall in point.recall.items()},
                "cpu_ms": point.cpu_ms,
            }
            for point in self.points
        ]
        exact = dict.fromkeys((f"recall@{k}" for k in self.points[0].recall), 1.0)
        return [*points, {"candidates": "all", "scored": float(self.items), **exact, "cpu_ms": self.exact_cpu_ms}]

    def to_dict(self) -> dict[str, Any]:
        """Everything, JSON-able."""
        return asdict(self)


def retrieval_curve(
    scorer: Scorer,
    holdout: Holdout,
    candidates: Sequence[int] = CANDIDATES,
    ks: Sequence[int] = (10, 20),
    users: int = 1000,
    mask: Mask = "seen",
    chunk: int = 128,
    seed: int = 2025,
) -> RetrievalCurve:
    """Recall of the first k of two steps against the first k of all items, for several numbers of candidates.

    Args:
        scorer: one that scores pairs and gives vectors (`PairScorer`).
        holdout: whose users are asked for, and what is masked; nothing held out is looked at.
        users: drawn by `seed` from those with a held-out event; all where there are fewer.
        chunk: users asked for at once; 1 for what a single question costs.

    Raises EvaluateError for another scorer, for no users, or when a k is more than the candidates or the items.
    """
    if not isinstance(scorer, PairScorer):
        raise EvaluateError(
            "two steps", got="a model that scores all items at once", fix="Its ranking is exact as it is."
        )
    if not candidates or not ks or not 1 <= max(ks) <= min(min(candidates), len(holdout.catalog)):
        expected = f"1 to the fewest candidates and the {len(holdout.catalog):,} items"
        raise EvaluateError("k", got=f"ks {list(ks)}, candidates {list(candidates)}", expected=expected)
    asked = np.unique(holdout.positives.user)
    if not len(asked) or users < 1:
        raise EvaluateError("users", got=f"{min(users, len(asked))} of them", expected="at least one")
    rng = np.random.default_rng(seed)
    asked = np.sort(rng.choice(asked, min(users, len(asked)), replace=False)).astype(np.int64)
    known = masked_items(holdout, mask)[asked]
    met = [torch.from_numpy(one.astype(np.int64)) for one in np.split(known.indices, known.indptr[1:-1])]
    queries = [
        (
            query_of(scorer, holdout, asked[start : start + chunk]),
            pad_sequence(met[start : start + chunk], True, -1),
        )
        for start in range(0, len(asked), chunk)
    ]
    exact, exact_ms = _lists(FullRanking(scorer), queries, max(ks))
    points = []
    for n in candidates:
        two = TwoStep(scorer, n)
        found, ms = _lists(two, queries, max(ks))
        scored = sum(float((two.retrieve(*query) >= 0).sum()) for query in queries) / len(asked)
        recall = {k: float(_shared(exact[:, :k], found[:, :k]).float().mean()) for k in ks}
        points.append(RetrievalPoint(n, scored, recall, ms))
    return RetrievalCurve(len(asked), len(holdout.catalog), chunk, exact_ms, tuple(points))


def _lists(ranker: Ranker, queries: list[tuple[Query, Tensor]], k: int) -> tuple[Int[Tensor, "users k"], float]:
    """The first k of each user, -1 where there are fewer, and CPU milliseconds a user."""
    ranker.top(queries[0][0], k, queries[0][1])  # the first call makes what is kept
    start = time.process_time()
    found = [ranker.top(query, k, exclude) for query, exclude in queries]
    seconds = time.process_time() - start
    rows = torch.cat([best.rows.masked_fill(best.scores == -torch.inf, -1) for best in found])
    return rows, 1000 * seconds / len(rows)


def _shared(exact: Int[Tensor, "users k"], found: Int[Tensor, "users k"]) -> Bool[Tensor, " listed"]:
    """For each item of the exact lists whether the other list has it; places without an item are left out."""
    return (exact.unsqueeze(2) == found.unsqueeze(1)).any(dim=2)[exact >= 0]
