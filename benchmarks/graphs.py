"""Graph models on the field's 8:1:1 splits: `python -m benchmarks.graphs [--only TEXT ...] [--table]`.

Rows grow in results/graphs.jsonl. Selection and early stopping see validation only (Recall@20, train items masked);
the test split is ranked once a row: with mask=train (the field's protocol), mask=seen, and for users and items of the
long tail. Every model runs with its defaults on every data set, BM3 with its features trained. Per-user values, which
the paired tests need, go to results/per_user/. MAGNET's default is served in two steps too, for users of the validation
split: what of its exact lists is found, and at what cost.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from statistics import mean
from typing import Any

import numpy as np

from benchmarks.data import REAL
from benchmarks.paired import p_cells, paired_tests, save_values, values_file
from benchmarks.record import record, timed_fit
from benchmarks.rows import RESULTS, Task, by_data, command_line, training_folder
from benchmarks.tables import Row, best_first, costs, head, line, spread
from modalmix.data import Dataset, Holdout
from modalmix.evaluation import EvaluateConfig
from modalmix.evaluation import evaluate as evaluate_scorer
from modalmix.evaluation.retrieval import retrieval_curve
from modalmix.models.contract import Scorer, find_model
from modalmix.models.contract.retrieval import PairScorer
from modalmix.pipeline import load_data, split_data
from modalmix.train import TrainConfig, TrainResult

FILE, TABLE = RESULTS / "graphs.jsonl", RESULTS / "graphs.md"
METRICS, KS = ("recall", "ndcg"), (10, 20, 50)
SHOWN = ("recall@20", "ndcg@20")
SPECTRAL = ("image_spectral64", "text_spectral64")
DATA = {  # name -> seeds, modalities, what the features are
    "amazon-baby": (3, SPECTRAL, "item graphs: of the original features, as given; dense features GRAPH-DERIVED"),
    "amazon-sports": (2, SPECTRAL, "item graphs: of the original features, as given; dense features GRAPH-DERIVED"),
    "tiktok": (2, ("image", "audio"), "given image and audio features; item graphs computed from them"),
}
CLOSED = ("popularity", "itemknn", "ease", "graphfilter")
TRAINED = ("magnet", "smore", "freedom", "mgcn", "lattice", "bm3", "lightgcn", "bprmf", "vbpr")
STRONGER = {"bm3": "trained"}  # on validation than the default, which freezes features (docs/models/bm3.md)
BESIDE = (  # beside the default: published settings of one data set, FREEDOM with L2, neighbours both ways
    ("smore", "amazon-sports", "sports"),
    ("bm3", "amazon-sports", "sports"),
    *(("freedom", data, "l2") for data in DATA),
    *(("magnet", data, "both-ways") for data in DATA),
)
PRESETS = ("no-prior", "paper")
ABLATIONS = "amazon-baby"
CANDIDATES = (20, 50, 100, 200, 500)  # of two-step serving
SPARSE, TAIL = 3, 0.8  # train events of a sparse user at most; quantile of item degrees below which the long tail is


def tasks() -> Iterator[Task]:
    """Every row there should be, the cheap ones first."""
    for data in DATA:
        for model in CLOSED:
            yield task(model, data, 0)
    for seed in range(max(seeds for seeds, _, _ in DATA.values())):
        for data, (seeds, _, _) in DATA.items():
            if seed < seeds:
                for model in TRAINED:
                    yield task(model, data, seed, STRONGER.get(model, "default"))
    for model, data, preset in BESIDE:
        for seed in range(DATA[data][0]):
            yield task(model, data, seed, preset)
    for seed in range(2):
        for data in DATA:
            for preset in PRESETS:
                yield task("magnet", data, seed, preset=preset)
    config = find_model("magnet").config
    for seed in range(2):
        for variant in config.ablations:
            yield task("magnet", ABLATIONS, seed, variant=variant)


def task(model: str, data: str, seed: int, preset: str = "default", variant: str = "") -> Task:
    """One model on one data set; `variant` is one of its ablations."""
    key = {"model": model, "preset": preset, "variant": variant, "data": data, "seed": seed}
    return Task(key, partial(measure, key))


def open_data(name: str) -> Dataset:
    """A data set with the features of `DATA`."""
    return load_data(REAL / name, features="files", modalities=DATA[name][1])


def measure(key: Mapping[str, Any]) -> dict[str, Any]:
    """Fit once, rank the test split under both masks, and its tails."""
    dataset = open_data(key["data"])
    split = split_data(dataset, "as-given")
    found = find_model(key["model"])
    settings = dict(found.config.ablations[key["variant"]]) if key["variant"] else {}
    if "seed" in found.config.model_fields:
        settings["seed"] = 2025 + key["seed"]
    train = TrainConfig(progress=False, metric="recall@20", mask="train", checkpoint_every=10)
    config, id = found.config.preset(key["preset"], **settings), Task(key, dict).id
    fitted, seconds = timed_fit(found, split, config, train, training_folder(id))
    scorer, testing = fitted.scorer(), split.testing()
    ranking = EvaluateConfig(metrics=METRICS, ks=KS, mask="train", pools=("all",))
    cpu = time.process_time()
    results = {"train": evaluate_scorer(scorer, testing, ranking)}
    seconds["ranking_cpu_s"] = round(time.process_time() - cpu, 2)
    results["seen"] = evaluate_scorer(scorer, testing, ranking.replace(mask="seen", floors=False))
    for name, part in tails(testing).items():
        results[name] = evaluate_scorer(scorer, part, ranking.replace(floors=False))
    save_values(values_file(RESULTS, id), results["train"].per_user, "recall@20")
    return {
        **record(fitted, dataset, split, train, "python -m benchmarks.graphs"),
        **routing_facts(fitted.result),
        "two_steps": two_steps(scorer, split.validation()) if name_of(key) == "magnet" else None,
        **seconds,
        "test": {name: result.to_dict() for name, result in results.items()},
    }


def routing_facts(result: TrainResult) -> dict[str, Any]:
    """What the training record says of the epoch whose weights are served; the first epoch of stage 2, None if the
    model has no stages or never came there; whether it was forced."""
    reports = {row["epoch"]: row["report"] for row in result.history}
    second = [epoch for epoch, report in reports.items() if report.get("stage") == 2]
    return {
        "report": reports.get(result.best_epoch, {}),
        "stage_2_from": min(second, default=None),
        "forced": any(report.get("forced") for report in reports.values()),
    }


def two_steps(scorer: Scorer, validation: Holdout) -> dict[str, Any] | None:
    """Two-step serving beside exact lists; None where all items are scored at once anyway."""
    return retrieval_curve(scorer, validation, CANDIDATES).to_dict() if isinstance(scorer, PairScorer) else None


def tails(testing: Holdout) -> dict[str, Holdout]:
    """Parts of the held-out events, all other things alike: of sparse users, and of items in the long tail."""
    user_degree, item_degree = testing.train.user_degree, testing.train.item_degree
    positives = testing.positives
    parts = {
        "sparse users": user_degree[positives.user] <= SPARSE,
        "long tail": item_degree[positives.item] <= np.quantile(item_degree, TAIL),
    }
    return {name: replace(testing, positives=positives.take(part)) for name, part in parts.items() if part.any()}


def name_of(row: Mapping[str, Any]) -> str:
    """Model, and what is not its default."""
    return " ".join([row["model"], *([] if row["preset"] == "default" else [row["preset"]]), row["variant"]]).strip()


def tests_against_magnet(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Model -> p cell of its paired t-test against magnet (Recall@20, mask=train); a closed form has every seed."""

    def seeds_of(row: Row) -> Iterable[int]:
        return range(DATA[row["data"]][0]) if row["model"] in CLOSED else [row["seed"]]

    found = paired_tests(rows, RESULTS, "magnet", "recall@20", name_of, seeds_of)
    return p_cells(found, "graphs", rows[0]["data"])


