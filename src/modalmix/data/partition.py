"""Which part each event goes to: the kinds of split as functions over arrays."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int8, Int64

from modalmix.data.interactions import Interactions
from modalmix.data.sequences import Sequences
from modalmix.errors import DataError

TRAIN, VALID, TEST = 0, 1, 2
SMALLEST_SPLIT_USER = 3  # users with fewer events stay in train whole: one event a part is the least


class Partition(NamedTuple):
    """The part of each event (TRAIN, VALID, TEST), and counts worth reporting."""

    part: Int8[np.ndarray, " events"]
    report: dict[str, int]


def held_out_counts(
    degree: Int64[np.ndarray, " users"], valid: float, test: float
) -> tuple[Int64[np.ndarray, " users"], Int64[np.ndarray, " users"]]:
    """How many of a user's `degree` events go to validation and to test.

    max(1, floor(valid * n)) and max(1, floor(test * n + 1/2)) for n >= 3, none below: at .1 and .1 these are the sizes
    of MMRec's published splits for every user. A share of 0 gives 0; train keeps one event.
    """
    eligible = degree >= SMALLEST_SPLIT_USER
    n_valid = np.maximum(1, np.floor(valid * degree + 1e-9)) * (valid > 0) * eligible
    n_test = np.maximum(1, np.floor(test * degree + 0.5 + 1e-9)) * (test > 0) * eligible
    n_test = np.minimum(n_test, np.maximum(degree - 1, 0))
    n_valid = np.minimum(n_valid, np.maximum(degree - 1 - n_test, 0))
    return n_valid.astype(np.int64), n_test.astype(np.int64)


def random_partition(events: Interactions, valid: float, test: float, rng: np.random.Generator) -> Partition:
    """A random share of each user's events to validation and to test, of the sizes of `held_out_counts`."""
    order = _canonical_order(events)
    order = order[np.lexsort((rng.random(len(order)), events.user[order]))]
    n_valid, n_test = held_out_counts(events.user_degree, valid, test)
    user = events.user[order]
    from_end = _places_from_end(events)
    part = np.zeros(len(events), dtype=np.int8)
    part[order[from_end < (n_test + n_valid)[user]]] = VALID
    part[order[from_end < n_test[user]]] = TEST
    return Partition(part, {"users_all_in_train": int((n_valid + n_test == 0).sum())})


def last_two_out_partition(events: Interactions) -> Partition:
    """Each user's last event to test and the one before to validation; users with fewer than 3 events stay in train.

    Raises DataError without times. The report counts ties: events that share user and second with another one, and
    users for whom a tie (broken by fractions of a second where the source has them, else by the order of the file)
    decides which event is held out.
    """
    time = _times(events, "leave-last-two-out")
    order, from_end = events.in_time_order, _places_from_end(events)
    user, when = events.user[order], time[order]
    eligible = events.user_degree[user] >= SMALLEST_SPLIT_USER
    part = np.zeros(len(events), dtype=np.int8)
    part[order[eligible & (from_end == 1)]] = VALID
    part[order[eligible & (from_end == 0)]] = TEST
    tied = np.zeros(len(order), dtype=bool)  # with the next event
    tied[:-1] = (user[1:] == user[:-1]) & (when[1:] == when[:-1])
    boundary = tied & eligible & ((from_end == 1) | (from_end == 2))
    report = {
        "users_all_in_train": int((events.user_degree < SMALLEST_SPLIT_USER).sum()),
        "events_tied_in_time": int((tied | np.roll(tied, 1)).sum()),
        "users_split_by_a_tie": len(np.unique(user[boundary])),
    }
    return Partition(part, report)


def global_time_partition(events: Interactions, train: float, valid: float) -> Partition:
    """Events before one moment to train, before a second one to validation, the others to test.

    The moments are the times of the events at the shares `train` and `train + valid`; equal times are never parted.
    The report counts ties, events that share user and time with another one, and who and what train knows nothing of:
    users and items whose events are all held out. Raises DataError without times.
    """
    time = _times(events, "global-time")
    ordered = np.sort(time)
    part = np.zeros(len(events), dtype=np.int8)
    for share, name in ((train, VALID), (train + valid, TEST)):
        place = round(share * len(ordered))
        if place < len(ordered):
            part[time >= ordered[place]] = name
    kept = events.take(part == TRAIN)
    report = {
        "users_without_train": int(((events.user_degree > 0) & (kept.user_degree == 0)).sum()),
        "items_without_train": int(((events.item_degree > 0) & (kept.item_degree == 0)).sum()),
        "events_tied_in_time": Sequences.of(events).tied_events,
    }
    return Partition(part, report)


