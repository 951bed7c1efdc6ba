"""A data set as read from disk, before it is split."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from modalmix.data.catalog import Catalog
from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.files import sha256_values


@dataclass(frozen=True, eq=False)
class Dataset:
    """Users, catalogue and interactions under external ids.

    `labels` is the split column where the source has one (one string an event), else None. `counts` says what reading
    did: events read, duplicates merged, events dropped by each filter. `source` is the folder or file it came from,
    `reading` the settings it was read with, so that it can be read again. `made_wrong` says what was done to its items
    table on purpose, nothing for data as read: a run trained on it is told from one that was not.
    """

    name: str
    users: IdMap
    catalog: Catalog
    interactions: Interactions
    labels: np.ndarray | None = None
    counts: dict[str, int] = field(default_factory=dict)
    source: Path | None = None
    reading: dict[str, Any] = field(default_factory=dict)
    made_wrong: str = ""

    @cached_property
    def sha256(self) -> str:
        """Content hash of users, items, interactions and labels; not of the features, which have their own."""
        labels = None if self.labels is None else sha256_values([str(label) for label in self.labels])
        return sha256_values(self.users.sha256, self.catalog.items.sha256, self.interactions.sha256, labels)

    def summary(self) -> dict[str, Any]:
        """Sizes, sparsity, and per modality its dim, the share of items that have it and the k of its graph."""
        events, users, items = len(self.interactions), len(self.users), len(self.catalog)
        return {
            "name": self.name,
            "users": users,
            "items": items,
            "interactions": events,
            "density": events / max(1, users * items),
            "modalities": {
                name: {"dim": modality.dim, "present": float(modality.present.mean()) if items else 0.0}
                | ({} if modality.neighbors is None else {"neighbors": modality.neighbors.k})
                for name, modality in self.catalog.modalities.items()
            },
            **self.counts,
        }
