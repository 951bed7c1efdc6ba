"""Sequential models, leave-last-two-out: `python -m benchmarks.sequences [--only TEXT ...] [--table]`.

Rows grow in results/sequences.jsonl. Selection and early stopping see each user's last but one event only (NDCG@10,
nothing masked); the last one is ranked once a row, among all items: with mask=none, where what somebody has met stays a
candidate (the protocol of this family), and with mask=seen. Every model runs with its defaults on every data set.
Per-user values, which the paired tests need, go to results/per_user/.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from statistics import mean
from typing import Any

from benchmarks.data import REAL
from benchmarks.paired import p_cells, paired_tests, save_values, values_file
from benchmarks.record import record, timed_fit
from benchmarks.rows import RESULTS, Task, by_data, command_line, training_folder
from benchmarks.tables import Row, best_first, costs, head, line, spread
from modalmix.data import Dataset
from modalmix.data.perturb import wrong_labels
from modalmix.evaluation import EvaluateConfig
from modalmix.evaluation import evaluate as evaluate_scorer
from modalmix.models.contract import find_model
from modalmix.pipeline import load_data, split_data
from modalmix.train import TrainConfig

FILE, TABLE = RESULTS / "sequences.jsonl", RESULTS / "sequences.md"
METRICS, KS = ("recall", "ndcg", "mrr"), (5, 10, 20)
TESTED = "ndcg@10"
SEEDS = 3  # of cammsr and the strongest baselines; 1 of the others
DATA = {  # name -> modalities, what it is
    "movielens-posters": (
        ("image", "text"),
        "All ratings count. Posters (EfficientNet-Lite0) and title, genres, plot (MiniLM); categories: genres",
    ),
    "amazon-sports": (
        ("image_spectral64", "text_keywords"),
        "Image features GRAPH-DERIVED; keyword text (MiniLM); categories: attribute numbers, brands among them",
    ),
    "amazon-beauty": (("text_keywords",), "Keyword text (MiniLM); categories: attribute numbers, brands among them"),
}
COMMON = {"precision": "bfloat16"}  # level on validation where compared, and faster (docs/models/cammsr.md)
CONTENT_IDS = {"id_init": "content", "epochs": 12}
PRIOR = {"prior": "transitions"}
CLOSED = ("popularity", "itemknn", "transitions")
TRAINED: tuple[tuple[str, dict[str, Any]], ...] = (
    ("cammsr", {}),
    ("sasrec", {}),
    ("sasrec", CONTENT_IDS),
    ("sasrec", CONTENT_IDS | PRIOR),  # what the prior is worth to another model than cammsr
    ("sasreccontent", {}),
    ("unisrec", {}),
    ("fdsa", {}),
    ("gru4rec", {}),
    ("gru4rec", CONTENT_IDS),
    ("hm4sr", {}),
)
SHORT_WINDOW = {"length": 20}  # level with 50 on validation, 2.3 times faster on amazon-beauty (docs/models/bsarec.md)
BSAREC: tuple[tuple[str, dict[str, Any]], ...] = (  # random ids where a number is published; one pass a prefix is slow
    ("movielens-posters", CONTENT_IDS),
    ("amazon-sports", CONTENT_IDS | SHORT_WINDOW),
    ("amazon-beauty", CONTENT_IDS | SHORT_WINDOW),
    ("amazon-beauty", SHORT_WINDOW),
)
SHORT = (  # a quarter of the default's epochs: what that is worth
    *(("sasrec", data) for data in DATA),
    ("gru4rec", "movielens-posters"),
    ("gru4rec", "amazon-beauty"),
)
STRONGEST: tuple[tuple[str, dict[str, Any]], ...] = (  # on validation, of the rows of seed 0; closed forms have no seed
    ("sasrec", CONTENT_IDS | PRIOR),
    ("fdsa", {}),  # without a prior the strongest that is needed on every set: hm4sr reads times
    ("sasrec", CONTENT_IDS),
)
NEED_TIMES = {"hm4sr"}  # the amazon sets know an order, no times
NOISE = (0.1, 0.2, 0.4)  # shares of category labels replaced by others
ABLATIONS = {"movielens-posters": 3, "amazon-sports": 1}  # seeds


def tasks() -> Iterator[Task]:
    """Every row there should be, the cheap ones first."""
    for data in DATA:
        for model in CLOSED:
            yield task(model, data, 0)
        for model, settings in TRAINED:
            if model not in NEED_TIMES or data == "movielens-posters":
                yield task(model, data, 0, settings)
    for data, settings in BSAREC:
        yield task("bsarec", data, 0, settings)
    for model, data in SHORT:
        yield task(model, data, 0, {"epochs": 12})
    for data in DATA:
        yield task("cammsr", data, 0, preset="no-prior")
    for seed in range(1, SEEDS):
        for data in DATA:
            for model, settings in (("cammsr", {}), *STRONGEST):
                yield task(model, data, seed, settings)
    for data, seeds in ABLATIONS.items():
        for seed in range(seeds):
            for name, settings in variants(data).items():
                yield task("cammsr", data, seed, settings, variant=name)
            for share in NOISE:
                yield task("cammsr", data, seed, label_noise=share)
    for name, settings in variants("movielens-posters").items():  # what the parts are worth where nothing is counted
        yield task("cammsr", "movielens-posters", 0, settings, preset="no-prior", variant=name)
    yield task("bsarec", "amazon-beauty", 0, preset="paper")  # what a published number can be compared with


def variants(data: str) -> dict[str, dict[str, Any]]:
    """Name -> settings of the ablations: the model's own, and each modality alone."""
    alone = {f"{name} alone": {"modalities": [name], "init_modalities": [name]} for name in DATA[data][0]}
    own = find_model("cammsr").config.ablations
    return {name: dict(given) for name, given in own.items() if name != "no-prior"} | alone  # a preset here


