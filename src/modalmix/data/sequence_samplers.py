"""Training examples of sequential models: one causal pass over a history, or each of its prefixes by itself."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from modalmix.data.sequences import Sequences
from modalmix.errors import DataError


class Windows(NamedTuple):
    """Stretches of targets: places start..stop-1 of `Sequences.items`, each predicted from what stands before it."""

    user: Int64[np.ndarray, " windows"]
    start: Int64[np.ndarray, " windows"]
    stop: Int64[np.ndarray, " windows"]

    @property
    def targets(self) -> int:
        """Targets of all of them."""
        return int((self.stop - self.start).sum())

    def steps(self, size: int) -> int:
        """Batches of about `size` targets each."""
        return min(len(self.start), -(-self.targets // size))


class Examples(NamedTuple):
    """Row k: what `user[k]` met, oldest first, and the items to predict at its positions; -1 is no target, or padding,
    which stands right.

    `times` of the inputs, padded with 0, where they are asked for and known.
    """

    user: Int64[np.ndarray, " batch"]
    inputs: Int64[np.ndarray, "batch length"]
    targets: Int64[np.ndarray, "batch length"]
    times: Int64[np.ndarray, "batch length"] | None = None


def windows(sequences: Sequences, length: int, *, last_only: bool = False) -> Windows:
    """Windows of at most `length` targets that tile each history from its end, so that every event but a user's first
    is a target once; with `last_only` a user's last window alone.

    The inputs of a window start with the item before its first target: an early target of a window that is not a
    user's first sees less than `length` items.
    """
    first, stop = sequences.offsets[:-1] + 1, sequences.offsets[1:]  # nothing stands before a user's first event
    count = -(-np.maximum(stop - first, 0) // length)
    if last_only:
        count = np.minimum(count, 1)
    user = np.repeat(np.arange(len(sequences)), count)
    from_end = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)
    stop = stop[user] - from_end * length
    return Windows(user, np.maximum(stop - length, first[user]), stop)


def causal_batches(
    sequences: Sequences, chosen: Windows, size: int, rng: np.random.Generator, *, times: bool = False
) -> Iterator[Examples]:
    """One epoch: the windows in random order, about `size` targets a batch; with the `times` of their inputs if asked.

    Raises DataError when there is no target.
    """
    if len(chosen.start) == 0:
        raise _nothing_to_predict()
    for rows in np.array_split(rng.permutation(len(chosen.start)), chosen.steps(size)):
        start, stop = chosen.start[rows], chosen.stop[rows]
        inputs, targets = sequences.between(start - 1, stop - 1), sequences.between(start, stop)
        when = sequences.times_between(start - 1, stop - 1) if times else None
        yield Examples(chosen.user[rows], inputs, targets, when)


def prefix_batches(
    sequences: Sequences,
    targets: Int64[np.ndarray, " targets"],
    length: int,
    size: int,
    rng: np.random.Generator,
    *,
    times: bool = False,
) -> Iterator[Examples]:
    """One epoch: each of `targets` (places of `Sequences.items`) after the `length` items before it, a row by itself.

    In random order, batches of `size`, the last may be smaller; with the `times` of their inputs if asked. Raises
    DataError when there is no target.
    """
    if len(targets) == 0:
        raise _nothing_to_predict()
    order = rng.permutation(targets)
    for begin in range(0, len(order), size):
        target = order[begin : begin + size]
        user = np.searchsorted(sequences.offsets, target, side="right") - 1
        start = np.maximum(sequences.offsets[user], target - length)
        inputs = sequences.between(start, target)
        following = np.full_like(inputs, -1)
        following[np.arange(len(target)), target - start - 1] = sequences.items[target]
        yield Examples(user, inputs, following, sequences.times_between(start, target) if times else None)


def prefix_targets(sequences: Sequences, last: int | None = None) -> Int64[np.ndarray, " targets"]:
    """Places of all events that have one of the same user before them, of each user's `last` ones where it is given."""
    follows = np.ones(len(sequences.items) + 1, dtype=bool)
    follows[sequences.offsets] = False  # firsts of users, and the end
    if last is not None:
        from_end = np.repeat(sequences.offsets[1:], sequences.lengths) - np.arange(len(sequences.items))
        follows[:-1] &= from_end <= last
    return np.flatnonzero(follows)


def _nothing_to_predict() -> DataError:
    return DataError(
        "the train split has no interactions in sequence",
        expected="a user with two events or more",
        fix="Check the split labels and filters.",
    )
