"""What the result tables share: rows by name, best first, and the cells of a line."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

Row = Mapping[str, Any]


def best_first(
    rows: Iterable[Row], name_of: Callable[[Row], str], value: Callable[[Row], float]
) -> list[tuple[str, list[Row]]]:
    """Rows of each name, the name with the largest mean value first."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[name_of(row)].append(row)
    return sorted(groups.items(), key=lambda group: -mean(value(row) for row in group[1]))


def line(cells: Iterable[str]) -> str:
    """One line of a table."""
    return "| " + " | ".join(cells) + " |"


def head(names: Sequence[str]) -> list[str]:
    """The two lines that begin a table."""
    return [line(names), "|---" * len(names) + "|"]


def spread(values: Sequence[float]) -> str:
    """Mean, and standard deviation where there are several."""
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def p_value(p: float) -> str:
    """A cell."""
    return "< .001" if p < 0.001 else f"{p:.3f}"


def costs(rows: Sequence[Row]) -> list[str]:
    """CPU seconds of a fit, and of one of its epochs; no epoch for a closed form."""
    epochs = [row["epoch_cpu_s"] for row in rows if row["epoch_cpu_s"] is not None]
    return [f"{mean(row['cpu_s'] for row in rows):.0f}", f"{mean(epochs):.1f}" if epochs else ""]
