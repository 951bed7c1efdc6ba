"""Where the real data sets are, and inputs of the same shape for machines that do not have them."""

import os
from pathlib import Path

import numpy as np

from modalmix.data import Catalog, IdMap, Interactions, Modality, TrainData

REAL = Path(os.environ.get("MODALMIX_DATA", Path(__file__).parents[2] / "shared" / "data"))
SHAPES = {  # users, items, train events
    "baby": (19_445, 7_050, 118_551),
    "sports": (35_598, 18_357, 218_409),
    "beauty": (22_363, 12_101, 153_776),
}


def shaped(name: str, dims: dict[str, int] | None = None, seed: int = 0) -> TrainData:
    """Random train data with the sizes and roughly the popularity curve of a known set, and features of `dims`."""
    users, items, events = SHAPES[name]
    rng = np.random.default_rng(seed)
    weight = 1.0 / (np.arange(items) + 20.0) ** 0.8  # a long tail like the Amazon sets
    user = np.concatenate([np.repeat(np.arange(users), 3), rng.integers(0, users, 2 * events)])
    item = rng.choice(items, len(user), p=weight / weight.sum())
    pairs = np.unique(user * items + item)
    pairs = rng.permutation(pairs)[:events]
    interactions = Interactions((pairs // items).astype(np.int32), (pairs % items).astype(np.int32), users, items)
    modalities = {
        name: Modality.from_matrix(name, rng.standard_normal((items, dim), dtype=np.float32))
        for name, dim in (dims or {}).items()
    }
    ids = IdMap(np.arange(users), "user")
    return TrainData(ids, Catalog(IdMap(np.arange(items)), modalities), interactions)
