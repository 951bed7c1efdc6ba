"""Speed and memory on generated inputs of the Amazon sets' shape: `python -m benchmarks.speed [--only TEXT] [--fresh]`.

One thread; CPU seconds (user + system) of the best of several repetitions after a warm-up, each row in a process of its
own, so that peak memory is its own. Rows grow in results/speed.jsonl, the table is results/speed.md.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from benchmarks.rows import RESULTS, Task, read, run

FILE = RESULTS / "speed.jsonl"
TABLE = RESULTS / "speed.md"
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
RAW = {"image": 4096, "text": 384}  # dims of the original Amazon features
SMALL = {"image": 512, "text": 512}

# name -> (what, target, peer); peers were measured once, on another machine
ROWS: dict[str, tuple[str, str, str]] = {
    "negatives": ("an epoch's negatives, Baby", "<= 0.02 s", ""),
    "lightgcn": ("LightGCN epoch, Baby, 2 layers", "<= 1.6 s, goal 1.05; 500 MB", "MMRec 4.7 s"),
    "bprmf": ("BPR-MF epoch, Baby", "", ""),
    "vbpr-raw": ("VBPR epoch, Baby, 4096-d + 384-d", "<= 3.0 s; 1,000 MB", "MMRec 6.1 s"),
    "vbpr": ("VBPR epoch, Baby, 512-d + 512-d", "", ""),
    "mamex-batch": ("MAMEX epoch, Baby, 512-d + 512-d, preset joint (aux_scope=batch)", "<= 2 x VBPR; 1,000 MB", ""),
    "mamex-prepare": ("MAMEX teacher and experts, Baby, 512-d + 512-d, default preset: once, before epoch 1", "", ""),
    "mamex-default": ("MAMEX epoch, Baby, 512-d + 512-d, default preset (taught; items)", "", ""),
    "mamex-paper": ("MAMEX epoch, Baby, 512-d + 512-d, preset paper (aux_scope=all)", ">= 5 x faster than afresh", ""),
    "mamex-afresh": ("the same loss, every item encoded afresh with E separate linears", "", "plain reference"),
    "freedom": ("FREEDOM epoch, Baby, 4096-d + 384-d, frozen", "<= 5 s", "MMRec 24.6 s, trained features"),
    "bm3": ("BM3 epoch, Baby, 512-d + 512-d", "", ""),
    "lattice": ("LATTICE epoch, Baby, 512-d + 512-d", "", ""),
    "mgcn": ("MGCN epoch, Baby, 512-d + 512-d", "", ""),
    "smore": ("SMORE epoch, Baby, 512-d + 512-d", "", ""),
    "magnet": ("MAGNET epoch, Baby, 512-d + 512-d, default preset", "<= 12 s", ""),
    "magnet-paper": (
        "MAGNET epoch, Baby, 512-d + 512-d, preset paper (two views, perceptrons, contrast)",
        "<= 12 s",
        "",
    ),
    "magnet-sports": ("MAGNET epoch, Sports, 512-d + 512-d, default preset", "2,000 MB", ""),
    "sasrec": ("SASRec epoch, Beauty, d 64, 50 items, full softmax", "<= 16 s, goal 9; 800 MB", ""),
    "cammsr": ("CAMMSR epoch, the same, 384-d text, 637 categories, with swap", "<= 3 x SASRec, goal 1.5", ""),
    "cammsr-no-swap": ("the same without swap", "", ""),
    "rank-top2": ("MAGNET scores every item for every user, Baby, 9 experts, top 2, no filter", "<= 15 s", ""),
    "rank-dense": ("the same, all 9 experts", "<= 5 s", ""),
    "rank-filter": ("the same, top 2 and the filter", "", ""),
    "edges-sports": ("content-induced edges, Sports, two graphs of 10 neighbours", "<= 20 s", ""),
    "validation": (
        "one full-ranking validation, Baby, 4 metrics at 4 cut-offs",
        "<= 0.65 s, goal 0.45",
        "MMRec 2.5-3.2 s",
    ),
    "validation-sports": ("the same, Sports", "", ""),
    "validation-beauty": ("the same, Beauty", "", "RecBole 8.7-13.8 s"),
    "rank-sasrec": ("the same by SASRec (d 128), histories encoded before", "<= 5 s", ""),
    "rank-cammsr": ("the same by CAMMSR (d 128, 384-d text), without counted transitions", "<= 5 s", ""),
    "rank-cammsr-counts": ("the same by CAMMSR with them", "<= 5 s", ""),
}


def measure(name: str) -> dict[str, Any]:
    """One row, in this process."""
    import torch

    from modalmix.nn.memory import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()  # as the training loop does
    seconds = _actions()[name]()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
    return {"cpu_s": round(min(seconds), 4), "all_cpu_s": [round(s, 4) for s in seconds], "peak_mb": round(peak)}


def _actions() -> Mapping[str, Callable[[], list[float]]]:
    return {
        "negatives": _negatives,
        "lightgcn": partial(_epochs, "lightgcn", None, layers=2),
        "bprmf": partial(_epochs, "bprmf", None),
        "vbpr-raw": partial(_epochs, "vbpr", RAW),
        "vbpr": partial(_epochs, "vbpr", SMALL),
        "mamex-batch": partial(_epochs, "mamex", SMALL, preset="joint"),
        "mamex-prepare": _mamex_prepare,
        "mamex-default": partial(_epochs, "mamex", SMALL),
        "mamex-paper": partial(_epochs, "mamex", SMALL, preset="paper"),
        "mamex-afresh": _mamex_afresh,
        "freedom": partial(_epochs, "freedom", RAW),
        "bm3": partial(_epochs, "bm3", SMALL),
        "lattice": partial(_epochs, "lattice", SMALL),
        "mgcn": partial(_epochs, "mgcn", SMALL),
        "smore": partial(_epochs, "smore", SMALL),
        "magnet": partial(_epochs, "magnet", SMALL),
        "magnet-paper": partial(_epochs, "magnet", SMALL, preset="paper"),
        "magnet-sports": partial(_epochs, "magnet", SMALL, shape="sports"),
        "sasrec": partial(_epochs, "sasrec", None, shape="beauty", dim=64),
        "cammsr": partial(_epochs, "cammsr", {"text": 384}, shape="beauty", categories=637, dim=64),
        "cammsr-no-swap": partial(_epochs, "cammsr", {"text": 384}, shape="beauty", categories=637, dim=64, swap=0.0),
        "rank-top2": partial(_rank, top_k=2, prior="none"),
        "rank-dense": partial(_rank, top_k=9, prior="none"),
        "rank-filter": partial(_rank, top_k=2, prior="filter"),
        "edges-sports": _edges,
        "validation": partial(_validation, "baby", 20_559),
        "validation-sports": partial(_validation, "sports", 37_899),
        "validation-beauty": partial(_validation, "beauty", 22_363),
        "rank-sasrec": partial(_validation, "beauty", 22_363, "sasrec"),
        "rank-cammsr": partial(_validation, "beauty", 22_363, "cammsr", {"text": 384}, prior="none"),
        "rank-cammsr-counts": partial(_validation, "beauty", 22_363, "cammsr", {"text": 384}),
    }


def _epochs(
    model: str,
    dims: dict[str, int] | None,
    preset: str = "default",
    shape: str = "baby",
    categories: int = 0,
    **settings: Any,
) -> list[float]:
    """CPU seconds of three epochs after one to warm up: batches, negatives, forward, backward, Adam."""
    import numpy as np
    import torch

    from benchmarks.data import shaped
    from modalmix.models.contract import find_model

    data = shaped(shape, dims, categories=categories)
    found = find_model(model)
    torch.manual_seed(0)
    fitted: Any = found.recommender(found.config.preset(preset, **settings), data)
    fitted.prepare(data)
    optimizer = fitted.optimizer()
    seconds = []
    for epoch in range(4):
        start = time.process_time()
        fitted.start_epoch(epoch + 1)
        for batch in fitted.batches(data, fitted.config.batch_size, np.random.default_rng([0, epoch])):
            optimizer.zero_grad()
            sum(fitted.loss(batch).values()).backward()
            optimizer.step()
        seconds.append(time.process_time() - start)
    return seconds[1:]


def _negatives() -> list[float]:
    import numpy as np

    from benchmarks.data import shaped
    from modalmix.data.samplers import negatives

    data = shaped("baby")
    rng, seconds = np.random.default_rng(0), []
    for _ in range(6):
        start = time.process_time()
        negatives(data.interactions, data.interactions.user, rng, data.warm)
        seconds.append(time.process_time() - start)
    return seconds[1:]


def _mamex_prepare() -> list[float]:
    from benchmarks.data import shaped
    from modalmix.models.mamex import Mamex, MamexConfig

    data = shaped("baby", SMALL)
    start = time.process_time()
    Mamex(MamexConfig(), data).prepare(data)
    return [time.process_time() - start]


def _mamex_afresh() -> list[float]:
    """Twelve steps of the plain reference, scaled to an epoch: whole epochs of it take minutes."""
    from benchmarks.data import shaped
    from benchmarks.reference_mamex import step_seconds

    data = shaped("baby", SMALL)
    steps = -(-len(data.interactions) // 2048)
    return [seconds * steps for seconds in step_seconds(data, steps=12)[2:]]


def _rank(top_k: int, prior: str) -> list[float]:
    """All scores of all users, in the evaluator's chunks."""
    import torch

    from benchmarks.data import shaped
    from modalmix.models.contract import Query
    from modalmix.models.magnet import Magnet, MagnetConfig

    data = shaped("baby", SMALL)
    model = Magnet(MagnetConfig(top_k=top_k, prior=prior), data)  # type: ignore[arg-type]
    model.schedule.stage.fill_(2)
    scorer, seconds = model.scorer(data.catalog), []
    for _ in range(3):
        start = time.process_time()
        for users in torch.arange(data.n_users).split(128):
            scorer(Query(users=users))
        seconds.append(time.process_time() - start)
    return seconds[1:]