def cold_item_partition(
    events: Interactions, share: float, valid: float, test: float, rng: np.random.Generator
) -> Partition:
    """A random `share` of the items that have events is cold: half validation, half test, with every event of theirs.

    Of the warm items' events, shares `valid` and `test` of each user are held out as `random_partition` does, but each
    warm item keeps a train event. With 0 and 0 this is the protocol of the MAMEX paper (arXiv 2508.08042).
    Raises DataError when fewer than two items would be cold.
    """
    cold_valid, cold_test = _two_halves(np.flatnonzero(events.item_degree), share, "item", rng)
    of_item = np.zeros(events.n_items, dtype=np.int8)
    of_item[cold_valid], of_item[cold_test] = VALID, TEST
    part = of_item[events.item]
    warm = np.flatnonzero(part == TRAIN)
    if valid or test:
        part[warm] = random_partition(events.take(warm), valid, test, rng).part
        part[_first_of_items_without_train(events, part, of_item)] = TRAIN
    return Partition(part, {"cold_items": len(cold_valid) + len(cold_test)})


def cold_user_partition(events: Interactions, share: float, rng: np.random.Generator) -> Partition:
    """A random `share` of the users is held out with all their events: half validation, half test.

    Such users have no train event: only models that take a history can serve them.
    Raises DataError when fewer than two users would be held out.
    """
    cold_valid, cold_test = _two_halves(np.flatnonzero(events.user_degree), share, "user", rng)
    of_user = np.zeros(events.n_users, dtype=np.int8)
    of_user[cold_valid], of_user[cold_test] = VALID, TEST
    return Partition(of_user[events.user], {"cold_users": len(cold_valid) + len(cold_test)})


def _canonical_order(events: Interactions) -> Int64[np.ndarray, " events"]:
    """Positions by user, item, time: random draws along it do not depend on the order of the file."""
    keys = (events.item, events.user) if events.time is None else (events.time, events.item, events.user)
    return np.lexsort(keys)


def _places_from_end(events: Interactions) -> Int64[np.ndarray, " events"]:
    """For events in any order sorted by user: 0 at each user's last event, 1 at the one before, ..."""
    ends = np.cumsum(events.user_degree)
    return np.repeat(ends, events.user_degree) - 1 - np.arange(len(events))


def _two_halves(
    rows: Int64[np.ndarray, " rows"], share: float, kind: str, rng: np.random.Generator
) -> tuple[Int64[np.ndarray, " valid"], Int64[np.ndarray, " test"]]:
    """A random `share` of the rows in two halves (validation gets the smaller). Raises DataError below two rows."""
    count = int(share * len(rows) + 0.5)
    if count < 2 or count == len(rows):
        raise DataError(
            f"a cold-{kind} split of {len(rows):,} {kind}(s) with events",
            got=f"{count} cold at cold_share={share}",
            expected=f"at least 2 cold and 1 warm {kind}",
        )
    cold = rng.permutation(rows)[:count]
    return cold[: count // 2], cold[count // 2 :]


def _first_of_items_without_train(
    events: Interactions, part: Int8[np.ndarray, " events"], of_item: Int8[np.ndarray, " items"]
) -> Int64[np.ndarray, " chosen"]:
    """One event (the first by user) of each warm item that has none in train."""
    in_train = np.bincount(events.item[part == TRAIN], minlength=events.n_items) > 0
    order = _canonical_order(events)
    lost = order[(~in_train & (of_item == TRAIN))[events.item[order]]]
    return lost[np.unique(events.item[lost], return_index=True)[1]]


def _times(events: Interactions, kind: str) -> Int64[np.ndarray, " events"]:
    """The times. Raises DataError without any."""
    if events.time is None:
        raise DataError(f"a {kind} split needs times", fix="Add a column timestamp or order to the interactions.")
    return events.time
