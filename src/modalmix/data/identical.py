"""Items whose content is the same, bit for bit: a placeholder picture, a reissue, a copy."""

import numpy as np
from jaxtyping import UInt64

from modalmix.data.modality import Modality

_BLOCK_ROWS = 8_192


def row_keys(modality: Modality) -> UInt64[np.ndarray, " items"]:
    """A 64-bit key of each feature row: equal rows have equal keys, and others differ but for a chance of 2^-32.

    The key is a sum of the row's values, read as integers, times fixed odd numbers modulo 2^64.
    """
    width = modality.features.dtype.itemsize
    factors = np.random.default_rng(0).integers(0, 2**63, modality.dim, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    keys = np.empty(len(modality), dtype=np.uint64)
    for start in range(0, len(modality), _BLOCK_ROWS):
        block = np.ascontiguousarray(modality.features[start : start + _BLOCK_ROWS])
        keys[start : start + _BLOCK_ROWS] = block.view(f"u{width}").astype(np.uint64) @ factors
    return keys
