"""Content-induced edges of a train split, cached: the same split, item graphs and settings are computed once."""

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from modalmix.config import Config
from modalmix.data.split import TrainData
from modalmix.files import cache_folder, cached_arrays, sha256_array, sha256_values
from modalmix.nn.pseudo import Augment, mixed_similarity, pseudo_edges

_VERSION = 1  # of nn/pseudo.py: an entry of another version is made again


class ContentEdgesConfig(Config):
    """Settings of content-induced edges."""

    agree: int = Field(1, ge=1)
    """Item graphs that must list a pair of items before it counts as alike."""
    user_edges: int = Field(5, ge=0)
    """Content-induced edges of a user; 0 for none."""
    item_edges: int = Field(5, ge=0)
    """Content-induced edges of an item in the long tail; 0 for none."""
    tail: float = Field(0.4, ge=0, le=1)
    """The long tail: items whose train degree is at most this quantile of the item degrees."""
    rho: float = Field(1.0, ge=0)
    """Most content-induced edges, as a multiple of the train interactions; the largest are kept."""
    augment: Augment = "ui"
    """ui: edges between users and items; ii: between items alone; both."""


def content_edges(
    data: TrainData, graphs: Sequence[sp.csr_matrix], weights: Sequence[float], settings: ContentEdgesConfig
) -> sp.csr_matrix:
    """P [users, items] of `nn.pseudo.pseudo_edges`, from train interactions and one [items, items] graph a modality.

    Kept under the content hash of the interactions, the graphs, their weights and the settings. Raises ConfigError and
    DataError as `mixed_similarity` and `pseudo_edges` do.
    """
    chosen = {name: settings.model_dump()[name] for name in ContentEdgesConfig.model_fields}
    interactions = data.interactions.csr
    hashes = [_sha256(graph) for graph in (interactions, *graphs)]
    key = sha256_values(_VERSION, hashes, [float(weight) for weight in weights], chosen)

    def edges() -> tuple[np.ndarray, ...]:
        similarity = mixed_similarity(graphs, weights, settings.agree)
        made = pseudo_edges(interactions, similarity, **{name: chosen[name] for name in chosen if name != "agree"})
        return made.data, made.indices, made.indptr

    path = cache_folder() / "graphs" / f"edges-{key[:32]}.npz"
    data_indices_indptr = cached_arrays(path, ("data", "indices", "indptr"), edges)
    return sp.csr_matrix(tuple(data_indices_indptr), shape=interactions.shape)


def _sha256(matrix: sp.csr_matrix) -> str:
    arrays = (matrix.indptr, matrix.indices, matrix.data)
    return sha256_values(matrix.shape, [sha256_array(array) for array in arrays])
