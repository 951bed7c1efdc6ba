"""The library in a few calls: load_data, split_data, fit, evaluate, robustness, load_run; train_run for all at once.

data = modalmix.load_data("shop/")                        # or load_data(interactions_frame, items=items_frame)
run = modalmix.fit(data, "mamex", split="cold-item", run="runs/first")
modalmix.evaluate(run).pools["cold"].metrics["recall@20"]
run.recommend(users=["u1"], k=10)                         # a polars DataFrame with titles
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from modalmix.config import Config
from modalmix.data import Dataset, ReadConfig, Split, SplitConfig, from_frames, make_split, read_split
from modalmix.data.catalog import Catalog
from modalmix.data.features import modality_from
from modalmix.errors import ConfigError, DataError, RunError
from modalmix.evaluation import (
    EvaluateConfig,
    Evaluation,
    RetrievalCurve,
    RobustnessCurve,
    plot_robustness,
    retrieval_curve,
    robustness_curve,
)
from modalmix.evaluation.robustness import SEEDS, SHARES
from modalmix.models.contract import ModelConfig, find_model
from modalmix.serve.recommender import Run
from modalmix.train import Fitted, RunFolder, TrainConfig, ablation, load_model, recorded
from modalmix.train import fit as fit_model
from modalmix.train.source import DataConfig, open_dataset, with_features
from modalmix.train.testing import evaluate_test, with_pools


class RunConfig(Config):
    """Everything a run depends on, in the order of the pipeline."""

    data: DataConfig = DataConfig()
    """Reading and features."""
    split: SplitConfig = SplitConfig()
    """Train, validation, test."""
    model: str = "mamex"
    """Name of a model, or the path of a file with one."""
    preset: str = "default"
    """Named settings of the model."""
    settings: ModelConfig = ModelConfig()
    """Settings of the model, all of them; those of `preset` where there are none."""
    train: TrainConfig = TrainConfig()
    """Device, validation metric, checkpoints."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Metrics, cut-offs, masks, pools."""


def load_data(
    source: Path | str | Any,
    items: Any = None,
    features: str | Mapping[str, np.ndarray] = "auto",
    modalities: tuple[str, ...] | None = None,
    **read: Any,
) -> Dataset:
    """A data set from a folder or file, or from DataFrames (polars; pandas is accepted).

    Args:
        source: a path, or a frame of interactions (columns user, item, and rating, timestamp, split where there are).
        items: a frame with one row an item, column `item`; only with a frame of interactions.
        features: "auto", "raw", "files", "none" (see DataConfig), or name -> matrix [items, dim], rows as in `items`.
        modalities: names to keep.
        read: settings of ReadConfig, e.g. min_rating=4.

    Raises:
        DataError, EncodeError, ConfigError.
    """
    if items is not None and isinstance(source, str | Path):
        raise DataError("items", got="a frame beside a path", expected="a frame only with a frame of interactions")
    reading = ReadConfig.parse(read)
    given = {} if isinstance(features, str) else dict(features)
    config = DataConfig.parse(
        {"features": features if isinstance(features, str) else "files", "modalities": modalities, "reader": reading}
    )
    if isinstance(source, str | Path) and not given:
        return open_dataset(source, config)
    dataset = (
        open_dataset(source, config.replace(features="none", modalities=None))
        if isinstance(source, str | Path)
        else from_frames(source, items, reading)
    )
    if given and items is None and not isinstance(source, str | Path):
        raise DataError(
            f"the rows of features '{next(iter(given))}' belong to no known items",
            fix="Give items=, a frame with one row an item in the order of those rows.",
        )
    added = {name: modality_from(name, np.asarray(matrix), dataset.catalog) for name, matrix in given.items()}
    whole = replace(dataset, catalog=Catalog(dataset.catalog.items, added, dataset.catalog.table))
    return with_features(whole, config)


def split_data(dataset: Dataset, kind: str = "auto", **settings: Any) -> Split:
    """Train, validation and test. `kind` and `settings` are those of SplitConfig. Raises DataError, ConfigError."""
    return make_split(dataset, SplitConfig.parse({"kind": kind, **settings}))


def fit(
    data: Dataset | Split,
    model: str = "mamex",
    *,
    split: str | SplitConfig = "auto",
    preset: str = "default",
    run: Path | str | None = None,
    train: TrainConfig | None = None,
    **settings: Any,
) -> Run:
    """Train a model; selection sees validation only.

    Args:
        data: a data set (split by `split`, a kind or all its settings) or a split.
        model: a name of `modalmix models`, or the path of a file with a model.
        preset: named settings; `settings` given by name win over them.
        run: folder to leave behind; nothing is written without it. An interrupted run in it is resumed.

    Raises:
        ModelError, ConfigError, DataError, TrainError, RunError.
    """
    if not isinstance(data, Split | Dataset):
        raise DataError("data", got=type(data).__name__, expected="a Dataset or Split", fix="Call load_data first.")
    parts = _parts(data, split)
    found = find_model(model)
    config = found.config.preset(preset, **settings)
    return _run(fit_model(found, parts, config, train or TrainConfig(), run, _record(parts)), parts)


def _parts(data: Dataset | Split, split: str | SplitConfig) -> Split:
    """The split, or the data set split so. Raises ConfigError for a split of a split."""
    if isinstance(data, Dataset):
        return make_split(data, split) if isinstance(split, SplitConfig) else split_data(data, split)
    if split != "auto":
        raise ConfigError("split", got="one beside a Split", expected="one beside a Dataset", fix="Leave it out.")
    return data