def table() -> str:
    """One section a data set, best first."""
    rows = by_data(FILE)
    return "\n".join(_section(data, rows[data]) for data in DATA if data in rows)


def _section(data: str, rows: list[dict[str, Any]]) -> str:
    found = tests_against_magnet(rows)
    lines = [f"## {data}", "", f"{DATA[data][2]}. Split {rows[0]['split_sha256'][:12]}.", ""]
    names = ["model", "n", "Recall@20, mask=train", "NDCG@20", "p", "Recall@20, mask=seen", "NDCG@20", "validation"]
    lines += head([*names, "sparse users", "long tail", "CPU s", "an epoch"])
    for name, ones in best_first(rows, name_of, lambda row: _values([row], "train", "recall@20")[0]):
        cells = [name, str(len(ones)), *(spread(_values(ones, "train", metric)) for metric in SHOWN)]
        cells += [found.get(name, ""), *(spread(_values(ones, "seen", metric)) for metric in SHOWN)]
        cells += [f"{mean(row['validation'] for row in ones):.4f}"]
        cells += [_of_part(ones, part) for part in ("sparse users", "long tail")]
        lines.append(line([*cells, *costs(ones)]))
    return "\n".join([*lines, *_served_in_two_steps(rows)]) + "\n"


def _served_in_two_steps(rows: list[dict[str, Any]]) -> list[str]:
    """Magnet's default, in means over the seeds whose rows have it; nothing where none has."""
    ones = [row["two_steps"] for row in rows if name_of(row) == "magnet" and row.get("two_steps")]
    if not ones:
        return []
    users, items = ones[0]["users"], ones[0]["items"]
    exact = mean(one["exact_cpu_ms"] for one in ones)
    asked = f"{users:,} users of validation, {ones[0]['chunk']} at once, n {len(ones)}"
    how = "candidates by inner products and as many by the prior, scored exactly; recall of the exact lists"
    lines = ["", f"magnet in two steps ({how}), {asked}:", ""]
    lines += head(["candidates", "scored", "recall@10", "recall@20", "CPU ms a user"])
    for points in zip(*(one["points"] for one in ones), strict=True):
        recall = [f"{mean(point['recall'][k] for point in points):.3f}" for k in ("10", "20")]
        scored, ms = (mean(point[name] for point in points) for name in ("scored", "cpu_ms"))
        lines.append(line([str(points[0]["candidates"]), f"{scored:,.0f}", *recall, f"{ms:.2f}"]))
    return [*lines, line(["all", f"{items:,}", "1", "1", f"{exact:.2f}"])]


