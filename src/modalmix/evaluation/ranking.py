"""Where the relevant items of each user rank, in blocks of chunk x items: memory does not grow with the users."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from modalmix.data.split import Holdout
from modalmix.errors import EvaluateError
from modalmix.evaluation.metrics import TieGroups
from modalmix.evaluation.pools import Pool, Rows, masked_items
from modalmix.evaluation.sampled import sample_candidates
from modalmix.evaluation.settings import EvaluateConfig
from modalmix.models.contract.dot import DotScorer
from modalmix.models.contract.histories import FollowingScorer
from modalmix.models.contract.history import HistoryScorer
from modalmix.models.contract.query import Query, Scorer


@dataclass(frozen=True, eq=False)
class Ranking:
    """Where the positives of one pool rank. Users are positions in `Pool.users`."""

    groups: TieGroups
    tied: Bool[np.ndarray, " users"]
    """Whether the items at the largest cut-off and right below it tie, so that the top list is not determined."""


@dataclass(frozen=True, eq=False)
class _Found:
    """The positives of a chunk that can be within the largest cut-off."""

    user: Rows
    above: Rows
    size: Rows
    tied: Bool[np.ndarray, " users"]


def rank(scorer: Scorer, holdout: Holdout, pools: Mapping[str, Pool], config: EvaluateConfig) -> dict[str, Ranking]:
    """Rank every pool in one scoring pass. Raises EvaluateError for a score that is not finite, or a wrong shape."""
    if not callable(scorer):
        raise EvaluateError(
            "the model's scorer", got=type(scorer).__name__, expected="a callable: query in, scores out"
        )
    if holdout.in_order and isinstance(scorer, FollowingScorer):
        scorer = scorer.following(holdout.seen.csr)
    users = np.unique(np.concatenate([pool.users for pool in pools.values()]))
    masked = masked_items(holdout, config.mask)[users]
    found: dict[str, list[_Found]] = {name: [] for name in pools}
    with torch.inference_mode():
        for first, scores in _scored(scorer, holdout, users, config.chunk):
            chunk = users[first : first + len(scores)]
            _hide(scores, *_entries(masked, first, first + len(chunk)))
            for name, pool in pools.items():
                start, stop = np.searchsorted(pool.users, [chunk[0], chunk[-1] + 1])
                if start < stop:
                    found[name].append(_find(scores, chunk, pool, start, stop, config))
    return {name: _joined(pools[name], parts) for name, parts in found.items()}


def _scored(
    scorer: Scorer, holdout: Holdout, users: Rows, chunk: int
) -> Iterator[tuple[int, Float[Tensor, "chunk items"]]]:
    """Start of each chunk and its finite scores, in one reused float32 or float64 buffer that the caller may change."""
    items = len(holdout.catalog)
    buffer: Tensor | None = None
    writes = isinstance(scorer, DotScorer) and scorer.items.dtype in (torch.float32, torch.float64)
    for start in range(0, len(users), chunk):
        part = users[start : start + chunk]
        query = query_of(scorer, holdout, part)
        if isinstance(scorer, DotScorer) and writes and buffer is not None:
            scores = scorer(query, out=buffer[: len(part)])
        else:
            scores = scorer(query)
            if scores.shape != (len(part), items) or not scores.is_floating_point():
                expected = f"floating point of shape {(len(part), items)}: queries x items of the catalogue"
                raise EvaluateError("scores", got=f"{scores.dtype} of shape {tuple(scores.shape)}", expected=expected)
            if buffer is None:
                wide = torch.float64 if scores.dtype == torch.float64 else torch.float32
                buffer = torch.empty(scores.shape, dtype=wide, device=scores.device)
            scores = buffer[: len(part)].copy_(scores)
        _check_finite(scores, part, holdout)
        yield start, scores


def query_of(scorer: Scorer, holdout: Holdout, users: Rows) -> Query:
    """How a scorer is asked for users: by row, or, where it reads histories, with what they have met by then."""
    if isinstance(scorer, HistoryScorer):
        return scorer.ask(holdout.sequences, users)
    return Query(users=torch.from_numpy(users))


def _check_finite(scores: Float[Tensor, "chunk items"], users: Rows, holdout: Holdout) -> None:
    """Raise EvaluateError naming the first user and item whose score is NaN or infinite."""
    if torch.isfinite(scores.sum()):
        return  # a sum is finite only if every term is; that of huge finite scores may not be, so look closely
    bad = torch.nonzero(~torch.isfinite(scores))
    if len(bad) == 0:
        return
    row, item = bad[0].tolist()
    raise EvaluateError(
        f"score of item {holdout.catalog.items.ids([item])[0]!r} for user {holdout.users.ids(users[[row]])[0]!r}",
        got=f"{scores[row, item].item()} ({len(bad):,} such scores among {len(users):,} users)",
        expected="a finite number",
        fix="Training may have diverged: try a smaller lr, and check the features for NaN.",
    )


def _entries(matrix: sp.csr_matrix, start: int, stop: int) -> tuple[Rows, Rows]:
    """Row (counted from `start`) and column of each entry of rows start..stop."""
    pointers = matrix.indptr[start : stop + 1]
    rows = np.repeat(np.arange(stop - start), np.diff(pointers))
    return rows, matrix.indices[pointers[0] : pointers[-1]].astype(np.int64)


def _hide(scores: Float[Tensor, "rows columns"], rows: Rows, columns: Rows) -> None:
    """Set entries to -inf, in place."""
    flat = torch.from_numpy(rows * scores.shape[1] + columns).to(scores.device)
    scores.view(-1).index_fill_(0, flat, -torch.inf)


def _find(
    scores: Float[Tensor, "chunk items"], chunk: Rows, pool: Pool, start: int, stop: int, config: EvaluateConfig
) -> _Found:
    """Rank the positives of the pool's users start..stop, who are those in the chunk."""
    users = pool.users[start:stop]
    rows, columns = _entries(pool.positives, start, stop)
    if len(users) < len(chunk):
        scores = scores[torch.from_numpy(np.searchsorted(chunk, users)).to(scores.device)]
    if pool.items is not None:
        scores = scores.index_select(1, torch.from_numpy(pool.items).to(scores.device))
    if config.sampled is not None:
        scores = sample_candidates(scores, users, rows, columns, config.sampled, config.seed)
    found = _positions(scores, rows, columns, max(config.ks), naive=config.ties == "naive")
    return _Found(found.user + start, found.above, found.size, found.tied)


