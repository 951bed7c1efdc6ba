"""Who buys what, and when."""

import numpy as np
from jaxtyping import Bool, Float32, Int, Int64

from modalmix.data.interactions import Interactions
from modalmix.data.samplers import negatives
from modalmix.data.shop.truth import Truth, stream

START = 1_672_531_200  # 1 January 2023, unix seconds
YEAR = 365 * 86_400
HOUR = 3_600
SPREAD = 0.5  # sigma of the lognormal number of events of a user
LEAST = 3  # events of a user where the mean and the catalogue allow it: one to train, validate and test on
_BLOCK = 1 << 22  # entries of users x items at a time


def draw_events(truth: Truth) -> tuple[Interactions, Bool[np.ndarray, " events"]]:
    """The events in the order of time, and which of them are random. No user meets an item twice."""
    config = truth.config
    counts = _counts(truth)
    random_counts = stream(config.seed, "random events").binomial(counts, config.noise)
    chosen = _by_taste(truth, counts - random_counts)
    drawn = _at_random(chosen, random_counts, stream(config.seed, "random items"))
    events = chosen + drawn
    is_random = np.arange(len(events)) >= len(chosen)
    time = _times(truth, events)
    order = np.lexsort((events.user, time))
    ordered = Interactions(events.user[order], events.item[order], config.users, config.items, time=time[order])
    return ordered, is_random[order]


def _counts(truth: Truth) -> Int64[np.ndarray, " users"]:
    """Number of events of each user: lognormal with the mean asked for, at most half of the catalogue."""
    config = truth.config
    most = max(1, config.items // 2)
    least = min(LEAST, most, int(config.events_per_user))
    middle = np.log(config.events_per_user) - SPREAD**2 / 2
    drawn = stream(config.seed, "counts").lognormal(middle, SPREAD, config.users)
    return np.clip(np.round(drawn), least, most).astype(np.int64)


def _by_taste(truth: Truth, counts: Int64[np.ndarray, " users"]) -> Interactions:
    """counts[u] different items for each user u, each drawn in proportion to exp(affinity) among those left.

    An exponential race: the items with the smallest E / exp(affinity), E standard exponential, are such a draw
    (Efraimidis and Spirakis 2006, Weighted random sampling with a reservoir).
    """
    rng = stream(truth.config.seed, "race")
    users, items = [], []
    block = max(1, _BLOCK // truth.config.items)
    for start in range(0, truth.config.users, block):
        rows = np.arange(start, min(start + block, truth.config.users))
        finish = rng.standard_exponential((len(rows), truth.config.items), dtype=np.float32)
        np.maximum(finish, np.finfo(np.float32).tiny, out=finish)  # a draw may round to 0
        np.log(finish, out=finish)  # the order is the same, and no weight overflows
        finish -= truth.affinity(rows)
        first = _smallest(finish, counts[rows])
        users.append(np.repeat(rows, counts[rows]).astype(np.int32))
        items.append(first.astype(np.int32))
    return Interactions(np.concatenate(users), np.concatenate(items), truth.config.users, truth.config.items)


def _smallest(
    values: Float32[np.ndarray, "rows columns"], counts: Int[np.ndarray, " rows"]
) -> Int64[np.ndarray, " all"]:
    """The columns of the counts[r] smallest values of each row r, row after row, the smallest first."""
    widest = max(1, int(counts.max()))
    few = np.argpartition(values, widest - 1, axis=1)[:, :widest]
    order = np.argsort(np.take_along_axis(values, few, axis=1), axis=1)
    return np.take_along_axis(few, order, axis=1)[np.arange(widest) < counts[:, None]]


def _at_random(chosen: Interactions, counts: Int64[np.ndarray, " users"], rng: np.random.Generator) -> Interactions:
    """counts[u] items for each user u, uniform over those the user has not chosen; a repeated draw counts once."""
    user = np.repeat(np.arange(chosen.n_users, dtype=np.int32), counts)
    item = negatives(chosen, user, rng, np.ones(chosen.n_items, dtype=bool))
    _, first = np.unique(user.astype(np.int64) * chosen.n_items + item, return_index=True)
    return Interactions(user[first], item[first], chosen.n_users, chosen.n_items)


def _times(truth: Truth, events: Interactions) -> Int64[np.ndarray, " events"]:
    """Unix seconds. A user shops for a year that begins in 2023; each visit is to one category and lasts an hour."""
    config, rng = truth.config, stream(truth.config.seed, "times")
    begin = rng.integers(0, YEAR, config.users)
    visits = begin[:, None, None] + rng.integers(0, YEAR, (config.users, config.categories, config.visits))
    visit = rng.integers(0, config.visits, len(events))
    within = rng.integers(0, HOUR, len(events))
    return START + visits[events.user, truth.category[events.item], visit] + within
