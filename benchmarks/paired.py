"""Paired tests between the rows of a results file, from the per-user values beside it."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from modalmix.evaluation.compare import compare, holm

Row = Mapping[str, Any]


def per_user_file(folder: Path, id: str) -> Path:
    """Where the per-user values of a row are; not committed (30 kB to 1 MB a row)."""
    return folder / "per_user" / f"{id}.parquet"


def paired_tests(
    rows: Iterable[Row],
    folder: Path,
    ours: str,
    metric: str,
    name_of: Callable[[Row], str],
    splits_of: Callable[[Row], Iterable[int]],
    pool: str = "all",
) -> dict[str, float]:
    """Name -> p of the paired t-test of `metric` against `ours` over users, Holm-corrected over the names.

    Each is compared on the splits (or seeds) that both have; a user counts once, on however many there are. A row
    stands for all of its `splits_of`: a closed form has one row for every seed. Rows without per-user values are left
    out; without those of `ours` there is no test.
    """
    frames: dict[str, list[pl.DataFrame]] = defaultdict(list)
    for row in rows:
        path = per_user_file(folder, row["id"])
        if path.exists():
            values = pl.read_parquet(path).filter(pl.col("pool") == pool).select("user", metric)
            frames[name_of(row)] += [values.with_columns(split=pl.lit(split)) for split in splits_of(row)]
    tables = {name: pl.concat(parts) for name, parts in frames.items()}
    if ours not in tables:
        return {}
    one = tables.pop(ours)
    others = {name: other for name, other in tables.items() if set(one["split"]) & set(other["split"])}
    raw = [compare(one, other, metric, resamples=0).p_t for other in others.values()]
    return dict(zip(others, holm(raw), strict=True))
