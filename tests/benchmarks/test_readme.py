"""The short tables of the README: what they say of rows, and that they say what the results files say."""

import json
from pathlib import Path
from typing import Any

from benchmarks.readme import README, Short, filled, short


def row(id: str, model: str, data: str, first: float) -> dict[str, Any]:
    return {"id": id, "model": model, "data": data, "figures": [first, first / 2]}


def test_a_table_has_means_over_rows_best_models_first(tmp_path: Path) -> None:
    rows = [row("a", "one", "x", 0.1), row("b", "one", "x", 0.3), row("c", "two", "x", 0.5), row("d", "two", "y", 0.25)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(one) + "\n" for one in rows))
    table = Short(
        "a / b", file, ("x", "y"), lambda one: one["model"], lambda one: tuple(one["figures"]), lambda one: True
    )
    assert short(table).splitlines() == [
        "| a / b | x | y |",
        "|---|---|---|",
        "| two | .5000 / .2500 (n 1) | .2500 / .1250 (n 1) |",
        "| one | .2000 / .1000 (n 2) |  |",
    ]


def test_the_readme_says_what_the_results_say() -> None:
    text = README.read_text(encoding="utf-8")
    assert "<!-- cold -->\n" in text
    assert filled(text) == text, "run python -m benchmarks.readme"
