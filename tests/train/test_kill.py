"""Kill -9 while training and while writing checkpoints, twenty times: the resumed run has the bits of an uninterrupted
one, and no file is torn. And: several processes train one model."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from modalmix.files import read_json
from modalmix.train.tensors import read_tensors

NURSERY = Path(__file__).parent / "nursery.py"
KILLS = 20


def nursery(*arguments: object) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(NURSERY), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_twenty_kills(tmp_path: Path) -> None:
    told = nursery("kill", tmp_path, KILLS, 5)
    assert told["kills"] == KILLS
    assert set(told["ends"]) == {0}
    assert len(set(told["epochs"])) > 5, "the kills came at different moments"
    whole = tmp_path / "whole"
    for run in tmp_path.glob("run-*"):
        for name in ("best", "last"):
            ours, header = read_tensors(run / f"{name}.safetensors")
            theirs, expected = read_tensors(whole / f"{name}.safetensors")
            assert ours.keys() == theirs.keys()
            assert all(torch.equal(ours[key], theirs[key]) for key in ours), f"{run.name}: {name}"
            if name == "best":
                assert header == expected
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        others = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
        assert [(row["epoch"], row["loss"], row["report"], row["score"]) for row in rows] == [
            (row["epoch"], row["loss"], row["report"], row["score"]) for row in others
        ]
        assert {one.name for one in run.iterdir()} == {one.name for one in whole.iterdir()}, "nothing is left over"
        assert read_json(run / "run.json")["finished"] is not None


@pytest.mark.slow
def test_two_processes_train_one_model(tmp_path: Path) -> None:
    told = nursery("ddp", tmp_path, 2)
    assert told["ends"] == [0, 0]
    first, second = read_json(tmp_path / "0.json"), read_json(tmp_path / "1.json")
    assert first["shared"] == second["shared"], "weights, score, mean losses and report are the same in both"
    own = [process["own"]["negative"] for process in (first, second)]
    assert own[0] != own[1], "each has seen its own batches"
    assert first["shared"]["report"]["negative"] == pytest.approx(sum(own) / 2, rel=1e-6)
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(row)["loss"]["bpr"] for row in rows]
    assert losses[-1] < 0.8 * losses[0]
    assert read_json(tmp_path / "run" / "run.json")["result"]["epochs"] == len(rows)
