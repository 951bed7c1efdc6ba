"""The benchmark of graph models: sparse users, the long tail, and a table where one of them is empty."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import graphs
from modalmix.data import Catalog, IdMap, Interactions
from modalmix.data.split import Holdout
from modalmix.evaluation.retrieval import RetrievalCurve, RetrievalPoint
from modalmix.models.contract import DotScorer, Query
from modalmix.train import TrainResult

USERS, ITEMS = 3, 10


def events(pairs: list[tuple[int, int]]) -> Interactions:
    rows = np.array(pairs, dtype=np.int32).reshape(-1, 2)
    return Interactions(rows[:, 0], rows[:, 1], USERS, ITEMS)


def holdout(train: list[tuple[int, int]], positives: list[tuple[int, int]]) -> Holdout:
    known = events(train)
    return Holdout("test", events(positives), known, known, Catalog(IdMap(range(ITEMS))), IdMap(range(USERS), "user"))


def pairs(part: Holdout) -> list[tuple[int, int]]:
    return list(zip(part.positives.user.tolist(), part.positives.item.tolist(), strict=True))


# user 0 met four items, user 1 three, user 2 none; items 0 and 1 have three and two events, 2 and 3 one, 4 to 9 none
TRAIN = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 0)]


def test_tails_by_hand() -> None:
    parts = graphs.tails(holdout(TRAIN, [(0, 9), (1, 4), (2, 0), (2, 1), (2, 3)]))
    assert pairs(parts["sparse users"]) == [(1, 4), (2, 0), (2, 1), (2, 3)]
    assert pairs(parts["long tail"]) == [(0, 9), (1, 4), (2, 3)]  # 80 % of the items have one event or none
    assert all(part.seen is part.train for part in parts.values())


def test_a_tail_that_nobody_is_in_is_left_out() -> None:
    assert list(graphs.tails(holdout(TRAIN, [(0, 9)]))) == ["long tail"]
    assert list(graphs.tails(holdout(TRAIN, [(0, 1)]))) == []


def test_routing_facts_are_of_the_epoch_that_is_served() -> None:
    reports = [{"stage": 1, "H_use": 0.9}, {"stage": 1, "H_use": 0.8, "forced": 1.0}, {"stage": 2, "H_use": 0.7}]
    history = tuple({"epoch": k + 1, "report": report} for k, report in enumerate(reports))
    result = TrainResult(1, 0.5, 3, "patience", 1.0, 1.0, 1, history)
    facts = {"report": reports[0], "stage_2_from": 3, "forced": True}
    assert graphs.routing_facts(result) == facts
    assert graphs.routing_facts(replace(result, best_epoch=3))["report"] == reports[2]
    plain = replace(result, history=({"epoch": 1, "report": {}},))
    assert graphs.routing_facts(plain) == {"report": {}, "stage_2_from": None, "forced": False}
    assert graphs.routing_facts(replace(result, best_epoch=0, history=()))["report"] == {}


def test_the_table_has_a_dash_for_an_empty_tail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = {name: {"mean": 0.25} for name in graphs.SHOWN}
    parts = ("train", "seen", "long tail")
    row: dict[str, Any] = {"model": "bprmf", "preset": "default", "variant": "", "data": "amazon-baby", "seed": 0}
    row |= {"split_sha256": "hash", "validation": 0.5, "best_epoch": 3, "cpu_s": 1.0, "epoch_cpu_s": None}
    row |= {"id": "x", "test": {part: {"pools": {"all": {"metrics": metrics}}} for part in parts}}
    monkeypatch.setattr(graphs, "RESULTS", tmp_path)
    line = next(line for line in graphs._section("amazon-baby", [row]).splitlines() if line.startswith("| bprmf"))
    assert "| – | 0.2500 |" in line


def test_what_two_steps_find_stands_below_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Means over the seeds of the default that have it; another form of magnet, and a row from before, have no say."""
    metrics = {name: {"mean": 0.25} for name in graphs.SHOWN}
    base: dict[str, Any] = {"model": "magnet", "preset": "default", "variant": "", "data": "tiktok"}
    base |= {"split_sha256": "hash", "validation": 0.5, "best_epoch": 3, "cpu_s": 1.0, "epoch_cpu_s": None}
    base["test"] = {part: {"pools": {"all": {"metrics": metrics}}} for part in ("train", "seen")}

    def curve(found: float, ms: float) -> dict[str, Any]:
        point = RetrievalPoint(20, 30.0 + ms, {10: found, 20: 0.5}, ms)
        written: dict[str, Any] = json.loads(json.dumps(RetrievalCurve(1000, 6710, 128, 2.0, (point,)).to_dict()))
        return written

    rows = [
        {**base, "id": "a", "seed": 0, "two_steps": curve(1.0, 1.0)},
        {**base, "id": "b", "seed": 1, "two_steps": curve(0.9, 3.0)},
        {**base, "id": "c", "seed": 2},
        {**base, "id": "d", "seed": 0, "variant": "top-1", "two_steps": curve(0.0, 9.0)},
    ]
    monkeypatch.setattr(graphs, "RESULTS", tmp_path)
    assert graphs._section("tiktok", rows).splitlines()[-6:] == [
        "magnet in two steps (candidates by inner products and as many by the prior, scored exactly; recall of the "
        "exact lists), 1,000 users of validation, 128 at once, n 2:",
        "",
        "| candidates | scored | recall@10 | recall@20 | CPU ms a user |",
        "|---|---|---|---|---|",
        "| 20 | 32 | 0.950 | 0.500 | 2.00 |",
        "| all | 6,710 | 1 | 1 | 2.00 |",
    ]
    assert "two steps" not in graphs._section("tiktok", rows[2:])


def test_only_pair_scorers_are_served_in_two_steps() -> None:
    class Pairs(DotScorer):
        prior = None
        item_vectors = property(lambda self: self.items)

        def pairs(self, query: Query, candidates: torch.Tensor) -> torch.Tensor:
            return self(query).gather(1, candidates)

    many = graphs.CANDIDATES[-1]
    vectors, items = torch.eye(USERS), torch.rand(many, USERS, generator=torch.Generator().manual_seed(0))
    known, held = (Interactions(np.arange(2), np.arange(2) + k, USERS, many) for k in range(2))
    world = Holdout("validation", held, known, known, Catalog(IdMap(range(many))), IdMap(range(USERS), "user"))
    assert graphs.two_steps(DotScorer(vectors, items), world) is None
    found = graphs.two_steps(Pairs(vectors, items), world)
    assert found is not None
    assert [(one["candidates"], one["recall"]) for one in found["points"]] == [
        (n, {10: 1.0, 20: 1.0}) for n in graphs.CANDIDATES
    ]
