"""Paired tests between the rows of a results file, from the per-user values beside it.

The values of the tested metric are committed with the rows (3 kB a row), so that every p can be computed again. Those
of the first rows were not kept; `earlier_tests.json` has the p that were computed from them, shown with a star.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.tables import Row, p_value
from modalmix.evaluation.compare import compare, holm
from modalmix.files import atomic, read_json

EARLIER = Path(__file__).parent / "results" / "earlier_tests.json"


def values_file(folder: Path, id: str) -> Path:
    """Where the per-user values of a row are."""
    return folder / "per_user" / f"{id}.npz"


def save_values(path: Path, per_user: pl.DataFrame, metric: str) -> None:
    """Keep one metric of an evaluation's `per_user`, pool by pool, compressed.

    Users are kept as differences to the one before: nearly all are 1, which takes no room.
    """
    arrays: dict[str, np.ndarray] = {}
    for (pool,), part in per_user.sort("user").group_by("pool", maintain_order=True):
        arrays[f"{pool}.user"] = np.diff(part["user"].to_numpy(), prepend=0).astype(np.int32)
        arrays[f"{pool}.value"] = part[metric].to_numpy().astype(np.float32)
    with atomic(path) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)


def read_values(path: Path, metric: str, pool: str = "all") -> pl.DataFrame:
    """Columns `user` and `metric` of what `save_values` kept."""
    with np.load(path) as arrays:
        return pl.DataFrame({"user": np.cumsum(arrays[f"{pool}.user"]), metric: arrays[f"{pool}.value"]})


def paired_tests(
    rows: Iterable[Row],
    folder: Path,
    ours: str,
    metric: str,
    name_of: Callable[[Row], str],
    splits_of: Callable[[Row], Iterable[int]],
    pool: str = "all",
) -> dict[str, float]:
    """Name -> p of the paired t-test of `metric` against `ours` over users, Holm-corrected within two families.

    The other models, and the other forms of `ours` (names that begin with it: presets, ablations), answer two
    questions: which models are beaten, and which part earns its place. One more ablation changes no p of another model.

    Each is compared on the splits (or seeds) that both have; a user counts once, on however many there are. A row
    stands for all of its `splits_of`: a closed form has one row for every seed. Rows without per-user values are left
    out; without those of `ours` there is no test.
    """
    frames: dict[str, list[pl.DataFrame]] = defaultdict(list)
    for row in rows:
        path = values_file(folder, row["id"])
        if path.exists():
            values = read_values(path, metric, pool)
            frames[name_of(row)] += [values.with_columns(split=pl.lit(split)) for split in splits_of(row)]
    tables = {name: pl.concat(parts) for name, parts in frames.items()}
    if ours not in tables:
        return {}
    one = tables.pop(ours)
    others = {name: other for name, other in tables.items() if set(one["split"]) & set(other["split"])}
    raw = {name: compare(one, other, metric, resamples=0).p_t for name, other in others.items()}
    forms = {name: p for name, p in raw.items() if name.split()[0] == ours}
    models = {name: p for name, p in raw.items() if name not in forms}
    return {name: p for family in (models, forms) for name, p in zip(family, holm(list(family.values())), strict=True)}


def p_cells(found: Mapping[str, float], table: str, data: str, pool: str = "all") -> dict[str, str]:
    """Name -> the cell of its p: as found, or an earlier one with a star."""
    earlier = read_json(EARLIER).get(table, {}).get(data, {}).get(pool, {})
    return {name: f"{p}*" for name, p in earlier.items()} | {name: p_value(p) for name, p in found.items()}