def _positions(scores: Float[Tensor, "users pool"], rows: Rows, columns: Rows, k: int, naive: bool) -> _Found:
    """How many candidates score above and equal to each positive that is within the first k, ties in its favour.

    Only the k + 1 best scores of each user are sorted; the whole row is looked at again where a group of ties that
    holds a positive reaches over the end of these.
    """
    best = top_scores(scores, k + 1)
    row = torch.from_numpy(rows).to(scores.device)
    column = torch.from_numpy(columns).to(scores.device)
    score = scores[row, column]
    inside = torch.nonzero(score >= best[row, min(k, best.shape[1]) - 1]).squeeze(1)
    row, column, score = row[inside], column[inside], score[inside]
    above = (best[row] > score[:, None]).sum(dim=1)
    size = (best[row] == score[:, None]).sum(dim=1)
    tied = torch.zeros(len(scores), dtype=torch.bool, device=scores.device)
    if best.shape[1] > k:
        tied = (best[:, k - 1] == best[:, k]) & (best[:, k] > -torch.inf)
        over = score == best[row, k]
        reached = torch.unique(row[over])
        count = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
        count[reached] = (scores[reached] == best[reached, k, None]).sum(dim=1)
        size = torch.where(over, count[row], size)
    if naive:
        above = above + _tied_before(scores, row, column, score)
        keep = above < k
        row, above, size = row[keep], above[keep], torch.ones_like(size[keep])
    return _Found(*(values.cpu().numpy() for values in (row, above, size, tied)))


def top_scores(scores: Float[Tensor, "users items"], k: int) -> Float[Tensor, "users k"]:
    """The k best scores of each row, best first; all of them where there are fewer than k."""
    k = min(k, scores.shape[1])
    if scores.device.type != "cpu":
        return scores.topk(k, dim=1).values
    # numpy selects and sorts with SIMD: several times faster than torch.topk on a CPU
    best = np.partition(scores.numpy(), scores.shape[1] - k, axis=1)[:, scores.shape[1] - k :]
    return torch.from_numpy(np.sort(best, axis=1)[:, ::-1].copy())


def _tied_before(
    scores: Float[Tensor, "users pool"],
    row: Int64[Tensor, " positives"],
    column: Int64[Tensor, " positives"],
    score: Float[Tensor, " positives"],
) -> Int64[Tensor, " positives"]:
    """Candidates that tie with each positive and stand in an earlier item row."""
    place = torch.arange(scores.shape[1], device=scores.device)
    parts = zip(*(values.split(len(scores)) for values in (row, column, score)), strict=True)
    counts = [((scores[r] == s[:, None]) & (place < c[:, None])).sum(dim=1) for r, c, s in parts]
    return torch.cat(counts)


def _joined(pool: Pool, parts: list[_Found]) -> Ranking:
    """The chunks of one pool together."""
    user, above, size = (
        np.concatenate(values) for values in zip(*((part.user, part.above, part.size) for part in parts), strict=True)
    )
    return Ranking(TieGroups.of(pool.relevant, user, above, size), np.concatenate([part.tied for part in parts]))