def task(
    model: str,
    data: str,
    seed: int,
    settings: Mapping[str, Any] | None = None,
    *,
    preset: str = "default",
    variant: str = "",
    label_noise: float = 0.0,
) -> Task:
    """One model on one data set."""
    key = {"model": model, "preset": preset, "settings": dict(settings or {}), "variant": variant}
    key |= {"data": data, "label_noise": label_noise, "seed": seed}
    return Task(key, partial(measure, key))


def open_data(name: str) -> Dataset:
    """A data set with the features of `DATA`."""
    features = "raw" if name == "movielens-posters" else "files"
    return load_data(REAL / name, features=features, modalities=DATA[name][0])


def measure(key: Mapping[str, Any]) -> dict[str, Any]:
    """Fit once, rank the test split without a mask and with everything met masked."""
    dataset = open_data(key["data"])
    if key["label_noise"]:
        dataset = wrong_labels(dataset, "categories", key["label_noise"], key["seed"])
    split = split_data(dataset, "leave-last-two-out")
    found, settings = find_model(key["model"]), dict(key["settings"])
    if "seed" in found.config.model_fields:
        settings |= {**COMMON, "seed": 2025 + key["seed"]}
    train = TrainConfig(progress=False, metric=TESTED, mask="none")
    config, id = found.config.preset(key["preset"], **settings), Task(key, dict).id
    fitted, seconds = timed_fit(found, split, config, train, training_folder(id))
    scorer, testing = fitted.scorer(), split.testing()
    ranking = EvaluateConfig(metrics=METRICS, ks=KS, mask="none", pools=("all",))
    cpu = time.process_time()
    results = {"none": evaluate_scorer(scorer, testing, ranking)}
    seconds["ranking_cpu_s"] = round(time.process_time() - cpu, 2)
    results["seen"] = evaluate_scorer(scorer, testing, ranking.replace(mask="seen", floors=False))
    save_values(values_file(RESULTS, id), results["none"].per_user, TESTED)
    return {
        **record(fitted, dataset, split, train, "python -m benchmarks.sequences"),
        **seconds,
        "test": {mask: result.to_dict() for mask, result in results.items()},
    }


def name_of(row: Mapping[str, Any]) -> str:
    """Model, and what is not its default."""
    parts = [row["model"], "" if row["preset"] == "default" else row["preset"]]
    parts += [row["variant"] or " ".join(f"{name}={value}" for name, value in row["settings"].items())]
    parts += [f"{row['label_noise']:.0%} wrong labels" if row["label_noise"] else ""]
    return " ".join(part for part in parts if part)


