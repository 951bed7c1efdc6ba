"""Accuracy on warm items: `python -m benchmarks.quality [--only TEXT] [--table]`. Rows grow in results/quality.jsonl.

Selection, early stopping included, sees validation only; the test split is ranked once a row. Every row holds model,
data, split and its hash, seed, settings, command, versions, CPU seconds and the estimates with their n.
"""

import platform
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from statistics import mean
from typing import Any

import numpy as np
import torch

from benchmarks.data import REAL
from benchmarks.rows import RESULTS, Task, command_line, read
from benchmarks.tables import spread
from modalmix.evaluation import EvaluateConfig
from modalmix.evaluation import evaluate as evaluate_scorer
from modalmix.models.contract import find_model
from modalmix.pipeline import fit, load_data, split_data
from modalmix.train import TrainConfig

FILE = RESULTS / "quality.jsonl"
TABLE = RESULTS / "quality.md"
METRICS, KS = ("recall", "ndcg", "recall_capped"), (10, 20, 50)
Modalities = tuple[str, ...]
SHOWN = ("recall@20", "ndcg@20")


def tasks() -> Iterator[Task]:
    """Every row there should be, cheap ones first."""
    for data in ("amazon-baby", "amazon-clothing"):
        for model in ("popularity", "itemknn"):
            yield warm(model, data, 0)
    for seed in range(3):
        for model in ("bprmf", "lightgcn"):
            yield warm(model, "amazon-baby", seed)
    yield warm("lightgcn", "amazon-clothing", 0)
    yield warm("bprmf", "amazon-clothing", 0)
    yield warm("vbpr", "amazon-baby", 0, modalities=("image_spectral64", "text_spectral64"))


def warm(model: str, data: str, seed: int, modalities: Modalities = (), **settings: Any) -> Task:
    """The field's 8:1:1 split as given; masks train (the field's) and seen (ours)."""
    key = {"model": model, "preset": "default", "data": data, "split": "as-given", "split_seed": None, "seed": seed}
    key |= {"modalities": list(modalities), "settings": settings}
    return Task(key, partial(measure, key, ("train", "seen")))


def measure(key: Mapping[str, Any], masks: tuple[str, ...]) -> dict[str, Any]:
    """Fit once, rank the test split under each mask."""
    modalities = tuple(key["modalities"])
    features = "files" if modalities else "none"
    dataset = load_data(REAL / key["data"], features=features, modalities=modalities or None)
    split = split_data(dataset, key["split"])
    settings = dict(key["settings"])
    if "seed" in find_model(key["model"]).config.model_fields:
        settings["seed"] = 2025 + key["seed"]
    wall, cpu = time.perf_counter(), time.process_time()
    train = TrainConfig(progress=False, metric="recall@20", mask=masks[0])
    fitted = fit(split, key["model"], preset=key["preset"], train=train, **settings)
    seconds = {"cpu_s": round(time.process_time() - cpu, 2), "wall_s": round(time.perf_counter() - wall, 2)}
    results = {}
    for mask in masks:
        config = EvaluateConfig(metrics=METRICS, ks=KS, mask=mask, pools=("all",))
        evaluation = evaluate_scorer(fitted.scorer, split.testing(), config)
        results[mask] = evaluation.to_dict()
    return {
        "config": fitted.model.config.model_dump(mode="json"),
        "train": train.model_dump(mode="json"),
        "summary": fitted.summary(),
        "split_sha256": split.sha256,
        "features": {name: m.sha256 for name, m in dataset.catalog.modalities.items()},
        **seconds,
        "masks": results,
        "command": "python -m benchmarks.quality",
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
        "threads": torch.get_num_threads(),
    }


def table() -> str:
    """Mean and sd over seeds as Markdown; n beside every figure."""
    groups: dict[tuple[Any, ...], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in read(FILE).values():
        for mask, evaluation in row["masks"].items():
            for pool, result in evaluation["pools"].items():
                name = " ".join([row["model"], *_particulars(row)])
                group = (row["data"], row["split"], mask, pool, name)
                for metric in SHOWN:
                    groups[group][metric].append(result["metrics"][metric]["mean"])
                groups[group]["cpu_s"].append(row["cpu_s"])
    lines = [
        "| data | split | mask | pool | model | n | Recall@20 | NDCG@20 | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for group, values in sorted(groups.items()):
        shown = [spread(values[metric]) for metric in SHOWN]
        n = len(values["cpu_s"])
        lines.append(_line([*group, n, *shown, round(mean(values["cpu_s"]))]))
    return "\n".join(lines) + "\n"


def _particulars(row: Mapping[str, Any]) -> list[str]:
    """What of a row is not the default: preset, settings, a part of the modalities."""
    preset = [] if row["preset"] == "default" else [row["preset"]]
    settings = [f"{name}={value}" for name, value in row["settings"].items()]
    return preset + settings + ([f"({row['modalities'][0]} only)"] if len(row["modalities"]) == 1 else [])


def _line(cells: Iterable[Any]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def show(row: Mapping[str, Any]) -> None:
    """One line a finished row."""
    print(row["model"], row["preset"], row["data"], row["seed"], f"{row['cpu_s']} CPU s", flush=True)


def main() -> None:
    """Run what is missing, then write the table."""
    command_line(__doc__, tasks, FILE, show)
    TABLE.write_text(HEAD + table(), encoding="utf-8")


HEAD = """# Accuracy on real data
Made by `python -m benchmarks.quality`, which runs only missing rows; settings, seeds, hashes and versions of every row
are in `quality.jsonl`. Mean ± sd over n seeds. Selection by validation only. `mask=train` is the field's protocol,
`mask=seen` also masks the validation items. Amazon features are graph-derived: not comparable with papers that use the
original ones. Items held out whole: `cold.md`.

"""

if __name__ == "__main__":
    main()
