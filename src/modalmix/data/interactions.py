"""Interactions as arrays of row numbers."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32, Int64

from modalmix.errors import DataError
from modalmix.files import sha256_array, sha256_values

if TYPE_CHECKING:
    import scipy.sparse

UNIX_SECONDS = 100_000_000  # times that reach 1973 are unix seconds, others an order
BITMAP_BYTES = 1 << 30  # above this, membership is a search among sorted keys instead of a look into a bitmap


@dataclass(frozen=True, eq=False)
class Interactions:
    """Who met what. Arrays run over events; `user` and `item` are rows of the data set's IdMaps.

    `time` grows with time: unix seconds, or the given order; events of equal time stand in their true order, as far as
    the source tells. `rating` is as the source has it. None where unknown.
    """

    user: Int32[np.ndarray, " events"]
    item: Int32[np.ndarray, " events"]
    n_users: int
    n_items: int
    time: Int64[np.ndarray, " events"] | None = None
    rating: Float32[np.ndarray, " events"] | None = None

    def __post_init__(self) -> None:
        for name, rows, size in (("user", self.user, self.n_users), ("item", self.item, self.n_items)):
            if rows.shape != self.user.shape:
                raise DataError("interactions", got=f"{rows.shape} {name}s", expected=f"{self.user.shape}")
            if len(rows) and (int(rows.min()) < 0 or int(rows.max()) >= size):
                raise DataError(f"{name} row", got=f"{rows.min()}..{rows.max()}", expected=f"0..{size - 1}")

    def __len__(self) -> int:
        return len(self.user)

    def take(self, chosen: Bool[np.ndarray, " events"] | Int[np.ndarray, " chosen"]) -> "Interactions":
        """The chosen events (a mask or positions), in that order."""
        return replace(
            self,
            user=self.user[chosen],
            item=self.item[chosen],
            time=None if self.time is None else self.time[chosen],
            rating=None if self.rating is None else self.rating[chosen],
        )

    def __add__(self, other: "Interactions") -> "Interactions":
        """The events of both, these first."""
        return replace(
            self,
            user=np.concatenate([self.user, other.user]),
            item=np.concatenate([self.item, other.item]),
            time=None if self.time is None or other.time is None else np.concatenate([self.time, other.time]),
            rating=None if self.rating is None or other.rating is None else np.concatenate([self.rating, other.rating]),
        )

    @cached_property
    def csr(self) -> "scipy.sparse.csr_matrix":
        """Users x items, float32, 1 where there is an event (repeats count once), item rows sorted within a user."""
        from scipy.sparse import csr_matrix  # a third of the time it takes to import the data layer

        ones = np.ones(len(self), dtype=np.float32)
        matrix = csr_matrix((ones, (self.user, self.item)), shape=(self.n_users, self.n_items))
        matrix.sum_duplicates()
        matrix.data[:] = 1.0
        return matrix

    @cached_property
    def user_degree(self) -> Int64[np.ndarray, " users"]:
        """Events of each user."""
        return np.bincount(self.user, minlength=self.n_users)

    @cached_property
    def item_degree(self) -> Int64[np.ndarray, " items"]:
        """Events of each item."""
        return np.bincount(self.item, minlength=self.n_items)

    @property
    def in_seconds(self) -> bool:
        """Whether `time` is unix seconds; else it is an order, which may count within each user."""
        return self.time is not None and len(self) > 0 and int(self.time.max()) >= UNIX_SECONDS

    @cached_property
    def in_time_order(self) -> Int64[np.ndarray, " events"]:
        """Positions of the events by user, then time; ties keep the order of the file (stable)."""
        time = np.arange(len(self)) if self.time is None else self.time
        return np.lexsort((time, self.user))

    def contains(self, user: Int[np.ndarray, " pairs"], item: Int[np.ndarray, " pairs"]) -> Bool[np.ndarray, " pairs"]:
        """Whether each (user, item) pair is among the events."""
        key = user.astype(np.int64) * self.n_items + item
        if self._fits_bitmap:
            return (self._bitmap[key >> 3] >> (key & 7).astype(np.uint8)) & 1 != 0
        if len(self) == 0:
            return np.zeros(len(key), dtype=bool)
        place = np.searchsorted(self._keys, key)
        return self._keys[np.minimum(place, len(self._keys) - 1)] == key

    @property
    def _fits_bitmap(self) -> bool:
        return self.n_users * self.n_items <= BITMAP_BYTES * 8

    @cached_property
    def _keys(self) -> Int64[np.ndarray, " pairs"]:
        """Sorted distinct user * n_items + item."""
        return np.unique(self.user.astype(np.int64) * self.n_items + self.item)

    @cached_property
    def _bitmap(self) -> np.ndarray:
        """One bit a (user, item) pair."""
        bits = np.zeros(self.n_users * self.n_items // 8 + 1, dtype=np.uint8)
        byte, bit = self._keys >> 3, np.left_shift(1, self._keys & 7).astype(np.uint8)
        np.bitwise_or.at(bits, byte, bit)
        return bits

    @cached_property
    def sha256(self) -> str:
        """Content hash."""
        arrays = [self.user, self.item, self.time, self.rating]
        return sha256_values(self.n_users, self.n_items, [None if a is None else sha256_array(a) for a in arrays])