def _of_part(rows: list[dict[str, Any]], part: str) -> str:
    """Mean Recall@20 over seeds; a dash where nobody is in that part of the test split."""
    return f"{mean(_values(rows, part, 'recall@20')):.4f}" if part in rows[0]["test"] else "–"


def _values(rows: Iterable[Row], part: str, metric: str) -> list[float]:
    return [row["test"][part]["pools"]["all"]["metrics"][metric]["mean"] for row in rows]


def show(row: Mapping[str, Any]) -> None:
    """One line a finished row."""
    figures = " ".join(f"{part} {_values([dict(row)], part, 'recall@20')[0]:.4f}" for part in row["test"])
    print(
        name_of(row), row["data"], row["seed"], f"validation {row['validation']:.4f}", figures, f"{row['cpu_s']} CPU s"
    )


HEAD = f"""# Graph models
Made by `python -m benchmarks.graphs`, which runs only missing rows; settings, seeds, hashes and versions of every row
are in `graphs.jsonl`. The field's fixed 8:1:1 splits, full ranking. Mean ± sd over n seeds. Selection by validation
Recall@20 alone. mask=train leaves out train items (the field's protocol), mask=seen validation items as well. p:
paired t-test of Recall@20 (mask=train) against magnet over users, Holm-corrected over the other models, and apart from
them over the other forms of magnet, on the seeds whose per-user values there are (a star: computed from values that
were not kept, with one correction over models and forms together). Sparse users: at most {SPARSE} train events; long
tail: test events of items up to the {TAIL:.0%} quantile of train degrees (Recall@20, mask=train). Every model has its
defaults, BM3 with its features trained. CPU seconds were measured with other work on the machine.

"""


def main() -> None:
    """Run what is missing, then write the table."""
    command_line(__doc__, tasks, FILE, show)
    TABLE.write_text(HEAD + table(), encoding="utf-8")


if __name__ == "__main__":
    main()
