"""A data set in numbers."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Int64

from modalmix.data.dataset import Dataset
from modalmix.data.interactions import Interactions

if TYPE_CHECKING:
    from rich.table import Table

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.95, 1.0)
HEAD = 0.1  # the share of items whose part of the events measures the long tail


def describe(dataset: Dataset) -> dict[str, Any]:
    """Sizes, density, degree quantiles, long tail, modalities, ratings, times, labels: JSON-able."""
    events, catalog = dataset.interactions, dataset.catalog
    facts: dict[str, Any] = {
        **dataset.summary(),
        "items_without_events": int((events.item_degree == 0).sum()),
        "events_per_user": degree_quantiles(events.user_degree),
        "events_per_item": degree_quantiles(events.item_degree),
        "share_of_events_on_top_10_percent_of_items": head_share(events),
        "item_columns": [name for name in catalog.table.columns if name != "item"],
    }
    for name, modality in catalog.modalities.items():
        facts["modalities"][name] |= {
            "dtype": str(modality.features.dtype),
            "encoder": modality.provenance.get("encoder"),
        }
    if events.rating is not None and np.isfinite(events.rating).any():
        rating = events.rating[np.isfinite(events.rating)]
        facts["rating"] = {"least": float(rating.min()), "mean": float(rating.mean()), "most": float(rating.max())}
    if events.time is not None and len(events):
        first, last = int(events.time.min()), int(events.time.max())
        facts["time"] = {"first": first, "last": last}
        if events.in_seconds:
            facts["time"] = {"first": _date(first), "last": _date(last)}
    if dataset.labels is not None:
        names, counts = np.unique(dataset.labels.astype(str), return_counts=True)
        facts["split"] = {str(name): int(count) for name, count in zip(names, counts, strict=True)}
    return facts


def degree_quantiles(degree: Int64[np.ndarray, " rows"]) -> dict[str, float]:
    """Least, quartiles, 95 % and most events of those who have any, and their mean."""
    active = degree[degree > 0]
    if len(active) == 0:
        return {}
    names = ("least", "25%", "median", "75%", "95%", "most")
    values = np.quantile(active, QUANTILES)
    quantiles = {name: float(value) for name, value in zip(names, values, strict=True)}
    return {**quantiles, "mean": float(active.mean())}


def head_share(events: Interactions) -> float:
    """Share of the events on the tenth of the catalogue (rounded up) that has most of them."""
    degree = np.sort(events.item_degree)[::-1]
    return float(degree[: int(np.ceil(HEAD * len(degree)))].sum() / max(1, len(events)))


def description_table(facts: dict[str, Any]) -> "Table":
    """What `describe` says as a table of rich."""
    from rich.table import Table

    table = Table("", "", title=f"data set {facts['name']}", show_header=False, title_justify="left")
    for name, value in facts.items():
        if name in ("name", "modalities"):
            continue
        table.add_row(name.replace("_", " "), _as_text(value))
    for name, modality in facts["modalities"].items():
        present, encoder = f"{modality['present']:.1%} of the items", modality.get("encoder")
        graph = f"graph of {modality['neighbors']} neighbours" if modality.get("neighbors") else ""
        parts = (f"{modality['dim']}-d", present, encoder, graph)
        table.add_row(f"modality {name}", ", ".join(part for part in parts if part))
    return table


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_as_text(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _date(seconds: int) -> str | int:
    """The date of unix seconds; milliseconds, which lie beyond year 9999, as they are."""
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (OverflowError, ValueError):
        return seconds
