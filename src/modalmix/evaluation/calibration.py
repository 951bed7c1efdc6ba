"""Fit on validation what only held-out events can say; the test split is not opened.

How cold items are calibrated: the mixed pool decides. How far a prior is trusted that had no part in training.
"""

from copy import copy
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from modalmix.data.split import Holdout
from modalmix.evaluation.measure import validation_score
from modalmix.evaluation.ranking import query_of
from modalmix.evaluation.settings import Mask, PoolName
from modalmix.models.contract.calibrated import Calibration, calibrate
from modalmix.models.contract.history import SequentialScorer
from modalmix.models.contract.query import Scorer

CalibrationKind = Literal["none", "norm", "offset", "norm-offset"]
_USERS = 2_000  # users that decide, drawn at random where there are more
_PRIOR_USERS = 20_000  # more: the best factors of a prior lie close together
_LIST = 20  # length of the list that cold items are to enter
_FACTORS = (1.0, 0.5, 2.0, 0.25, 4.0, 8.0, 0.0)
_QUANTILES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 1.0)


def fit_calibration(
    scorer: Scorer, holdout: Holdout, kind: CalibrationKind, metric: str = "ndcg@20", mask: Mask = "seen"
) -> Calibration:
    """The calibration with the best `metric` in the pool of all items of a validation holdout.

    none: scores as they are. norm: the scores of cold items are scaled to the spread of the warm ones'. offset: a
    constant is added to them; tried are 0, one so low that no cold item is listed, and quantiles of what a user's 20th
    cold item lacks to the 20th warm one. norm-offset: both. Where validation does not hold out both warm and cold
    events there is nothing to fit: none.
    """
    warm_events = holdout.warm[holdout.positives.item]
    if kind == "none" or holdout.warm.all() or warm_events.all() or not warm_events.any():
        return Calibration()
    holdout = _some_users(holdout, _USERS)
    warm = torch.from_numpy(holdout.warm)
    scores = _sample(scorer, holdout)
    scale = 1.0
    if kind != "offset":
        spread_warm, spread_cold = (_spread(scores[:, part]) for part in (warm, ~warm))
        if spread_warm > 0 and spread_cold > 0:  # not where all scores tie, or where one item is the whole part
            scale = spread_warm / spread_cold
    if kind == "norm":
        return Calibration(scale=scale)
    gap = _list_end(scores[:, warm]) - _list_end(scale * scores[:, ~warm])
    none_of_them = float(2 * gap.min() - gap.max())
    offsets = (0.0, none_of_them, *gap.quantile(torch.tensor(_QUANTILES)).tolist())
    tried = [Calibration(scale, offset) for offset in offsets]
    found = [validation_score(calibrate(scorer, warm, one), holdout, metric, mask, "all") for one in tried]
    return tried[int(np.argmax(found))]


def fit_prior(
    scorer: SequentialScorer, holdout: Holdout, metric: str = "ndcg@20", mask: Mask = "seen", pool: PoolName = "all"
) -> float:
    """The factor on the scorer's prior, of 0, 1/4, 1/2, 1, 2, 4 and 8, with the best `metric` in a validation holdout.

    Of equal ones the first of 1, 1/2, 2, 1/4, 4, 8, 0: the prior stays as it is where validation is not moved by it.
    Nor is it asked where the pool is of cold items, of which the prior says nothing: then the warm ones decide, if
    validation has events of them.
    """
    if pool == "cold":
        if not holdout.warm[holdout.positives.item].any():
            return 1.0
        pool = "warm"
    holdout = _some_users(holdout, _PRIOR_USERS)
    scorer = remembering(scorer)
    found = [validation_score(scorer.trusting(one), holdout, metric, mask, pool) for one in _FACTORS]
    return _FACTORS[int(np.argmax(found))]


def remembering(scorer: SequentialScorer) -> SequentialScorer:
    """The same scorer, which encodes a batch of histories once however often it is asked for: users x dim are kept."""
    original, known = scorer.encode, dict[bytes, Tensor]()
    twin = copy(scorer)  # with its own `encode`, and a prior that is read as before

    def encode(history: Int[Tensor, "batch longest"], times: Int[Tensor, "batch longest"] | None) -> Tensor:
        key = repr(history.shape).encode() + history.cpu().numpy().tobytes()
        key += b"" if times is None else times.cpu().numpy().tobytes()
        if key not in known:
            known[key] = original(history, times)
        return known[key]

    twin.encode = encode
    return twin


def _some_users(holdout: Holdout, most: int) -> Holdout:
    """The holdout of at most so many users, the same ones every time."""
    users = np.unique(holdout.positives.user)
    if len(users) <= most:
        return holdout
    chosen = np.random.default_rng(0).choice(users, most, replace=False)
    return replace(holdout, positives=holdout.positives.take(np.flatnonzero(np.isin(holdout.positives.user, chosen))))


def _sample(scorer: Scorer, holdout: Holdout) -> Float[Tensor, "users items"]:
    """Scores of up to 256 users of the holdout."""
    users = np.unique(holdout.positives.user)
    users = users[:: -(-len(users) // 256)].astype(np.int64)
    with torch.inference_mode():
        return scorer(query_of(scorer, holdout, users)).float().cpu()


def _spread(scores: Float[Tensor, "users items"]) -> float:
    """The standard deviation of a user's scores, mean over users; 0 where there is one item."""
    return float(scores.std(dim=1, correction=0).mean())


def _list_end(scores: Float[Tensor, "users items"]) -> Float[Tensor, " users"]:
    """The score of each user's last item on a list."""
    return scores.topk(min(_LIST, scores.shape[1]), dim=1).values[:, -1]
