"""Which events count: rating threshold, duplicates, k-core. Arrays over events in, a mask over events out."""

import numpy as np
from jaxtyping import Bool, Float32, Int, Int64


def rated_at_least(rating: Float32[np.ndarray, " events"], threshold: float) -> Bool[np.ndarray, " events"]:
    """Events with rating >= threshold; an unknown rating (NaN) does not reach it."""
    return rating >= np.float32(threshold)


def earliest_of_pairs(
    user: Int[np.ndarray, " events"],
    item: Int[np.ndarray, " events"],
    time: Int64[np.ndarray, " events"] | None,
) -> Bool[np.ndarray, " events"]:
    """For each (user, item) pair its earliest event; without times, and among equal times, the first of the file."""
    keys = (item, user) if time is None else (time, item, user)
    order = np.lexsort(keys)  # stable: ties keep the order of the file
    first = np.ones(len(order), dtype=bool)
    first[1:] = (user[order][1:] != user[order][:-1]) | (item[order][1:] != item[order][:-1])
    keep = np.zeros(len(order), dtype=bool)
    keep[order[first]] = True
    return keep


def k_core(
    user: Int[np.ndarray, " events"],
    item: Int[np.ndarray, " events"],
    user_core: int,
    item_core: int,
) -> Bool[np.ndarray, " events"]:
    """The events of the largest part in which every user has >= user_core and every item >= item_core events.

    Users and items below are dropped in turn until none is left below. `user` and `item` are row numbers >= 0.
    """
    keep = np.ones(len(user), dtype=bool)
    while keep.any():
        rich_user = np.bincount(user[keep], minlength=int(user.max()) + 1) >= user_core
        rich_item = np.bincount(item[keep], minlength=int(item.max()) + 1) >= item_core
        next_keep = keep & rich_user[user] & rich_item[item]
        if next_keep.sum() == keep.sum():
            break
        keep = next_keep
    return keep
