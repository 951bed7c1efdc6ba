"""Where the real data sets are, and inputs of the same shape for machines that do not have them."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import scipy.sparse as sp
from scipy.sparse.linalg import svds

from modalmix.data import Catalog, Dataset, IdMap, Interactions, Modality, TrainData
from modalmix.encode import TextConfig
from modalmix.train.source import DataConfig, open_dataset

REAL = Path(os.environ.get("MODALMIX_DATA", Path(__file__).parents[2] / "shared" / "data"))
SHAPES = {  # users, items, train events
    "baby": (19_445, 7_050, 118_551),
    "sports": (35_598, 18_357, 218_409),
    "beauty": (22_363, 12_101, 153_776),
}


def shaped(name: str, dims: dict[str, int] | None = None, seed: int = 0, categories: int = 0) -> TrainData:
    """Random train data with the sizes and roughly the popularity curve of a known set, and features of `dims`.

    With `categories` each item has three of so many.
    """
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
    table = pl.DataFrame({"item": np.arange(items)})
    if categories:
        table = table.with_columns(categories=pl.Series(rng.integers(0, categories, (items, 3)).tolist()))
    ids = IdMap(np.arange(users), "user")
    return TrainData(ids, Catalog(IdMap(np.arange(items)), modalities, table), interactions)


def citeulike() -> Dataset:
    """CiteULike with two modalities: text (the tags, by MiniLM) and cites (128 spectral numbers of the citation graph).

    The graph joins cold items too, by what they cite: content that is known when an article appears.
    """
    config = DataConfig(features="raw", text=TextConfig(columns=("tags",), max_length=128))
    dataset = open_dataset(REAL / "citeulike", config)
    table, n = dataset.catalog.table, len(dataset.catalog)
    pairs = table.select(pl.int_range(pl.len()).alias("row"), "cites").explode("cites").drop_nulls()
    cited, row = dataset.catalog.items.find(pairs["cites"].to_numpy()), pairs["row"].to_numpy()
    known = cited >= 0
    graph = sp.csr_matrix((np.ones(known.sum()), (row[known], cited[known])), shape=(n, n))
    graph = ((graph + graph.T) > 0).astype(np.float64)
    degree = np.asarray(graph.sum(axis=1)).ravel()
    scale = sp.diags(1.0 / np.sqrt(np.maximum(degree, 1.0)))
    walk = scale @ graph @ scale + sp.diags((degree > 0).astype(np.float64))
    vectors, values, _ = svds(walk.tocsc() / 2, k=128, random_state=0)
    features = (vectors * values).astype(np.float32)
    features[degree == 0] = np.nan
    modalities = {**dataset.catalog.modalities, "cites": Modality.from_matrix("cites", features)}
    return replace(dataset, catalog=Catalog(dataset.catalog.items, modalities, table))
