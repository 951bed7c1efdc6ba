"""How a source is read: which columns mean what, and which events count."""

from pathlib import Path
from typing import Annotated, Literal, Self

import polars as pl
from pydantic import Field, model_validator

from modalmix.config import Config
from modalmix.errors import DataError, nearest

# names looked for, best first, where the settings name no column
KNOWN_NAMES = {
    "user": ("user", "user_id", "userID", "userId", "uid"),
    "item": ("item", "item_id", "itemID", "itemId", "iid"),
    "rating": ("rating",),
    "timestamp": ("timestamp",),
    "order": ("order",),
    "split": ("split",),
}
Positive = Annotated[int, Field(ge=1)]


class Columns(Config):
    """Which column of the source is what. A column left out is found by its usual name."""

    user: str | None = None
    """Column of user ids; else user, user_id, userID, userId or uid."""
    item: str | None = None
    """Column of item ids, in the interactions and in the items table; else item, item_id, itemID, itemId or iid."""
    rating: str | None = None
    """Column of ratings; else rating, where there is one."""
    timestamp: str | None = None
    """Column of times, unix seconds or dates; else timestamp, where there is one."""
    order: str | None = None
    """Column of positions in time, used where there is no timestamp; else order, where there is one."""
    split: str | None = None
    """Column of split labels such as train, valid, test; else split, where there is one."""

    def find(self, table: pl.DataFrame, role: str, source: str) -> str | None:
        """The column of `table` that plays `role`, None where there is none.

        Raises DataError when the settings name a column that `source` does not have.
        """
        chosen: str | None = {
            "user": self.user,
            "item": self.item,
            "rating": self.rating,
            "timestamp": self.timestamp,
            "order": self.order,
            "split": self.split,
        }[role]
        if chosen is None:
            return next((name for name in KNOWN_NAMES[role] if name in table.columns), None)
        if chosen not in table.columns:
            raise DataError(f"{source} has no column '{chosen}'", fix=nearest(chosen, table.columns))
        return chosen

    def is_id(self, name: str) -> bool:
        """Whether a column of this name holds ids of users or items, in any table."""
        return name in (self.user, self.item, *KNOWN_NAMES["user"], *KNOWN_NAMES["item"])

    def require(self, table: pl.DataFrame, role: str, source: str) -> str:
        """The column of `table` that plays `role`. Raises DataError when there is none."""
        column = self.find(table, role, source)
        if column is None:
            raise DataError(
                f"{source} has no {role} column",
                got=f"columns {', '.join(table.columns) or 'none'}",
                expected=f"one of {', '.join(KNOWN_NAMES[role])}",
                fix=f"Name it with the setting columns.{role}.",
            )
        return column


class ReadConfig(Config):
    """What to read of a source and which of its events count.

    The order is: rating threshold, then duplicates, then the core.
    """

    columns: Columns = Columns()
    """Which column is what."""
    min_rating: float | None = None
    """Keep the events with at least this rating; events without a rating are dropped. Items stay in the catalogue."""
    k_core: Positive | None = None
    """Keep only users and items with at least this many events, repeated until it holds for all of them."""
    user_core: Positive | None = None
    """As k_core, for users; overrides it."""
    item_core: Positive | None = None
    """As k_core, for items; overrides it. Items below it leave the catalogue, those without any event too."""
    duplicates: Literal["merge", "keep"] = "merge"
    """The same user and item several times: merge keeps the earliest event, keep keeps all."""
    modalities: tuple[str, ...] | None = None
    """Names of the modalities to read; else all that are found."""
    modality_files: dict[str, Path] = Field(default_factory=dict)
    """Feature files by modality name, .npy or .safetensors, beside or instead of those in the folder."""

    @model_validator(mode="after")
    def _known_modality_files(self) -> Self:
        unused = [name for name in self.modality_files if self.modalities is not None and name not in self.modalities]
        if unused:
            raise ValueError(f"modality_files names '{unused[0]}', modalities does not")
        return self

    @property
    def cores(self) -> tuple[int, int]:
        """Least events of a user, and of an item; 0 where there is no such filter."""
        return self.user_core or self.k_core or 0, self.item_core or self.k_core or 0
