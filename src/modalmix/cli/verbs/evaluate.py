"""Rank the test split of a run and print the numbers with their floors, or how they fall when content is missing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import polars as pl
import tyro
from pydantic import PositiveInt

from modalmix.cli.options import parse
from modalmix.cli.show import console, frame_table, notice, print_json, show_evaluation, show_robustness
from modalmix.config import Config
from modalmix.errors import ConfigError
from modalmix.evaluation import EvaluateConfig
from modalmix.evaluation.robustness import SEEDS
from modalmix.pipeline import evaluate, load_run, retrieval, robustness
from modalmix.serve.recommender import Run

TITLE = "Open the test split of a run and rank it; the run folder counts how often that happened."
SHORT = {f"--{name}": f"--evaluate.{name}" for name in ("mask", "ks", "metrics", "pools", "sampled")}


class Options(Config):
    """What `evaluate` takes."""

    run: tyro.conf.Positional[Path]
    """A run folder."""
    data: Path | None = None
    """Where the data set is now, when it moved."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Metrics, cut-offs, masks, pools."""
    drop: str | None = None
    """MODALITY=SHARES, e.g. image=0,0.25,0.5,0.75,1: the result when these shares of the items with that modality lose
    it. any=SHARES: one of an item's modalities, drawn, never its only one. Kept as drop.json and drop.png."""
    drop_seeds: PositiveInt = SEEDS
    """Draws of the items that lose it, for each share."""
    drop_metric: str | None = None
    """Metric of that table and plot: recall@20 without it. drop.json has all."""
    retrieve: tuple[PositiveInt, ...] = ()
    """Numbers of candidates, e.g. 50 100 200: how much of the exact lists of 10 and 20 serving in two steps (`modalmix
    recommend --retrieve`) finds with so many, and what it costs. The test split is not opened."""
    json_: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print JSON instead of a table."""


def main(arguments: Sequence[str]) -> int:
    """`modalmix evaluate RUN [--mask seen|train|none] [--ks 10 20] [--drop image=0,0.5,1]`."""
    options = parse(Options, arguments, "evaluate", TITLE, SHORT)
    if options.drop is not None:
        drop, shares = parse_drop(options.drop)
        return _show_curve(load_run(options.run, options.data), drop, shares, options)
    if options.retrieve:
        return _show_retrieval(load_run(options.run, options.data), options)
    evaluation = evaluate(load_run(options.run, options.data), options.evaluate)
    if options.json_:
        print_json(evaluation.to_dict())
    else:
        show_evaluation(evaluation, f"{options.run}: test split")
    return 0


def parse_drop(text: str) -> tuple[str, tuple[float, ...]]:
    """Modality and shares of "image=0,0.5,1". Raises ConfigError."""
    name, equals, listed = text.rpartition("=")
    if not (equals and name and listed.strip()):
        raise ConfigError("--drop", got=repr(text), expected="a modality and shares, such as image=0,0.25,0.5,0.75,1")
    shares = []
    for share in listed.split(","):
        try:
            shares.append(float(share))
        except ValueError:
            raise ConfigError(f"--drop {name}", got=repr(share), expected="a number from 0 to 1") from None
    return name, tuple(shares)


def _show_retrieval(run: Run, options: Options) -> int:
    curve = retrieval(run, options.retrieve)
    if options.json_:
        print_json(curve.to_dict())
    else:
        title = f"{options.run}: two steps against all items, {curve.users:,} users, {curve.chunk} at once"
        console.print(frame_table(pl.DataFrame(curve.rows()), title))
    return 0


def _show_curve(run: Run, drop: str, shares: Sequence[float], options: Options) -> int:
    curve = robustness(run, drop, shares, options.drop_seeds, options.evaluate, options.drop_metric)
    if options.json_:
        print_json(curve.to_dict())
    else:
        show_robustness(curve, f"{options.run}: test split, --drop {drop}")
        notice(f"kept as {options.run / 'drop.json'} and {options.run / 'drop.png'}")
    return 0