def _edges() -> list[float]:
    from benchmarks.data import shaped
    from modalmix.models.contract import item_graph
    from modalmix.nn.pseudo import mixed_similarity, pseudo_edges

    data = shaped("sports", {"image": 64, "text": 64})
    graphs = [item_graph(data.catalog, name, 10) for name in data.catalog.modalities]
    start = time.process_time()
    pseudo_edges(data.interactions.csr, mixed_similarity(graphs, [0.5, 0.5]))
    return [time.process_time() - start]


def _validation(
    shape: str, positives: int, model: str = "", dims: dict[str, int] | None = None, **settings: Any
) -> list[float]:
    """One positive for most users: the work of a validation with 4 metrics at 4 cut-offs.

    By random 64-d vectors, or by an untrained sequential model, which encodes the histories in the warm-up alone.
    """
    import numpy as np
    import torch

    from benchmarks.data import shaped
    from modalmix.data import Holdout, Interactions
    from modalmix.evaluation import EvaluateConfig, evaluate
    from modalmix.evaluation.calibration import remembering
    from modalmix.models.contract import DotScorer, find_model

    data = shaped(shape, dims, categories=637 if dims else 0)
    rng = np.random.default_rng(1)
    user = rng.permutation(np.arange(positives) % data.n_users).astype(np.int32)
    item = rng.integers(0, data.n_items, positives).astype(np.int32)
    held_out = Interactions(user, item, data.n_users, data.n_items)
    holdout = Holdout("valid", held_out, data.interactions, data.interactions, data.catalog, data.users)
    scorer: Any = DotScorer(torch.randn(data.n_users, 64), torch.randn(data.n_items, 64))
    if model:
        found = find_model(model)
        scorer = remembering(found.recommender(found.config.parse(settings), data).scorer(data.catalog))
    config = EvaluateConfig(metrics=("recall", "ndcg", "precision", "mrr"), ks=(5, 10, 20, 50), floors=False)
    seconds = []
    for _ in range(4):
        start = time.process_time()
        evaluate(scorer, holdout, config)
        seconds.append(time.process_time() - start)
    return seconds[1:]


