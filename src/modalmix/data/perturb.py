"""A data set with one modality gone, alone, made noise, dealt to the wrong items, or labels wrong: what is it worth?

Items, interactions and presence stay as they are, so that a split of the data set stays the same split.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float32

from modalmix.data.align import as_lists, is_text
from modalmix.data.catalog import Catalog
from modalmix.data.dataset import Dataset
from modalmix.data.modality import Modality
from modalmix.errors import DataError, nearest


def only(dataset: Dataset, name: str) -> Dataset:
    """The modality alone. Raises ModelError for an unknown one."""
    return select(dataset, [name])


def without(dataset: Dataset, name: str) -> Dataset:
    """All modalities but that one. Raises ModelError for an unknown one, DataError when it is the only one."""
    dataset.catalog.modality(name)
    others = [other for other in dataset.catalog.modalities if other != name]
    if not others:
        raise DataError(
            f"'{name}' is the only modality of data set '{dataset.name}'",
            expected="at least two, to leave one out",
            fix=f"Ask for noise-{name} or shuffle-{name} instead.",
        )
    return select(dataset, others)


def select(dataset: Dataset, names: Iterable[str]) -> Dataset:
    """The named modalities; `reading` says so too, so that the same can be read again. Raises ModelError."""
    names = tuple(names)
    return replace(
        dataset, catalog=dataset.catalog.select(names), reading={**dataset.reading, "modalities": list(names)}
    )


def noise(dataset: Dataset, name: str, seed: int) -> Dataset:
    """Gaussian noise in place of the features, with the mean and standard deviation (over the items that have the
    modality, divisor n) of each column; presence is kept. Raises ModelError for an unknown modality.
    """
    modality = dataset.catalog.modality(name)
    known = modality.matrix(np.flatnonzero(modality.present)).astype(np.float64)
    features = np.zeros((len(modality), modality.dim), dtype=np.float32)
    if len(known):
        draws = np.random.default_rng(seed).standard_normal(known.shape)
        features[modality.present] = known.mean(axis=0) + known.std(axis=0) * draws
    return _with_features(dataset, modality, features, "noise", seed)


def shuffle(dataset: Dataset, name: str, seed: int) -> Dataset:
    """The feature rows dealt at random among the items that have the modality; presence is kept.

    The rows stay real and so does their distribution, but they tell nothing of the item. Raises ModelError for an
    unknown modality.
    """
    modality = dataset.catalog.modality(name)
    owners = np.flatnonzero(modality.present)
    features = modality.matrix()
    features[owners] = features[np.random.default_rng(seed).permutation(owners)]
    return _with_features(dataset, modality, features, "shuffle", seed)


def wrong_labels(dataset: Dataset, column: str, share: float, seed: int) -> Dataset:
    """Each label of each item replaced, with probability `share`, by another one of the column, drawn evenly.

    `column` of the items table holds lists, or text with one label or several between "|". An item with several labels
    may draw one that it has: it is then left with one less. Items without labels stay without.

    Raises DataError for an unknown column, a share outside 0 to 1, or fewer than two labels in all.
    """
    table = dataset.catalog.table
    if column not in table.columns:
        raise DataError(f"items of '{dataset.name}' have no column '{column}'", fix=nearest(column, table.columns))
    if not 0 <= share <= 1:
        raise DataError("share of wrong labels", got=share, expected="0 to 1")
    lists = table[column]  # names as a model reads them; lists of numbers stay such
    if is_text(lists.dtype) or not isinstance(lists.dtype, pl.List):
        lists = as_lists(lists)
    lists = lists.list.drop_nulls()
    names = lists.explode().drop_nulls().unique().sort().to_list()
    if len(names) < 2:
        raise DataError(f"labels in column '{column}'", got=names, expected="at least two, to take one for another")
    place, rng = {name: k for k, name in enumerate(names)}, np.random.default_rng(seed)

    def noisy(labels: list[Any] | None) -> list[Any] | None:
        if labels is None:
            return None
        other = [(place[one] + rng.integers(1, len(names))) % len(names) for one in labels]
        wrong = rng.random(len(labels)) < share
        return [names[o] if changed else one for one, o, changed in zip(labels, other, wrong, strict=True)]

    labels = pl.Series(column, [noisy(each) for each in lists.to_list()], dtype=lists.dtype)
    catalog = Catalog(dataset.catalog.items, dataset.catalog.modalities, table.with_columns(labels))
    return replace(dataset, catalog=catalog, made_wrong=f"{share:g} of the labels in '{column}', seed {seed}")


def _with_features(
    dataset: Dataset, modality: Modality, features: Float32[np.ndarray, "items dim"], how: str, seed: int
) -> Dataset:
    """The data set with other features of one modality, whose provenance says what was done."""
    provenance = {**modality.provenance, "perturbed": how, "perturbation_seed": seed}
    changed = Modality(modality.name, features, modality.present, provenance)
    old = dataset.catalog
    return replace(dataset, catalog=Catalog(old.items, {**old.modalities, modality.name: changed}, old.table))
