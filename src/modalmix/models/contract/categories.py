"""Categories of items, from the table of the catalogue."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from jaxtyping import Int
from torch import Tensor

from modalmix.data.align import as_lists
from modalmix.data.catalog import Catalog
from modalmix.errors import ModelError, nearest
from modalmix.nn.category import Labels


@dataclass(frozen=True)
class Categories:
    """The categories of a column, by name, and which each item has, each once. No names: the column is not there."""

    names: tuple[str, ...]
    items: Labels

    @classmethod
    def of(
        cls, catalog: Catalog, column: str, names: Sequence[str] | None = None, required: bool = False
    ) -> "Categories":
        """Read a column of lists, or of text with one category or several between "|"; null is no category.

        With `names` (of the training catalogue) others are left out: nothing has been learnt of them. Raises ModelError
        for a column that is not there when it is `required`.
        """
        if column not in catalog.table.columns:
            if required:
                raise ModelError(f"items have no column '{column}'", fix=nearest(column, catalog.table.columns))
            empty = torch.zeros(len(catalog) + 1, dtype=torch.int64)
            return cls(tuple(names or ()), Labels(empty, empty[:0]))
        frame = pl.DataFrame({"row": np.arange(len(catalog)), "name": as_lists(catalog.table[column])})
        pairs = frame.explode("name").drop_nulls().unique().sort("row", "name")
        known = tuple(pairs["name"].unique().sort()) if names is None else tuple(names)
        place = {name: k for k, name in enumerate(known)}
        kept = pairs.filter(pl.col("name").is_in(list(known)))
        counts = np.bincount(kept["row"].to_numpy(), minlength=len(catalog))
        offsets = torch.from_numpy(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
        labels = torch.tensor([place[name] for name in kept["name"]], dtype=torch.int64)
        return cls(known, Labels(offsets, labels))

    @property
    def single(self) -> bool:
        """Whether no item has several."""
        return bool((self.items.counts <= 1).all())


def labels_of(items: Labels, rows: Int[Tensor, " rows"]) -> Labels:
    """The labels of some items, in that order, repeats included."""
    start, counts = items.offsets[rows], items.counts[rows]
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    place = torch.arange(int(offsets[-1]), device=rows.device) - torch.repeat_interleave(offsets[:-1], counts)
    return Labels(offsets, items.labels[torch.repeat_interleave(start, counts) + place])
