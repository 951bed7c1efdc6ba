"""Splits: from a data set to train, validation and test, and the file that keeps them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
import polars as pl
from jaxtyping import Int64
from pydantic import Field, model_validator

from modalmix.config import Config
from modalmix.data.build import read_times
from modalmix.data.dataset import Dataset
from modalmix.data.interactions import Interactions
from modalmix.data.partition import (
    TEST,
    TRAIN,
    VALID,
    Partition,
    cold_item_partition,
    cold_user_partition,
    global_time_partition,
    last_two_out_partition,
    random_partition,
)
from modalmix.data.schema import Columns
from modalmix.data.split import Split
from modalmix.data.tables import read_table
from modalmix.data.write import dataset_table
from modalmix.errors import DataError
from modalmix.files import atomic

Kind = Literal["auto", "as-given", "random", "leave-last-two-out", "global-time", "cold-item", "cold-user"]
Share = Annotated[float, Field(ge=0.0, lt=1.0)]
PARTS = ("train", "valid", "test")
_METADATA = "modalmix.split"
_ADD_TIMES = "Add a column timestamp, or order, as the data set has it."
LABELS = {
    "train": TRAIN,
    "valid": VALID,
    "validation": VALID,
    "val": VALID,
    "dev": VALID,
    "test": TEST,
    "valid_warm": VALID,
    "valid_cold": VALID,
    "test_warm": TEST,
    "test_cold": TEST,
}


class SplitConfig(Config):
    """How interactions become train, validation and test.

    The same seed gives the same split, whatever the order of rows in the file (except that events of equal time keep
    the order of the file in leave-last-two-out).
    """

    kind: Kind = "auto"
    """auto is as-given where the source has split labels, else random."""
    ratios: tuple[Share, Share, Share] = (0.8, 0.1, 0.1)
    """Shares of train, validation and test, for random (of each user) and global-time (of all events)."""
    cold_share: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.2
    """Share of items (cold-item) or users (cold-user) held out whole: half of them validation, half test."""
    seed: Annotated[int, Field(ge=0)] = 2025
    """Seed of the random kinds."""
    warm_valid: Share = 0.1
    """cold-item: share of each user's events with warm items held out for validation; the MAMEX paper has 0."""
    warm_test: Share = 0.1
    """cold-item: the same for test; without them the warm and the mixed pool have no warm positives."""

    @model_validator(mode="after")
    def _shares_add_up(self) -> Self:
        if abs(sum(self.ratios) - 1.0) > 1e-9 or self.ratios[0] == 0.0:
            raise ValueError("ratios add up to 1, the first is above 0")
        if self.warm_valid + self.warm_test >= 1.0:
            raise ValueError("warm_valid + warm_test is below 1")
        return self


def make_split(dataset: Dataset, config: SplitConfig | None = None) -> Split:
    """Split a data set. `Split.report` counts what is worth knowing: tied times, cold items, users left whole.

    Raises DataError when labels are unknown, times are missing, or no event is left to train on.
    """
    config = config or SplitConfig()
    kind = config.kind
    if kind == "auto":
        kind = "random" if dataset.labels is None else "as-given"
    if kind == "as-given":
        if dataset.labels is None:
            raise DataError(f"data set '{dataset.name}' has no split column", fix="Choose another kind of split.")
        return split_from_labels(dataset, dataset.labels)
    partition = _partition(dataset.interactions, kind, config)
    settings = config.replace(kind=kind).model_dump(mode="json")
    return _split(dataset, partition, kind, settings, cold_split=kind == "cold-item")


def split_from_labels(dataset: Dataset, labels: np.ndarray) -> Split:
    """The split that labels give, one a event: train; valid, validation, val or dev; test; also valid_warm and so on.

    It is a cold split where labels say cold, or most held-out events are of items without a train event.
    Raises DataError for an unknown label, and when none says train.
    """
    distinct, code = np.unique(np.asarray(labels, dtype=str), return_inverse=True)
    unknown = [str(label) for label in distinct if label not in LABELS]
    if unknown:
        raise DataError(
            f"split label '{unknown[0]}' is unknown",
            got=f"{int((code == list(distinct).index(unknown[0])).sum()):,} events with it",
            expected=f"one of {', '.join(LABELS)}",
        )
    part = np.array([LABELS[str(label)] for label in distinct], dtype=np.int8)[code]
    items, held_out = dataset.interactions.item, part != TRAIN
    in_train = np.bincount(items[~held_out], minlength=len(dataset.catalog)) > 0
    says_cold = np.char.endswith(distinct, "_cold")
    cold_split = bool(says_cold.any()) or bool(held_out.any() and (~in_train[items[held_out]]).mean() > 0.5)
    report = {"cold_items": len(np.unique(items[says_cold[code]]))} if says_cold.any() else {}
    return _split(dataset, Partition(part, report), "as-given", {"kind": "as-given"}, cold_split)


def write_split(split: Split, path: Path | str) -> None:
    """Write one Parquet file: user, item, split, and time and rating where there are; how it was made goes along.

    Raises DataError when the file cannot be written; a file that was there is kept then.
    """
    parts = {"train": split.train, "valid": split.valid, "test": split.test}
    labels = np.repeat(PARTS, [len(part) for part in parts.values()])
    facts = {"kind": split.kind, "settings": split.settings, "cold_split": split.cold_split, "report": split.report}
    metadata = {_METADATA: json.dumps({**facts, "sha256": split.sha256})}
    table = dataset_table(split.dataset, split.train + split.valid + split.test, labels)
    try:
        with atomic(path) as temporary:
            table.write_parquet(temporary, metadata=metadata)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path} cannot be written", got=error, fix="Nothing was changed.") from error


