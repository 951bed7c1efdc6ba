"""An ablation: the full model and its variants, on the same splits, each trained, selected and tested alike.

Every run has a folder of its own, FOLDER/VARIANT/REPEAT. Interrupted, the same command goes on where it was: a run that
was tested is neither trained nor tested again.
"""

import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, final

import polars as pl

from modalmix.data import perturb
from modalmix.data.dataset import Dataset
from modalmix.data.split import Split
from modalmix.data.splitters import SplitConfig, make_split
from modalmix.errors import ConfigError
from modalmix.evaluation import EvaluateConfig, parse_metric
from modalmix.evaluation.study import Study, make_study
from modalmix.evaluation.study_plot import plot_study
from modalmix.files import write_json
from modalmix.models.contract import ModelConfig, ModelType
from modalmix.train.fit import fit
from modalmix.train.record import versions
from modalmix.train.run import RunFolder
from modalmix.train.settings import TrainConfig
from modalmix.train.testing import evaluate_test, read_test
from modalmix.train.variants import FULL, Variant, find_variants

METRICS = ("recall@20", "ndcg@20")
SEEDS = 3
RANDOM_KINDS = ("random", "cold-item", "cold-user")


@final
@dataclass(frozen=True, eq=False)
class Ablation:
    """The result of `ablate`: the variants and their numbers against the full model."""

    model: str
    variants: tuple[Variant, ...]
    splits: tuple[Split, ...]
    study: Study

    def to_dict(self) -> dict[str, Any]:
        """Everything but the per-user values, JSON-able."""
        return {
            "model": self.model,
            "data": self.splits[0].dataset.name,
            "split": self.splits[0].kind,
            "splits": [{"settings": split.settings, "sha256": split.sha256} for split in self.splits],
            "variants": {variant.name: variant.to_dict() for variant in self.variants},
            **self.study.to_dict(),
        }


@final
@dataclass(frozen=True, eq=False)
class Plan:
    """What every run of an ablation shares."""

    kind: ModelType
    config: ModelConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    folder: Path | None
    report: Callable[[str], None]


def ablate(
    kind: ModelType,
    data: Dataset | Split,
    config: ModelConfig,
    *,
    names: Sequence[str] | None = None,
    seeds: int = SEEDS,
    split: SplitConfig | None = None,
    train: TrainConfig | None = None,
    evaluate: EvaluateConfig | None = None,
    metrics: Sequence[str] = METRICS,
    folder: Path | str | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> Ablation:
    """Train and test the full model and its variants, and compare them user by user.

    Repeat k = 0, 1, ... adds k to the model's seed and, for a random kind of split, to that of the split too. All
    variants of a repeat share its split. Selection sees validation only; each run opens its test split once.

    Args:
        kind, config: the model and its settings; a variant changes them, see `find_variants`.
        data: a data set, split by `split`; or a split, then only the model's seed moves.
        names: variants; without them all that change anything, but for wrong labels.
        seeds: repeats.
        metrics: to compare by; they are measured beside those of `evaluate`.
        folder: where the runs, ablation.json and ablation.png go; nothing is written without it.
        report: told what is happening.

    Raises:
        ModelError, ConfigError, DataError: as `find_variants`, before anything is trained.
        TrainError, RunError, EvaluateError: as `fit` and `evaluate`.
    """
    if seeds < 1:
        raise ConfigError("seeds of the ablation", got=seeds, expected="at least 1")
    data, config = _with_chosen_modalities(data, config)
    variants = (Variant(FULL), *find_variants(kind, config, data.dataset if isinstance(data, Split) else data, names))
    evaluate = _measuring(evaluate or EvaluateConfig(), metrics)
    splits = _splits(data, split or SplitConfig(), seeds, config)
    path = None if folder is None else Path(folder)
    plan = Plan(kind, config, train or TrainConfig(), evaluate, path, report)
    tables = [
        _run(plan, variant, one, number).select(
            pl.lit(variant.name).alias("system"), pl.lit(number + 1).alias("split"), pl.all()
        )
        for number, one in enumerate(splits)
        for variant in variants
    ]
    result = Ablation(kind.name, variants, splits, make_study(pl.concat(tables), FULL, metrics, evaluate.confidence))
    if path is not None:
        write_json(path / "ablation.json", {**result.to_dict(), "command": sys.argv, "versions": versions()})
        title = f"{kind.name} on {splits[0].dataset.name}, {splits[0].kind} split"
        plot_study(result.study, path / "ablation.png", title)
    return result


def _run(plan: Plan, variant: Variant, split: Split, number: int) -> pl.DataFrame:
    """Per-user test values (columns pool, user, metrics) of one variant in one repeat, made now or kept from before."""
    split = replace(split, dataset=variant.dataset(split.dataset, seed=number))
    config = variant.settings(_seeded(plan.config, number))
    path = None if plan.folder is None else plan.folder / variant.name / str(number + 1)
    record = {"data": split.dataset.reading}
    if path is not None:
        run = RunFolder.create(path, plan.kind, config, plan.train, split, record)
        kept = read_test(run, split, plan.evaluate) if run.is_finished else None
        if kept is not None:
            plan.report(f"{variant.name}, repeat {number + 1}: kept from before")
            return kept
    fitted = fit(plan.kind, split, config, plan.train, path, record)
    evaluation = evaluate_test(fitted.scorer(), split, plan.evaluate, fitted.run)
    plan.report(f"{variant.name}, repeat {number + 1}: {fitted.result.seconds:.0f} s of training")
    return evaluation.per_user


def _seeded(config: ModelConfig, number: int) -> ModelConfig:
    """The settings of a repeat: the seed moves, where there is one."""
    seed = config.model_dump().get("seed")
    return config if seed is None else config.replace(seed=seed + number)


def _splits(data: Dataset | Split, config: SplitConfig, seeds: int, model: ModelConfig) -> tuple[Split, ...]:
    """The split of each repeat; one where a repeat would be the same again."""
    first = data if isinstance(data, Split) else make_split(data, config)
    if isinstance(data, Dataset) and first.kind in RANDOM_KINDS:
        more = (make_split(data, config.replace(seed=config.seed + number)) for number in range(1, seeds))
        return (first, *more)
    if seeds > 1 and "seed" not in type(model).model_fields:
        warnings.warn(f"one repeat, not {seeds}: neither the split nor the model has a seed", stacklevel=3)
        return (first,)
    return (first,) * seeds


def _measuring(config: EvaluateConfig, metrics: Sequence[str]) -> EvaluateConfig:
    """The same settings, with the metrics and cut-offs of the comparison among them. Raises ConfigError."""
    if not metrics:
        raise ConfigError("metrics of the ablation", got="none", expected="such as recall@20")
    parsed = [parse_metric(metric) for metric in metrics]
    names = dict.fromkeys([*config.metrics, *(name for name, _ in parsed)])
    return config.replace(metrics=tuple(names), ks=tuple(sorted({*config.ks, *(k for _, k in parsed)})))


def _with_chosen_modalities(data: Dataset | Split, config: ModelConfig) -> tuple[Dataset | Split, ModelConfig]:
    """Data with only the modalities that the settings name, and settings that name none: a variant may take one."""
    chosen = config.model_dump().get("modalities")
    if chosen is None:
        return data, config
    if isinstance(data, Split):
        return replace(data, dataset=perturb.select(data.dataset, chosen)), config.replace(modalities=None)
    return perturb.select(data, chosen), config.replace(modalities=None)
