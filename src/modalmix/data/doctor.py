"""What in a data set would spoil training, or numbers."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modalmix.data.dataset import Dataset
from modalmix.data.features import find_features
from modalmix.data.identical import row_keys
from modalmix.data.interactions import Interactions
from modalmix.data.modality import Modality
from modalmix.data.neighbors import find_neighbors, owner_of
from modalmix.data.read import read_dataset
from modalmix.data.schema import ReadConfig
from modalmix.data.splitters import LABELS
from modalmix.errors import DataError

if TYPE_CHECKING:
    from rich.table import Table

USER_TAG_COLUMNS = ("tags", "tag", "user_tags", "labels")
FIRST_ROWS = 20  # what a ranking of equal scores shows when ties are broken by row
POPULAR_FIRST = 3.0  # times the mean item
MILLISECONDS = 100_000_000_000
_BLOCK_ROWS = 16_384


@dataclass(frozen=True)
class Examination:
    """`problems` make results wrong or training impossible, `warnings` are worth a look."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def examine(source: Dataset | Path | str, config: ReadConfig | None = None) -> Examination:
    """Look at events, items, features, ratings, times and labels. What cannot be read is a problem."""
    if not isinstance(source, Dataset):
        try:
            source = read_dataset(source, config)
        except DataError as error:
            return Examination(problems=[str(error)])
    warnings = [*_event_warnings(source), *_item_warnings(source), *_rating_warnings(source.interactions)]
    warnings += [*_time_warnings(source.interactions), *_label_warnings(source), *_graph_warnings(source)]
    problems = list(_problems(source))
    for modality in source.catalog.modalities.values():
        if modality.present.any():
            warnings += _feature_warnings(modality)
        else:
            problems.append(f"no item has modality '{modality.name}'")
    return Examination(problems, warnings, source.summary())


def examination_table(examination: Examination) -> "Table":
    """What `examine` found as a table of rich."""
    from rich.table import Table

    table = Table("", "what", title="examination", title_justify="left")
    for problem in examination.problems:
        table.add_row("[red]problem[/]", problem)
    for warning in examination.warnings:
        table.add_row("[yellow]warning[/]", warning)
    if not examination.problems and not examination.warnings:
        table.add_row("[green]fine[/]", "nothing found")
    return table


def popularity_of_first_rows(events: Interactions) -> float:
    """Events of the first 20 rows of the catalogue over those of as many average items.

    It is how far a constant score beats chance where a tool breaks ties by row.
    """
    return float(events.item_degree[:FIRST_ROWS].mean() / max(events.item_degree.mean(), 1e-12))


def _problems(dataset: Dataset) -> Iterator[str]:
    if len(dataset.users) < 2:
        yield "there is only one user"
    if len(dataset.catalog) < 2:
        yield "there is only one item"
    if dataset.labels is not None:
        names = np.unique(dataset.labels.astype(str))
        for name in names:
            if name not in LABELS:
                yield f"split label '{name}' is unknown (known: {', '.join(LABELS)})"
        if "train" not in names:
            yield "no event has the split label 'train'"


def _event_warnings(dataset: Dataset) -> Iterator[str]:
    counts, events = dataset.counts, dataset.interactions
    repeats = len(events) - events.csr.nnz
    if repeats:
        yield f"{repeats:,} events repeat a (user, item) pair"
    if counts.get("duplicates_merged"):
        yield f"{counts['duplicates_merged']:,} events repeated a (user, item) pair and were merged"
    if counts.get("duplicates_across_splits"):
        yield f"{counts['duplicates_across_splits']:,} of them had another split label than the event that was kept"
    short = int((events.user_degree < 3).sum())
    if short:
        yield f"{short:,} of {len(dataset.users):,} users have fewer than 3 events: per-user splits leave them in train"


def _item_warnings(dataset: Dataset) -> Iterator[str]:
    catalog, events = dataset.catalog, dataset.interactions
    isolated = int((events.item_degree == 0).sum())
    if isolated:
        yield f"{isolated:,} of {len(catalog):,} items have no events"
    if catalog.modalities:
        bare = int((~np.any([modality.present for modality in catalog.modalities.values()], axis=0)).sum())
        if bare:
            yield f"{bare:,} of {len(catalog):,} items have no modality at all"
    factor = popularity_of_first_rows(events)
    if factor > POPULAR_FIRST and len(catalog) > 2 * FIRST_ROWS:
        yield f"popular items stand first: breaking ties by row would give {factor:.1f} times what chance gives"
    for name in USER_TAG_COLUMNS:
        if name in catalog.table.columns:
            yield f"items column '{name}' looks like tags given by users: for cold items that is a leak"


