"""A scorer that reads histories is asked with what was known at that time, and with nothing that is held out."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from jaxtyping import Float
from torch import Tensor

from modalmix.data import Interactions, Sequences
from modalmix.data.split import Holdout
from modalmix.evaluation import evaluate, validation_score
from modalmix.evaluation.calibration import fit_calibration
from modalmix.evaluation.settings import EvaluateConfig
from modalmix.models.contract import Query, Scorer
from modalmix.models.contract.calibrated import Calibration, calibrate
from modalmix.models.contract.history import HistoryScorer

TRAIN, VALID, TEST = [(0, 3), (0, 1), (1, 2), (2, 4)], [(0, 2), (1, 0)], [(0, 5), (1, 4), (3, 1)]


class Recorder(HistoryScorer):
    """Scores items by their row; keeps what it was asked."""

    def __init__(self, length: int = 50, items: int = 6, reads_times: bool = False) -> None:
        nobody = Interactions(np.empty(0, np.int32), np.empty(0, np.int32), 4, items)
        super().__init__(length, Sequences.of(nobody), items, reads_times)
        self.asked: list[list[int]] = []
        self.times: list[list[int]] = []

    def __call__(self, query: Query) -> Float[Tensor, "batch items"]:
        assert query.history is not None, "asked by row: it would answer from the train part alone"
        self.asked += [[item for item in row if item >= 0] for row in query.history.tolist()]
        if query.times is not None:
            real = zip(query.history.tolist(), query.times.tolist(), strict=True)
            self.times += [[t for item, t in zip(*row, strict=True) if item >= 0] for row in real]
        return torch.arange(float(self.n_items)).repeat(len(query), 1)

    def calibrated(self, scale: Tensor, offset: Tensor) -> "HistoryScorer":
        return self


HoldoutOf = Callable[..., Holdout]


def test_validation_asks_with_train_items(holdout_of: HoldoutOf) -> None:
    scorer = Recorder()
    evaluate(scorer, holdout_of(VALID, TRAIN, users=4, items=6))
    assert scorer.asked == [[3, 1], [2]]
    again = Recorder()
    validation_score(again, holdout_of(VALID, TRAIN, users=4, items=6))
    assert again.asked == scorer.asked


def test_testing_asks_with_train_and_validation_items(holdout_of: HoldoutOf) -> None:
    scorer = Recorder()
    evaluate(scorer, holdout_of(TEST, TRAIN, users=4, items=6, valid=VALID))
    assert scorer.asked == [[3, 1, 2], [2, 0], []], "user 3 has met nothing yet"


@pytest.mark.parametrize("mask", ["none", "train", "seen"])
def test_neither_mask_nor_chunk_changes_what_is_asked(holdout_of: HoldoutOf, mask: str) -> None:
    scorer = Recorder(length=2)
    config = EvaluateConfig.parse({"mask": mask, "chunk": 1})
    evaluate(scorer, holdout_of(TEST, TRAIN, users=4, items=6, valid=VALID), config)
    assert scorer.asked == [[1, 2], [2, 0], []]


def test_histories_are_in_time_order_and_hold_nothing_held_out(holdout_of: HoldoutOf) -> None:
    rng = np.random.default_rng(0)
    pairs = [(user, int(item)) for user in range(20) for item in rng.permutation(40)[:9]]
    parts = [[pair for k, pair in enumerate(pairs) if k % 3 == part] for part in range(3)]
    holdout = holdout_of(parts[2], parts[0], users=20, items=40, valid=parts[1])
    time = rng.permutation(len(holdout.seen)).astype(np.int64)
    holdout = replace(holdout, seen=replace(holdout.seen, time=time))
    scorer = Recorder(items=40)
    evaluate(scorer, holdout)
    for user, asked in enumerate(scorer.asked):
        events = np.flatnonzero(holdout.seen.user == user)
        assert asked == holdout.seen.item[events[np.argsort(time[events])]].tolist()
        assert not set(asked) & {item for owner, item in parts[2] if owner == user}


def test_who_reads_times_is_told_when_what_was_known_then_happened(holdout_of: HoldoutOf) -> None:
    holdout = holdout_of(TEST, TRAIN, users=4, items=6, valid=VALID)
    when = {pair: 10 * k + 7 for k, pair in enumerate([*TRAIN, *VALID])}
    pairs = zip(holdout.seen.user.tolist(), holdout.seen.item.tolist(), strict=True)
    holdout = replace(holdout, seen=replace(holdout.seen, time=np.array([when[pair] for pair in pairs])))
    scorer, without = Recorder(reads_times=True), Recorder()
    evaluate(scorer, holdout)
    evaluate(without, holdout)
    assert scorer.asked == without.asked == [[3, 1, 2], [2, 0], []]
    assert scorer.times == [
        [when[user, item] for item in row] for user, row in zip((0, 1, 3), scorer.asked, strict=True)
    ]
    assert without.times == []


class Follower:
    """Scores an item 1 where the user has met the one before it; keeps whom it was asked to follow."""

    def __init__(self, met: sp.csr_matrix) -> None:
        self.met = met

    def following(self, met: sp.csr_matrix) -> "Follower":
        return Follower(met)

    def __call__(self, query: Query) -> Float[Tensor, "batch items"]:
        assert query.users is not None
        return torch.from_numpy(np.roll(self.met[query.users.numpy()].toarray(), 1, axis=1))


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(("in_order", "found"), [(True, 1.0), (False, 0.25)])
def test_who_follows_events_is_told_of_those_before_a_held_out_one(
    holdout_of: HoldoutOf, in_order: bool, found: float, wrapped: bool
) -> None:
    """User 0 met 1, then 2, then 3: only who knows of 2 expects 3; to others what is left, 0, 3, 4, 5, is alike."""
    holdout = replace(holdout_of([(0, 3)], [(0, 1)], users=1, items=6, valid=[(0, 2)]), in_order=in_order)
    scorer: Scorer = Follower(holdout.train.csr)
    if wrapped:
        scorer = calibrate(scorer, torch.ones(6, dtype=torch.bool), Calibration(1.0, 0.5))
    config = EvaluateConfig(metrics=("recall",), ks=(1,), mask="seen")
    assert evaluate(scorer, holdout, config).pools["all"].metrics["recall@1"].mean == pytest.approx(found)


def test_calibration_asks_with_histories_too(holdout_of: HoldoutOf) -> None:
    scorer = Recorder()
    fit_calibration(scorer, holdout_of([(0, 5), (1, 1)], TRAIN, users=4, items=6), "offset")
    assert {tuple(one) for one in scorer.asked} == {(3, 1), (2,)}