def train_run(source: Path | str, config: RunConfig, folder: Path | str | None = None) -> Run:
    """Read, encode, split and train as `config` says, into a run folder that knows its data set."""
    dataset = open_dataset(source, config.data)
    split = make_split(dataset, config.split)
    found = find_model(config.model)
    settings = found.config.preset(config.preset) if type(config.settings) is ModelConfig else config.settings
    return _run(fit_model(found, split, settings, config.train, folder, _record(split)), split)


def evaluate(run: Run, config: EvaluateConfig | None = None, **settings: Any) -> Evaluation:
    """Rank the test split. Opens it, and the run folder counts how often that happened.

    `settings` given by name win over those of `config`. Without `pools`, a split with whole items held out is ranked in
    three pools: cold, warm and all items, those of them where anybody has something to find.
    """
    _check_run(run)
    config = (config or EvaluateConfig()).replace(**settings)
    return evaluate_test(run.without_added_items.scorer, run.split, config, run.folder)


def robustness(
    run: Run,
    drop: str,
    shares: Sequence[float] = SHARES,
    seeds: int = SEEDS,
    config: EvaluateConfig | None = None,
    metric: str | None = None,
    **settings: Any,
) -> RobustnessCurve:
    """How much of its result a model keeps when a share of the items loses content at test time, training as it was.

    `drop` is a modality, or "any": each item that has several loses one of them. See `robustness_curve` for the rest.
    Opens the test split once, however many points there are; a run folder keeps drop.json and drop.png.

    Raises:
        ModelError: the model reads no modality, or not this one.
        ConfigError, DataError, EvaluateError.
    """
    _check_run(run)
    config = with_pools((config or EvaluateConfig()).replace(**settings), run.split)
    holdout, modalities = run.split.testing(), run.model.modalities
    curve = robustness_curve(run.scorer_of, modalities, holdout, drop, shares, seeds, metric, config)
    if run.folder is not None:
        opened = run.folder.count_test_opening()
        run.folder.write_evaluation("drop", {"test_opened": opened, **curve.to_dict()})
        facts = run.summary()
        plot_robustness(curve, run.folder.path / "drop.png", f"{facts['model']} on {facts['data']}, {facts['split']}")
    return curve


def retrieval(run: Run, candidates: Sequence[int], **settings: Any) -> RetrievalCurve:
    """How much of the exact lists two-step serving finds with so many candidates, and what it costs.

    Asks for users of the validation split; the test split is not opened. `settings`: ks, users, mask, chunk, seed of
    `retrieval_curve`, which says what is raised.
    """
    _check_run(run)
    return retrieval_curve(run.without_added_items.scorer, run.split.validation(), candidates, **settings)


def ablate(
    data: Dataset | Split,
    model: str = "mamex",
    *,
    variants: Sequence[str] | None = None,
    seeds: int = ablation.SEEDS,
    split: str | SplitConfig = "auto",
    preset: str = "default",
    run: Path | str | None = None,
    train: TrainConfig | None = None,
    evaluate: EvaluateConfig | None = None,
    metrics: Sequence[str] = ablation.METRICS,
    report: Callable[[str], None] = lambda message: None,
    **settings: Any,
) -> ablation.Ablation:
    """Train and test a model beside variants of it that lack a part or a modality, on the same splits.

    `variants`: such as "no-gate", "only-image", "noise-text", "labels-0.2"; all but wrong labels without it. `run`
    is a folder of runs, with ablation.json and ablation.png; an interrupted one goes on. The rest is as in `fit` and
    `modalmix.train.ablation.ablate`, which says what is raised.
    """
    if not isinstance(data, Split | Dataset):
        raise DataError("data", got=type(data).__name__, expected="a Dataset or Split", fix="Call load_data first.")
    found = find_model(model)
    return ablation.ablate(
        found,
        data,
        found.config.preset(preset, **settings),
        names=variants,
        seeds=seeds,
        split=split if isinstance(split, SplitConfig) else SplitConfig.parse({"kind": split}),
        train=train,
        evaluate=evaluate,
        metrics=metrics,
        folder=run,
        report=report,
    )


def load_run(path: Path | str, data: Path | str | Dataset | None = None) -> Run:
    """A fitted run from its folder, ready to recommend and to evaluate.

    `data` says where the data set is now, when it moved. Raises RunError when the folder is incomplete or was made
    from another data set.
    """
    folder = RunFolder.open(Path(path))
    if isinstance(data, Dataset):
        dataset = data
    else:
        source = data or folder.record["source"]
        if source is None:
            raise RunError(
                f"run folder {path} does not know its data set", fix="It was fitted from frames: give data=..."
            )
        if not Path(source).exists():
            raise RunError(f"the data set of run {path} is not in {source}", fix="Say where it is: data=... (--data).")
        dataset = open_dataset(source, DataConfig.parse(folder.record["data"]))
    split = read_split(dataset, folder.split)
    folder.check_data(split)
    return Run(load_model(folder, split.train_data()), split, folder, recorded(folder))


def _check_run(run: Run) -> None:
    if not isinstance(run, Run):
        raise RunError("run", got=type(run).__name__, expected="a Run", fix="Call load_run(path) first.")


def _run(fitted: Fitted, split: Split) -> Run:
    return Run(fitted.model, split, fitted.run, fitted.result)


def _record(split: Split) -> dict[str, Any]:
    """How the data set was read, so that `load_run` can read it again."""
    return {"data": split.dataset.reading}
