"""Each user's events in time order: what sequential models read and predict."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from jaxtyping import Int, Int32, Int64

from modalmix.data.interactions import Interactions


@dataclass(frozen=True, eq=False)
class Sequences:
    """Items of each user, oldest first, repeats included: those of user u are items[offsets[u] : offsets[u + 1]].

    Events of equal time keep the order in which they were given; `tied_events` and `tied_users` count those for whom
    that decided. `time` runs along `items`, None where there is none.
    """

    offsets: Int64[np.ndarray, " users_plus_one"]
    items: Int32[np.ndarray, " events"]
    time: Int64[np.ndarray, " events"] | None
    tied_events: int
    tied_users: int

    @classmethod
    def of(cls, interactions: Interactions) -> Self:
        """The events by time, or, where there is no time, in the order given."""
        order = interactions.in_time_order
        offsets = np.concatenate([[0], np.cumsum(interactions.user_degree)]).astype(np.int64)
        user = interactions.user[order]
        time = None if interactions.time is None else interactions.time[order]
        tied = np.zeros(len(order), dtype=bool)
        if time is not None:
            with_next = (user[1:] == user[:-1]) & (time[1:] == time[:-1])
            tied[:-1] |= with_next
            tied[1:] |= with_next
        return cls(offsets, interactions.item[order], time, int(tied.sum()), len(np.unique(user[tied])))

    def __len__(self) -> int:
        """Number of users, those without events included."""
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> Int64[np.ndarray, " users"]:
        """Events of each user."""
        return np.diff(self.offsets)

    def last(self, users: Int[np.ndarray, " batch"], length: int) -> Int64[np.ndarray, "batch longest"]:
        """The last `length` items of each user, oldest first, padded right with -1.

        As wide as the longest of them, at most `length`: nothing of the size of all users is made.
        """
        stop = self.offsets[np.asarray(users) + 1]
        return self.between(stop - np.minimum(self.lengths[users], length), stop)

    def between(
        self, start: Int64[np.ndarray, " batch"], stop: Int64[np.ndarray, " batch"]
    ) -> Int64[np.ndarray, "batch longest"]:
        """items[start : stop] of each row, padded right with -1; at least one column."""
        width = int((stop - start).max(initial=1))
        place = start[:, None] + np.arange(width)
        return self._items_then_padding[np.where(place < stop[:, None], place, -1)]

    @cached_property
    def _items_then_padding(self) -> Int64[np.ndarray, " events_plus_one"]:
        """The items and a -1 at the end, which is where place -1 points."""
        return np.append(self.items.astype(np.int64), -1)