def read_split(dataset: Dataset, path: Path | str) -> Split:
    """The split in a file, over this data set. A table of user, item and split made elsewhere labels its events.

    Such a table needs a time only for the repeats of a user and an item, where the data set has times; repeats at equal
    times are matched in the order of the rows. Its other columns are not read.
    Raises DataError when the file has ids that the data set does not have, is not the split that was written, or does
    not label every event of the data set and nothing else.
    """
    path = Path(path)
    table, facts = read_table(path), _facts(path)
    if "sha256" not in facts:
        return split_from_labels(dataset, _joined_labels(dataset, table, path))
    read = _written(dataset, table, path)
    noted = {name: facts[name] for name in ("kind", "settings", "cold_split", "report")}
    split = replace(read, dataset=dataset, **noted)
    if facts["sha256"] != split.sha256:
        raise DataError(
            f"{path} is not a split of data set '{dataset.name}' as it is now",
            got=f"sha256 {split.sha256[:12]}",
            expected=f"{facts['sha256'][:12]}",
            fix="Read the data set as it was read then, or split again.",
        )
    return split


def _written(dataset: Dataset, table: pl.DataFrame, path: Path) -> Split:
    """The split in a table of `write_split`, events in its order. Raises DataError for unknown ids and labels."""
    user, item, label = _roles(dataset, table, path)
    time = next((table[name].cast(pl.Int64) for name in ("timestamp", "order") if name in table.columns), None)
    events = Interactions(
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        n_users=len(dataset.users),
        n_items=len(dataset.catalog),
        time=None if time is None else time.to_numpy(),
        rating=table["rating"].cast(pl.Float32).to_numpy() if "rating" in table.columns else None,
    )
    labels = label.to_numpy()
    return split_from_labels(Dataset(dataset.name, dataset.users, dataset.catalog, events, labels), labels)


def _joined_labels(dataset: Dataset, table: pl.DataFrame, path: Path) -> np.ndarray:
    """The label of each event of the data set, from a table in any order. Raises DataError when they do not match."""
    user, item, label = _roles(dataset, table, path)
    events, keys = dataset.interactions, ["user", "item"]
    own, given = pl.DataFrame({"user": events.user, "item": events.item}), pl.DataFrame({"user": user, "item": item})
    own, given = own.cast(pl.Int64), given.with_columns(label.alias("label"))
    if events.time is not None and (own.is_duplicated().any() or given.select(keys).is_duplicated().any()):
        times = read_times(table, Columns(), str(path))
        if times is None:
            raise DataError(f"{path} has no times to tell repeats of a user and an item apart", fix=_ADD_TIMES)
        own, given = own.with_columns(time=events.time), given.with_columns(times.seconds.alias("time"))
        keys.append("time")
    nth = pl.int_range(pl.len()).over(keys).alias("nth")
    own, given = own.with_columns(nth), given.with_columns(nth)
    labels = own.join(given, on=[*keys, "nth"], how="left", maintain_order="left")["label"]
    if labels.null_count() or len(given) != len(own):
        surplus = len(given) - (len(own) - labels.null_count())
        raise DataError(
            f"{path} does not label the events of data set '{dataset.name}'",
            got=f"{labels.null_count():,} of {len(own):,} events without a label, {surplus:,} labels of no event",
            expected="one label an event",
            fix="Split the data set as it was read, filters included.",
        )
    return labels.to_numpy()


def _roles(
    dataset: Dataset, table: pl.DataFrame, path: Path
) -> tuple[Int64[np.ndarray, " rows"], Int64[np.ndarray, " rows"], pl.Series]:
    """User rows, item rows and labels (empty where there is none) of a split table. Raises DataError."""
    user, item, label = (table[Columns().require(table, role, str(path))] for role in ("user", "item", "split"))
    return dataset.users.rows(user), dataset.catalog.items.rows(item), label.cast(pl.String).fill_null("")


def _facts(path: Path) -> dict[str, Any]:
    """What `write_split` noted in a file; empty for other files."""
    if path.suffix != ".parquet":
        return {}
    return dict(json.loads(pl.read_parquet_metadata(path).get(_METADATA, "{}")))


def _partition(events: Interactions, kind: Kind, config: SplitConfig) -> Partition:
    """The part of each event."""
    rng = np.random.default_rng(config.seed)
    train, valid, test = config.ratios
    match kind:
        case "leave-last-two-out":
            return last_two_out_partition(events)
        case "global-time":
            return global_time_partition(events, train, valid)
        case "cold-item":
            return cold_item_partition(events, config.cold_share, config.warm_valid, config.warm_test, rng)
        case "cold-user":
            return cold_user_partition(events, config.cold_share, rng)
    return random_partition(events, valid, test, rng)


def _split(dataset: Dataset, partition: Partition, kind: str, settings: dict[str, Any], cold_split: bool) -> Split:
    """The events of each part. Raises DataError when there are none to train on."""
    train, valid, test = (dataset.interactions.take(partition.part == part) for part in (TRAIN, VALID, TEST))
    if len(train) == 0:
        raise DataError(
            f"the {kind} split of '{dataset.name}' has no train events",
            got=f"{len(valid):,} validation and {len(test):,} test events",
            fix="Check the labels, the ratios and the times.",
        )
    return Split(dataset, train, valid, test, kind, settings, cold_split, partition.report)
