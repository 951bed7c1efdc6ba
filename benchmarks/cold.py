"""Cold items on real data: `python -m benchmarks.cold [--only TEXT ...] [--table]`. Rows grow in results/cold.jsonl.

Whole items are held out; three pools (cold, warm, all). Training, early stopping and the calibration of cold items see
validation only; the test split is ranked once a row. Every model runs with its defaults on every data set. Per-user
values, which the paired tests need, go to results/per_user/.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from statistics import mean
from typing import Any

from benchmarks.data import REAL, citeulike
from benchmarks.paired import p_cells, paired_tests, save_values, values_file
from benchmarks.record import record, timed_fit
from benchmarks.rows import RESULTS, Task, by_data, command_line, training_folder
from benchmarks.tables import Row, best_first, head, line, spread
from modalmix.data import Dataset
from modalmix.evaluation import EvaluateConfig, fit_calibration, validation_score
from modalmix.evaluation import evaluate as evaluate_scorer
from modalmix.models.contract import calibrate, find_model
from modalmix.pipeline import load_data, split_data
from modalmix.train import TrainConfig
from modalmix.train.testing import POOLS_OF_A_COLD_SPLIT

FILE = RESULTS / "cold.jsonl"
TABLE = RESULTS / "cold.md"
METRICS, KS = ("recall", "ndcg", "recall_capped"), (10, 20, 50)
SHOWN = ("ndcg@20", "recall@20")
CALIBRATIONS = ("none", "norm", "offset", "norm-offset")

# name -> number of splits, and what the features are
DATA = {
    "movielens-posters": (5, "posters (EfficientNet-Lite0) and title, genres, plot (MiniLM); no user tags"),
    "tiktok": (5, "given image and audio features"),
    "citeulike": (3, "user tags (MiniLM; a mild leak for cold items) and a spectral embedding of citations"),
    "amazon-sports": (3, "GRAPH-DERIVED: spectral features of the image and text graphs; keyword text (MiniLM)"),
}
CLOSED = ("popularity", "als", "contentknn", "contentridge")
TRAINED = ("mamex", "vbpr", "contentmean", "milk", "dropoutnet", "heater", "aldi", "clcrec", "gar")
SETTINGS: dict[str, dict[str, Any]] = {"contentmean": {"loss": "bpr"}}  # its softmax costs 7 times as much


def tasks() -> Iterator[Task]:
    """Every row there should be; citeulike has one official split, so its n counts seeds of the model there."""
    for data, (splits, _) in DATA.items():
        for seed in range(splits):
            for model in CLOSED + TRAINED:
                if data != "citeulike" or model not in CLOSED or seed == 0:
                    yield task(model, data, seed, **SETTINGS.get(model, {}))
    for seed in range(DATA["movielens-posters"][0]):  # is the gate worth more than the better modality alone?
        for model in ("contentknn", "contentridge", "mamex"):
            yield task(model, "movielens-posters", seed, modalities=["text"])
    for data, (splits, _) in DATA.items():
        for seed in range(splits):
            yield task("mamex", data, seed, preset="joint")
    for data in ("movielens-posters", "tiktok"):  # it trains for 200 epochs after its best one: the small sets, once
        yield task("mamex", data, 0, preset="paper")


def task(model: str, data: str, seed: int, preset: str = "default", **settings: Any) -> Task:
    """One model on one split."""
    key = {"model": model, "preset": preset, "data": data, "split_seed": seed, "settings": settings}
    return Task(key, partial(measure, key))


def open_data(name: str) -> Dataset:
    """A data set with the features of `DATA`."""
    if name == "citeulike":
        return citeulike()
    if name == "movielens-posters":
        return load_data(REAL / name, features="raw", modalities=("image", "text"))
    return load_data(REAL / name, features="files")


def measure(key: Mapping[str, Any]) -> dict[str, Any]:
    """Fit, compare the calibrations on validation, rank the test split with the default one and without any."""
    official = key["data"] == "citeulike"
    dataset = open_data(key["data"])
    split = split_data(dataset, "as-given") if official else split_data(dataset, "cold-item", seed=key["split_seed"])
    found = find_model(key["model"])
    settings = dict(key["settings"])
    if "seed" in found.config.model_fields:
        settings["seed"] = 2025 + key["split_seed"]
    train = TrainConfig(progress=False, metric="ndcg@20")
    config, id = found.config.preset(key["preset"], **settings), Task(key, dict).id
    fitted, seconds = timed_fit(found, split, config, train, training_folder(id))
    plain, validation = fitted.model.scorer(dataset.catalog), split.validation()
    calibrations = {}
    for kind in CALIBRATIONS:
        one = fit_calibration(plain, validation, kind)  # type: ignore[arg-type]
        score = validation_score(calibrate(plain, fitted.warm, one), validation, "ndcg@20", "seen", "all")
        calibrations[kind] = {"scale": one.scale, "offset": one.offset, "validation": score}
    ranking = EvaluateConfig(metrics=METRICS, ks=KS, mask="seen", pools=POOLS_OF_A_COLD_SPLIT)
    testing = split.testing()
    evaluation = evaluate_scorer(fitted.scorer(), testing, ranking)
    uncalibrated = evaluate_scorer(plain, testing, ranking.replace(pools=("all",), floors=False))
    save_values(values_file(RESULTS, id), evaluation.per_user, "ndcg@20")
    return {
        **record(fitted, dataset, split, train, "python -m benchmarks.cold"),
        "calibrations": calibrations,
        **seconds,
        "evaluation": evaluation.to_dict(),
        "uncalibrated": uncalibrated.to_dict()["pools"]["all"]["metrics"],
    }


def name_of(row: Mapping[str, Any]) -> str:
    """Model, and what is not its default."""
    preset = [] if row["preset"] == "default" else [row["preset"]]
    return " ".join([row["model"], *preset, *(_setting(*one) for one in row["settings"].items())])


def _setting(name: str, value: Any) -> str:
    return f"({value[0]} only)" if name == "modalities" else f"{name}={value}"


def tests_against_mamex(rows: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    """(model, pool) -> p of the paired t-test of its NDCG@20 against the default mamex, as a cell.

    On the one official split a closed form has one row, which stands against every seed of mamex.
    """

    def splits_of(row: Row) -> Iterable[int]:
        alone = row["data"] == "citeulike" and row["model"] in CLOSED
        return range(DATA["citeulike"][0]) if alone else [row["split_seed"]]

    cells = {}
    for pool in ("cold", "all"):
        found = paired_tests(rows, RESULTS, "mamex", "ndcg@20", name_of, splits_of, pool)
        cells |= {(name, pool): p for name, p in p_cells(found, "cold", rows[0]["data"], pool).items()}
    return cells


def table() -> str:
    """One section a data set: mean and sd over splits, n beside every figure, paired tests against MAMEX."""
    rows = by_data(FILE)
    return "\n".join(_section(data, rows[data]) for data in DATA if data in rows)


def _section(data: str, rows: list[dict[str, Any]]) -> str:
    found = tests_against_mamex(rows)
    groups = best_first(rows, name_of, lambda row: _values([row], "cold", "ndcg@20")[0])
    hashes = ", ".join(sorted({row["split_sha256"][:12] for row in rows}))
    lines = [f"## {data}", "", f"Features: {DATA[data][1]}. Splits: {hashes}.", ""]
    names = ["cold NDCG@20", "cold Recall@20", "mixed NDCG@20", "mixed, not calibrated", "warm NDCG@20", "CPU s"]
    lines += head(["model", "n", *names])
    for name, ones in groups:
        cells = [spread(_values(ones, "cold", metric)) for metric in SHOWN]
        cells[0] += _mark(found, name, "cold")
        cells += [spread(_values(ones, "all", "ndcg@20")) + _mark(found, name, "all")]
        cells += [f"{mean(row['uncalibrated']['ndcg@20']['mean'] for row in ones):.4f}"]
        cells += [f"{mean(_values(ones, 'warm', 'ndcg@20')):.4f}", f"{mean(row['cpu_s'] for row in ones):.0f}"]
        lines.append(line([name, str(len(ones)), *cells]))
    floors = [row["evaluation"]["pools"]["cold"]["floors"] for row in rows]
    lines += ["", f"Floor of the cold pool: random {mean(f['random']['ndcg@20'] for f in floors):.4f}."]
    if found:
        lines += ["In brackets: p of the paired t-test against mamex over users, Holm-corrected over the other models,"]
        lines += ["and apart from them over the other forms of mamex"]
        lines += ["(on the splits whose per-user values there are; a star: computed from values that were not kept)."]
    lines += ["", "Calibrations, validation NDCG@20 of the mixed pool (mean over the same rows):", ""]
    lines += head(["model", *CALIBRATIONS])
    for name, ones in sorted(groups):
        scores = [mean(row["calibrations"][kind]["validation"] for row in ones) for kind in CALIBRATIONS]
        lines.append(line([name, *(f"{score:.4f}" for score in scores)]))
    return "\n".join(lines) + "\n"


def _values(rows: Iterable[Row], pool: str, metric: str) -> list[float]:
    return [row["evaluation"]["pools"][pool]["metrics"][metric]["mean"] for row in rows]


def _mark(found: Mapping[tuple[str, str], str], name: str, pool: str) -> str:
    p = found.get((name, pool))
    return "" if p is None else f" (p {p})"


def show(row: Mapping[str, Any]) -> None:
    """One line a finished row."""
    pools = row["evaluation"]["pools"]
    figures = " ".join(f"{pool} {pools[pool]['metrics']['ndcg@20']['mean']:.4f}" for pool in pools)
    print(name_of(row), row["data"], row["split_seed"], figures, f"{row['cpu_s']} CPU s", flush=True)


def main() -> None:
    """Run what is missing, then write the table."""
    command_line(__doc__, tasks, FILE, show)
    TABLE.write_text(HEAD + table(), encoding="utf-8")


HEAD = """# Cold items on real data
Made by `python -m benchmarks.cold`, which runs only missing rows; settings, seeds, hashes and versions of every row are
in `cold.jsonl`. Mean ± sd over n random cold-item splits (20 % of the items; citeulike: the official split, n seeds).
Every model has its defaults everywhere. Selection and calibration by validation only, mask=seen. Pools: cold = all cold
items; mixed = all items, cold scores calibrated by an offset fitted on validation; warm. A model that knows no content
(als, popularity) ties all cold items.

"""

if __name__ == "__main__":
    main()
