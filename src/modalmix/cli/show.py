"""What the verbs print: tables for people on the terminal, JSON for programs."""

import json
import sys
from dataclasses import replace
from typing import Any

import polars as pl
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from modalmix.data import Examination, examination_table
from modalmix.evaluation import Evaluation, RobustnessCurve, evaluation_table, robustness_table

WIDE = 100  # columns that a table of three pools takes
# titles and names are shown as they are: [brackets] and :colons: in them are no markup
console = Console(width=None if sys.stdout.isatty() else WIDE, markup=False, emoji=False)
notices = Console(stderr=True, markup=False, emoji=False)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))


def notice(message: str) -> None:
    """A line about the work in progress, on standard error."""
    notices.print(message, style="dim", highlight=False)


def show_evaluation(evaluation: Evaluation, title: str) -> None:
    """The numbers of all pools side by side, or below one another where the terminal is narrow."""
    pools = evaluation.pools
    if len(pools) == 1 or console.width >= WIDE:
        console.print(evaluation_table(evaluation, title))
        return
    for name, result in pools.items():
        console.print(evaluation_table(replace(evaluation, pools={name: result}), f"{title}: {name} items"))


def show_examination(examination: Examination) -> None:
    """Problems and warnings. Their table colours its own words with markup: what comes from data is escaped."""
    problems, warnings = ([escape(line) for line in lines] for lines in (examination.problems, examination.warnings))
    console.print(examination_table(replace(examination, problems=problems, warnings=warnings)), markup=True)


def show_robustness(curve: RobustnessCurve, title: str) -> None:
    """What is left of each pool's result at each share."""
    console.print(robustness_table(curve, title))


def frame_table(frame: pl.DataFrame, title: str | None = None) -> Table:
    """A DataFrame as a table; numbers right, floats with four digits."""
    table = Table(title=title, title_justify="left")
    for name, dtype in frame.schema.items():
        table.add_column(name, justify="right" if dtype.is_numeric() else "left")
    for row in frame.iter_rows():
        table.add_row(*(f"{value:.4f}" if isinstance(value, float) else str(value) for value in row))
    return table


def facts_table(facts: dict[str, Any], title: str) -> Table:
    """Names and values, nested names joined by a dot."""
    table = Table("what", "value", title=title, title_justify="left", show_header=False)
    for name, value in _flat(facts):
        shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value
        table.add_row(name, f"{shown:.6g}" if isinstance(shown, float) else str(shown))
    return table


def _flat(facts: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in facts.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", value))
    return rows