def in_own_process(name: str) -> dict[str, Any]:
    """Measure a row in a fresh process with one thread."""
    command = [sys.executable, "-m", "benchmarks.speed", "--measure", name]
    done = subprocess.run(command, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr}")
    machine = {"cpu": _cpu(), "python": platform.python_version(), "load": round(os.getloadavg()[0], 2)}
    return {**json.loads(done.stdout.splitlines()[-1]), **machine}


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def tasks() -> Iterator[Task]:
    """All rows."""
    for name, (what, _, _) in ROWS.items():
        yield Task({"name": name, "what": what}, partial(in_own_process, name))


def table() -> str:
    """The rows as Markdown, in order."""
    rows = {row["name"]: row for row in read(FILE).values()}
    lines = ["| what | CPU s | peak MB | target | peer, another machine |", "|---|---|---|---|---|"]
    for name, (what, target, peer) in ROWS.items():
        if name in rows:
            lines.append(f"| {what} | {rows[name]['cpu_s']:.3f} | {rows[name]['peak_mb']:,} | {target} | {peer} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="run only rows whose name contains this text")
    parser.add_argument("--fresh", action="store_true", help="measure again, dropping the chosen rows")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    if options.fresh:
        kept = [row for row in read(FILE).values() if options.only not in row["name"]]
        FILE.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    chosen = [task for task in tasks() if options.only in task.key["name"]]
    run(chosen, FILE, lambda row: print(f"{row['what']}: {row['cpu_s']} CPU s, {row['peak_mb']} MB", flush=True))
    TABLE.write_text(HEAD + table(), encoding="utf-8")


HEAD = """# Speed
Made by `python -m benchmarks.speed` on generated inputs of the Amazon sets' shape; one thread,
CPU seconds of the best of three after a warm-up.
Peer figures were measured with the peers' own code on another machine: orders of magnitude, not ratios.

"""

if __name__ == "__main__":
    main()