def tests_against_cammsr(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Model -> p cell of its paired t-test against cammsr (NDCG@10, mask=none); a closed form has every seed."""

    def seeds_of(row: Row) -> Iterable[int]:
        return range(SEEDS) if row["model"] in CLOSED else [row["seed"]]

    found = paired_tests(rows, RESULTS, "cammsr", TESTED, name_of, seeds_of)
    return p_cells(found, "sequences", rows[0]["data"])


def table() -> str:
    """One section a data set, best first."""
    rows = by_data(FILE)
    return "\n".join(_section(data, rows[data]) for data in DATA if data in rows)


def _section(data: str, rows: list[dict[str, Any]]) -> str:
    found = tests_against_cammsr(rows)
    groups = best_first(rows, name_of, lambda row: _values([row], "none", TESTED)[0])
    lines = [f"## {data}", "", f"{DATA[data][1]}. Split {rows[0]['split_sha256'][:12]}.", ""]
    names = ["model", "n", "NDCG@10", "p", "Recall@10", "NDCG@10, mask=seen", "Recall@10, mask=seen"]
    lines += head([*names, "validation", "best epoch", "CPU s", "an epoch"])
    for name, ones in groups:
        cells = [name, str(len(ones)), spread(_values(ones, "none", TESTED)), found.get(name, "")]
        cells += [spread(_values(ones, "none", "recall@10"))]
        cells += [spread(_values(ones, "seen", metric)) for metric in (TESTED, "recall@10")]
        cells += [f"{mean(row['validation'] for row in ones):.4f}", f"{mean(row['best_epoch'] for row in ones):.0f}"]
        lines.append(line([*cells, *costs(ones)]))
    for mask in ("none", "seen"):
        names = [f"{metric}@{k}" for metric in METRICS for k in KS]
        lines += ["", f"All figures, mask={mask}:", "", *head(["model", *names])]
        lines += [line([name, *(f"{mean(_values(ones, mask, m)):.4f}" for m in names)]) for name, ones in groups]
    return "\n".join(lines) + "\n"


def _values(rows: Iterable[Row], mask: str, metric: str) -> list[float]:
    return [row["test"][mask]["pools"]["all"]["metrics"][metric]["mean"] for row in rows]


def show(row: Mapping[str, Any]) -> None:
    """One line a finished row."""
    figures = " ".join(f"{mask} {_values([dict(row)], mask, TESTED)[0]:.4f}" for mask in row["test"])
    print(
        name_of(row), row["data"], row["seed"], f"validation {row['validation']:.4f}", figures, f"{row['cpu_s']} CPU s"
    )


HEAD = """# Sequential models
Made by `python -m benchmarks.sequences`, which runs only missing rows; settings, seeds, hashes and versions of every
row are in `sequences.jsonl`. Each user's last event is the test, the one before validation; equal times stand in the
order of the file. Full ranking over all items. Mean ± sd over n seeds. Selection by validation NDCG@10, mask=none.
mask=none keeps what somebody has met among the candidates; mask=seen leaves it out. p: paired t-test of NDCG@10
(mask=none) against cammsr over users, Holm-corrected over the other models, and apart from them over the other forms
of cammsr, on the seeds whose per-user values there are (a star: computed from values that were not kept). Every model
has its defaults but for the settings named, and for precision=bfloat16 (validation of cammsr on amazon-beauty, one
seed: .0585 with it and without, 13 % less CPU time).
validation: of the scores before it is fitted there how far a prior of counted transitions is trusted; cammsr has one
by default, the preset no-prior and the baselines as published do not. All but popularity are asked at test with
everything that came before, the validation event included, and learn from train events alone. CPU seconds were
measured with other work on the machine.

"""


def main() -> None:
    """Run what is missing, then write the table."""
    command_line(__doc__, tasks, FILE, show)
    TABLE.write_text(HEAD + table(), encoding="utf-8")


if __name__ == "__main__":
    main()
