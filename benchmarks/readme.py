"""The short tables of README.md, from the results files: `python -m benchmarks.readme [--check]`."""

import argparse
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from benchmarks import cold, graphs, sequences
from benchmarks.rows import read

README = Path(__file__).parent.parent / "README.md"
Row = Mapping[str, Any]


class Short(NamedTuple):
    """A table: one row a model, one column a data set, a pair of figures and n in each cell."""

    title: str
    file: Path
    data: tuple[str, ...]
    name_of: Callable[[Row], str]
    figures: Callable[[Row], tuple[float, float]]
    shown: Callable[[Row], bool]


def _cold(row: Row) -> tuple[float, float]:
    pools = row["evaluation"]["pools"]
    return pools["cold"]["metrics"]["ndcg@20"]["mean"], pools["all"]["metrics"]["ndcg@20"]["mean"]


def _of(row: Row, mask: str, *metrics: str) -> tuple[float, float]:
    found = row["test"][mask]["pools"]["all"]["metrics"]
    first, second = (found[metric]["mean"] for metric in metrics)
    return first, second


TABLES = {
    "cold": Short("cold / mixed", cold.FILE, tuple(cold.DATA), cold.name_of, _cold, lambda row: True),
    "graphs": Short(
        "Recall@20 / NDCG@20",
        graphs.FILE,
        tuple(graphs.DATA),
        graphs.name_of,
        lambda row: _of(row, "train", "recall@20", "ndcg@20"),
        lambda row: not row["variant"],
    ),
    "sequences": Short(
        "NDCG@10, mask=none / seen",
        sequences.FILE,
        tuple(sequences.DATA),
        sequences.name_of,
        lambda row: (_of(row, "none", *["ndcg@10"] * 2)[0], _of(row, "seen", *["ndcg@10"] * 2)[0]),
        lambda row: not row["variant"] and not row["label_noise"],
    ),
}


def short(table: Short) -> str:
    """Models by their mean rank over the data sets that have them, best first."""
    groups: dict[str, dict[str, list[tuple[float, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in read(table.file).values():
        if table.shown(row):
            groups[table.name_of(row)][row["data"]].append(table.figures(row))
    means = {
        name: {data: tuple(mean(column) for column in zip(*pairs, strict=True)) for data, pairs in found.items()}
        for name, found in groups.items()
    }

    def place(name: str) -> float:
        """Mean share of the models on a data set that are better."""
        better = [
            mean(other[data][0] > pair[0] for other in means.values() if data in other)
            for data, pair in means[name].items()
        ]
        return mean(better)

    lines = [f"| {table.title} | " + " | ".join(table.data) + " |", "|---" * (1 + len(table.data)) + "|"]
    for name in sorted(means, key=place):
        cells = [
            f"{_plain(means[name][data][0])} / {_plain(means[name][data][1])} (n {len(groups[name][data])})"
            if data in means[name]
            else ""
            for data in table.data
        ]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines) + "\n"


def _plain(figure: float) -> str:
    return f"{figure:.4f}".removeprefix("0")


def filled(text: str) -> str:
    """The README with its tables as the results files have them."""
    for name, table in TABLES.items():
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        if start in text:
            before, _, rest = text.partition(start)
            text = before + start + short(table) + end + rest.partition(end)[2]
    return text


def main() -> None:
    """Rewrite the tables, or say that they are out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit status 1 when out of date")
    before = README.read_text(encoding="utf-8")
    after = filled(before)
    if not parser.parse_args().check:
        README.write_text(after, encoding="utf-8")
    elif before != after:
        sys.exit("the tables of README.md are out of date: run python -m benchmarks.readme")


if __name__ == "__main__":
    main()
