"""Which events count: rating threshold, duplicates, k-core. Arrays over events in, a mask over events out."""

from dataclasses import replace

import numpy as np
import polars as pl
from jaxtyping import Bool, Float32, Int, Int64

from modalmix.data.catalog import Catalog
from modalmix.data.dataset import Dataset
from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.data.modality import Modality
from modalmix.data.schema import ReadConfig
from modalmix.errors import DataError


def rated_at_least(rating: Float32[np.ndarray, " events"], threshold: float) -> Bool[np.ndarray, " events"]:
    """Events with rating >= threshold; an unknown rating (NaN) does not reach it."""
    return rating >= np.float32(threshold)


def earliest_of_pairs(
    user: Int[np.ndarray, " events"],
    item: Int[np.ndarray, " events"],
    time: Int64[np.ndarray, " events"] | None,
) -> Bool[np.ndarray, " events"]:
    """For each (user, item) pair its earliest event; without times, and among equal times, the first of the file."""
    pairs = np.sort(user.astype(np.int64) * (int(item.max(initial=0)) + 1) + item)
    if (pairs[1:] != pairs[:-1]).all():  # the usual case, and a sort of values is far cheaper than of positions
        return np.ones(len(user), dtype=bool)
    keys = (item, user) if time is None else (time, item, user)
    order = np.lexsort(keys)  # stable: ties keep the order of the file
    first = np.ones(len(order), dtype=bool)
    first[1:] = (user[order][1:] != user[order][:-1]) | (item[order][1:] != item[order][:-1])
    keep = np.zeros(len(order), dtype=bool)
    keep[order[first]] = True
    return keep


def k_core(
    user: Int[np.ndarray, " events"],
    item: Int[np.ndarray, " events"],
    user_core: int,
    item_core: int,
) -> Bool[np.ndarray, " events"]:
    """The events of the largest part in which every user has >= user_core and every item >= item_core events.

    Users and items below are dropped in turn until none is left below. `user` and `item` are row numbers >= 0.
    """
    keep = np.ones(len(user), dtype=bool)
    while keep.any():
        rich_user = np.bincount(user[keep], minlength=int(user.max()) + 1) >= user_core
        rich_item = np.bincount(item[keep], minlength=int(item.max()) + 1) >= item_core
        next_keep = keep & rich_user[user] & rich_item[item]
        if next_keep.sum() == keep.sum():
            break
        keep = next_keep
    return keep


def filter_dataset(dataset: Dataset, config: ReadConfig) -> Dataset:
    """The events that count: rating threshold, then duplicates merged, then the core. `counts` says what each one took.

    Users without an event left are gone; items leave the catalogue only by the item core. Raises DataError when no
    event is left, or a rating threshold meets no ratings.
    """
    counts = dict(dataset.counts)
    if config.min_rating is not None:
        if dataset.interactions.rating is None:
            raise DataError("min_rating needs ratings", got="interactions without a rating column")
        dataset = _take(dataset, rated_at_least(dataset.interactions.rating, config.min_rating), "min_rating")
        counts["below_min_rating"] = counts.get("events_read", 0) - len(dataset.interactions)
    if config.duplicates == "merge":
        events = dataset.interactions
        first = earliest_of_pairs(events.user, events.item, events.time)
        counts["duplicates_merged"] = int((~first).sum())
        if dataset.labels is not None and not first.all():
            counts["duplicates_across_splits"] = _pairs_across_labels(dataset)
        dataset = _take(dataset, first, "duplicates")
    if any(config.cores):
        events = dataset.interactions
        inside = k_core(events.user, events.item, *config.cores)
        counts["outside_core"] = int((~inside).sum())
        dataset = _take(dataset, inside, f"the {config.cores[0]}, {config.cores[1]}-core of users and items")
    if config.cores[1]:
        counts["items_outside_core"] = int((dataset.interactions.item_degree == 0).sum())
        dataset = _with_items(dataset, dataset.interactions.item_degree > 0)
    return replace(_with_active_users(dataset), counts=counts)


def _take(dataset: Dataset, keep: Bool[np.ndarray, " events"], reason: str) -> Dataset:
    """The data set with only the events to keep."""
    if keep.all():
        return dataset
    if not keep.any():
        raise DataError(f"no event is left after {reason}", got=f"{len(keep):,} events before it")
    labels = None if dataset.labels is None else dataset.labels[keep]
    return replace(dataset, interactions=dataset.interactions.take(keep), labels=labels)


def _pairs_across_labels(dataset: Dataset) -> int:
    """(user, item) pairs whose events carry different split labels."""
    frame = pl.DataFrame(
        {"user": dataset.interactions.user, "item": dataset.interactions.item, "label": dataset.labels}
    )
    return frame.n_unique() - frame.n_unique(["user", "item"])


def _with_active_users(dataset: Dataset) -> Dataset:
    """The data set without the users who have no event."""
    events = dataset.interactions
    active = events.user_degree > 0
    if active.all():
        return dataset
    row = (np.cumsum(active) - 1).astype(np.int32)
    events = replace(events, user=row[events.user], n_users=int(active.sum()))
    users = IdMap(dataset.users.series.filter(pl.Series(active)), "user")
    return replace(dataset, users=users, interactions=events)


def _with_items(dataset: Dataset, keep: Bool[np.ndarray, " items"]) -> Dataset:
    """The data set with only the items to keep; none of the others may have events."""
    if keep.all():
        return dataset
    catalog, events = dataset.catalog, dataset.interactions
    row, mask = (np.cumsum(keep) - 1).astype(np.int32), pl.Series(keep)
    modalities = {
        name: Modality(
            name,
            modality.features[keep],
            modality.present[keep],
            modality.provenance,
            None if modality.neighbors is None else modality.neighbors.keep(keep),
        )
        for name, modality in catalog.modalities.items()
    }
    smaller = Catalog(IdMap(catalog.items.series.filter(mask)), modalities, catalog.table.filter(mask))
    kept: Interactions = replace(events, item=row[events.item], n_items=int(keep.sum()))
    return replace(dataset, catalog=smaller, interactions=kept)
