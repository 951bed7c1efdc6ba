"""Rank the test split of a run and print the numbers with their floors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from modalmix.cli.options import parse
from modalmix.cli.show import print_json, show_evaluation
from modalmix.config import Config
from modalmix.evaluation import EvaluateConfig
from modalmix.pipeline import evaluate, load_run

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
    json_: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print JSON instead of a table."""


def main(arguments: Sequence[str]) -> int:
    """`modalmix evaluate RUN [--mask seen|train|none] [--ks 10 20]`."""
    options = parse(Options, arguments, "evaluate", TITLE, SHORT)
    evaluation = evaluate(load_run(options.run, options.data), options.evaluate)
    if options.json_:
        print_json(evaluation.to_dict())
    else:
        show_evaluation(evaluation, f"{options.run}: test split")
    return 0
