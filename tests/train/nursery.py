"""Trains the tiny model in forked processes and kills them. A fork inherits torch: 20 kills need no 20 imports.

    python nursery.py kill FOLDER KILLS SEED     prints what happened as JSON
    python nursery.py ddp FOLDER PROCESSES       trains in several processes, leaves FOLDER/run and one JSON a process

A program of its own, because a process that has used polars' threads must not fork: nothing here runs before the fork.
"""

import importlib.util
import json
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning_fabric  # noqa: F401 imported once, before the forks
import torch

import modalmix.data.splitters  # noqa: F401
from modalmix.models.contract import find_model
from modalmix.train import TrainConfig, fit, tensors

HERE = Path(__file__).parent
CONFIG = TrainConfig(device="cpu", progress=False)
EPOCHS = 16


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train_whole(folder: Path, world: Any, config: TrainConfig = CONFIG) -> Any:
    kind = find_model(str(HERE / "tiny_model.py"))
    return fit(kind, world.two_tastes(), kind.config(epochs=EPOCHS), config, folder)


def in_child(work: Callable[[], None]) -> int:
    """The id of a process that does the work."""
    process = os.fork()
    if process:
        return process
    try:
        work()
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def kill_at_call(number: int) -> None:
    """Make this process kill itself around its number-th step of writing a file: before, half way through, after."""
    calls = 0

    def counted(step: Callable[..., Any], half: Callable[..., None] | None = None) -> Callable[..., Any]:
        def stepping(*values: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                if half is not None:
                    half(*values)
                os.kill(os.getpid(), signal.SIGKILL)
            return step(*values, **named)

        return stepping

    def torn(flat: Any, path: Path, *_: Any) -> None:
        path.write_bytes(b"half a header")

    tensors.save_file = counted(tensors.save_file, torn)  # type: ignore[assignment]
    os.replace = counted(os.replace)  # type: ignore[assignment]
    os.fsync = counted(os.fsync)  # type: ignore[assignment]


def kill_many(base: Path, kills: int, seed: int) -> dict[str, Any]:
    world = load("conftest")
    rng = random.Random(seed)
    start = time.perf_counter()
    os.waitpid(in_child(lambda: train_whole(base / "whole", world) and None), 0)
    lasts = time.perf_counter() - start
    killed, folder, moments, survived = 0, 0, [], 0
    while killed < kills:
        run = base / f"run-{folder}"
        by_clock = rng.random() < 0.5
        call = 0 if by_clock else rng.randrange(1, 80)

        def work(run: Path = run, call: int = call) -> None:
            if call:
                kill_at_call(call)
            train_whole(run, world)

        process = in_child(work)
        if by_clock:
            time.sleep(rng.uniform(0.1, 0.9) * lasts)
            os.kill(process, signal.SIGKILL)
        status = os.waitpid(process, 0)[1]
        if os.WIFSIGNALED(status):
            killed += 1
            moments.append(last_epoch(run))
        elif os.WEXITSTATUS(status):
            raise SystemExit("training failed: see above")
        else:
            survived += 1
            folder += 1
    ends = [os.waitpid(in_child(lambda run=run: train_whole(run, world) and None), 0)[1] for run in base.glob("run-*")]
    return {"kills": killed, "survived": survived, "epochs": moments, "ends": ends, "runs": folder + 1}


def last_epoch(run: Path) -> int | None:
    """The epoch of the checkpoint a killed process left; a torn file raises."""
    last = run / "last.safetensors"
    return tensors.read_tensors(last)[1]["state"]["epoch"] if last.exists() else None


def in_processes(base: Path, world_size: int) -> dict[str, Any]:
    """The environment that torchrun would set, one forked process a rank."""
    world = load("conftest")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def work(rank: int) -> None:
        os.environ.update(
            MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), NODE_RANK="0", LOCAL_RANK=str(rank), RANK=str(rank)
        )
        os.environ["WORLD_SIZE"] = str(world_size)
        fitted = train_whole(base / "run", world, CONFIG.replace(devices=world_size))
        weights = {name: value.double().sum().item() for name, value in fitted.model.state_dict().items()}
        last = fitted.result.history[-1]
        shared = {"weights": weights, "score": fitted.result.best_score, "loss": last["loss"], "report": last["report"]}
        own = {name: float(value) for name, value in fitted.model.monitored().items()}
        (base / f"{rank}.json").write_text(json.dumps({"shared": shared, "own": own}))
        torch.distributed.destroy_process_group()

    processes = [in_child(lambda rank=rank: work(rank)) for rank in range(world_size)]  # type: ignore[misc]
    return {"ends": [os.waitpid(process, 0)[1] for process in processes]}


if __name__ == "__main__":
    what, base = sys.argv[1], Path(sys.argv[2])
    print(
        json.dumps(
            kill_many(base, int(sys.argv[3]), int(sys.argv[4]))
            if what == "kill"
            else in_processes(base, int(sys.argv[3]))
        )
    )