def _feature_warnings(modality: Modality) -> Iterator[str]:
    name, n_present = modality.name, int(modality.present.sum())
    absent = len(modality) - n_present
    if absent:
        yield f"{absent:,} of {len(modality):,} items ({absent / len(modality):.1%}) lack modality '{name}'"
    least, most = np.full(modality.dim, np.inf), np.full(modality.dim, -np.inf)
    zeros = 0
    for start in range(0, len(modality), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        zeros += int((~np.asarray(modality.features[block]).any(axis=1)).sum())
        rows = modality.matrix(block)[modality.present[block]]
        if len(rows):
            least, most = np.minimum(least, rows.min(axis=0)), np.maximum(most, rows.max(axis=0))
    if zeros:
        yield f"{zeros:,} rows of '{name}' are all zero and count as absent"
    constant = int((least == most).sum())
    if constant and n_present > 1:
        yield f"{constant:,} of {modality.dim:,} feature columns of '{name}' are constant"
    _, repeats = np.unique(row_keys(modality)[modality.present], return_counts=True)
    same = int(repeats[repeats > 1].sum())
    if same:
        yield f"{same:,} items share their row of '{name}' with another item (largest group {int(repeats.max()):,})"


def _graph_warnings(dataset: Dataset) -> Iterator[str]:
    """Graphs that do not fit their modality, and graph files that no model will see."""
    with_graph = {name: one for name, one in dataset.catalog.modalities.items() if one.neighbors is not None}
    for name, modality in with_graph.items():
        assert modality.neighbors is not None
        rows, own = modality.neighbors.rows, np.arange(len(modality))[:, None]
        lonely = modality.present & ~((rows >= 0) & (rows != own)).any(axis=1)
        if lonely.any():
            yield f"{int(lonely.sum()):,} items that have '{name}' have no neighbour in its graph"
        absent = (rows >= 0) & ~(modality.present[rows] & modality.present[:, None])
        if absent.any():
            yield f"{int(absent.sum()):,} edges of the graph of '{name}' touch items without it and do not count"
    if dataset.source is None or not dataset.source.is_dir():
        return
    try:
        graphs, features = find_neighbors(dataset.source), find_features(dataset.source)
    except DataError as error:  # in a folder of another format, where neither is read
        yield str(error)
        return
    taken = {owner_of(name, graphs) for name in with_graph}
    wanted = {owner_of(name, graphs) for name in dataset.catalog.modalities}
    known = wanted | {owner_of(name, graphs) for name in features}
    for name in graphs:
        if name not in known:
            yield f"graph file {graphs[name].name} belongs to no modality"
        elif name in wanted and name not in taken:
            yield f"graph file {graphs[name].name} is not read: without an items table its rows are unknown"


def _rating_warnings(events: Interactions) -> Iterator[str]:
    if events.rating is None:
        return
    unknown = int((~np.isfinite(events.rating)).sum())
    if unknown:
        yield f"{unknown:,} events have no rating"
    if unknown < len(events):
        least, most = float(np.nanmin(events.rating)), float(np.nanmax(events.rating))
        if least < most and least <= most / 2:
            yield f"ratings go from {least:g} to {most:g} and all count as positive: min_rating keeps the good ones"


def _time_warnings(events: Interactions) -> Iterator[str]:
    if events.time is None:
        return
    if events.time.max() >= MILLISECONDS:
        yield "times look like milliseconds, seconds are expected"
    if events.time.min() < 0:
        yield f"{int((events.time < 0).sum()):,} events have a time below 0: their order is unknown"
    order = events.in_time_order
    same = (np.diff(events.user[order]) == 0) & (np.diff(events.time[order]) == 0)
    tied = np.zeros(len(events), dtype=bool)
    tied[1:] |= same
    tied[:-1] |= same
    if tied.any():
        yield f"{tied.mean():.1%} of the events share their time with another event of the same user"


def _label_warnings(dataset: Dataset) -> Iterator[str]:
    if dataset.labels is None:
        return
    names = set(np.unique(dataset.labels.astype(str)).tolist())
    for part in ("valid", "test"):
        if not any(LABELS.get(name) == LABELS[part] for name in names):
            yield f"no event is labelled as {part}"
