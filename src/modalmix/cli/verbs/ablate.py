"""Train a model beside variants that lack a part or a modality: what is each worth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import PositiveInt, field_validator

from modalmix.cli.show import console, notice, print_json
from modalmix.cli.train_options import TrainOptions, parse_training
from modalmix.evaluation.study_table import study_table
from modalmix.models.contract import find_model
from modalmix.train.ablation import METRICS, SEEDS, ablate
from modalmix.train.source import open_dataset

TITLE = "The full model and its variants on the same splits: a table, ablation.json and ablation.png."


class AblateOptions(TrainOptions):
    """What `ablate` takes: all of `train`, and which variants, how often, by what."""

    variants: tuple[str, ...] = ()
    """Variants, separated by commas or spaces: those the model names (mamex: no-gate, no-experts, no-folds,
    no-profiles; learnt jointly: no-balance, no-alignment), and only-, without-, noise- or shuffle- before a modality;
    labels-0.2: that share of the categories is wrong, on demand. All others that change anything without it."""
    seeds: PositiveInt = SEEDS
    """Repeats: each has its own seed of the model, and of the split where that is drawn at random."""
    metrics: tuple[str, ...] = METRICS
    """Metrics to compare by, e.g. recall@20."""

    @field_validator("variants", "metrics", mode="before")
    @classmethod
    def _by_commas(cls, value: Any) -> Any:
        parts = [value] if isinstance(value, str) else value
        return tuple(name for part in parts for name in str(part).split(",") if name)

    @property
    def run_folder(self) -> Path:
        """Where the runs go."""
        return self.run or super().run_folder.with_name(f"{super().run_folder.name}-ablation")


def main(arguments: Sequence[str]) -> int:
    """`modalmix ablate DATA --model NAME [--variants no-gate,only-image,...] [--seeds 3] [settings]`."""
    options = parse_training(arguments, "ablate", TITLE, AblateOptions)
    assert isinstance(options, AblateOptions)
    result = ablate(
        find_model(options.model),
        open_dataset(options.folder, options.data),
        options.settings,
        names=options.variants,
        seeds=options.seeds,
        split=options.split,
        train=options.train,
        evaluate=options.evaluate,
        metrics=options.metrics,
        folder=options.run_folder,
        report=notice,
    )
    if options.json_:
        print_json({"run": str(options.run_folder), **result.to_dict()})
        return 0
    for pool in result.study.pools:
        console.print(study_table(result.study, pool, f"{options.folder.name}: {options.model}, test split"))
    console.print(f"kept: {options.run_folder}/ablation.json, ablation.png", highlight=False, soft_wrap=True)
    return 0
