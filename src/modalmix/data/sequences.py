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

    @cached_property
    def longest_interval(self) -> int:
        """Longest time between two events of a user, one after the other; 0 where there are none, or no time."""
        if self.time is None:
            return 0
        follows = np.ones(len(self.items) + 1, dtype=bool)
        follows[self.offsets] = False  # firsts of users, and the end
        return int(np.diff(self.time, prepend=0)[follows[:-1]].max(initial=0))

    def last(self, users: Int[np.ndarray, " batch"], length: int) -> Int64[np.ndarray, "batch longest"]:
        """The last `length` items of each user, oldest first, padded right with -1.

        As wide as the longest of them, at most `length`: nothing of the size of all users is made.
        """
        return self.between(*self._last(users, length))

    def last_times(self, users: Int[np.ndarray, " batch"], length: int) -> Int64[np.ndarray, "batch longest"] | None:
        """When the events of `last` happened, padded right with 0; None where there is no time."""
        return self.times_between(*self._last(users, length))

    def between(
        self, start: Int64[np.ndarray, " batch"], stop: Int64[np.ndarray, " batch"]
    ) -> Int64[np.ndarray, "batch longest"]:
        """items[start : stop] of each row, padded right with -1; at least one column."""
        return self._items_then_padding[_places(start, stop)]

    def times_between(
        self, start: Int64[np.ndarray, " batch"], stop: Int64[np.ndarray, " batch"]
    ) -> Int64[np.ndarray, "batch longest"] | None:
        """time[start : stop] of each row, padded right with 0; None where there is no time."""
        return None if self._time_then_padding is None else self._time_then_padding[_places(start, stop)]

    def _last(
        self, users: Int[np.ndarray, " batch"], length: int
    ) -> tuple[Int64[np.ndarray, " batch"], Int64[np.ndarray, " batch"]]:
        """Start and stop of the last `length` events of each user."""
        stop = self.offsets[np.asarray(users) + 1]
        return stop - np.minimum(self.lengths[users], length), stop

    @cached_property
    def _items_then_padding(self) -> Int64[np.ndarray, " events_plus_one"]:
        """The items and a -1 at the end, which is where place -1 points."""
        return np.append(self.items.astype(np.int64), -1)

    @cached_property
    def _time_then_padding(self) -> Int64[np.ndarray, " events_plus_one"] | None:
        """The times and a 0 at the end."""
        return None if self.time is None else np.append(self.time, 0)


def _places(
    start: Int64[np.ndarray, " batch"], stop: Int64[np.ndarray, " batch"]
) -> Int64[np.ndarray, "batch longest"]:
    """start, start + 1, ..., stop - 1 of each row, padded right with -1; at least one column."""
    place = start[:, None] + np.arange(int((stop - start).max(initial=1)))
    return np.where(place < stop[:, None], place, -1)
