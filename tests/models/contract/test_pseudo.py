"""The cache of content-induced edges: what is kept is what is computed, and nothing else answers for it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import modalmix.models.contract.pseudo as module
from modalmix.data.split import TrainData
from modalmix.errors import ConfigError, DataError
from modalmix.models.contract import item_graph
from modalmix.models.contract.pseudo import ContentEdgesConfig, content_edges
from modalmix.nn.pseudo import mixed_similarity, pseudo_edges
from tests.models.conftest import Shop

WEIGHTS = (0.3, 0.7)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry a computation."""
    made: list[int] = []

    def counted(*arguments: Any, **settings: Any) -> sp.csr_matrix:
        made.append(1)
        return pseudo_edges(*arguments, **settings)

    monkeypatch.setattr(module, "pseudo_edges", counted)
    return made


def graphs(data: TrainData, k: int = 5) -> list[sp.csr_matrix]:
    return [item_graph(data.catalog, name, k) for name in ("image", "text")]


def test_what_is_kept_is_what_is_computed(content_shop: Shop, calls: list[int]) -> None:
    data, settings = content_shop(), ContentEdgesConfig(agree=2, user_edges=3, item_edges=2, tail=0.5, rho=0.5)
    first = content_edges(data, graphs(data), WEIGHTS, settings)
    again = content_edges(content_shop(), graphs(data), WEIGHTS, settings)
    assert len(calls) == 1
    similarity = mixed_similarity(graphs(data), WEIGHTS, agree=2)
    expected = pseudo_edges(data.interactions.csr, similarity, user_edges=3, item_edges=2, tail=0.5, rho=0.5)
    for edges in (first, again):
        assert edges.nnz == expected.nnz > 0
        assert (edges != expected).nnz == 0
        assert edges.shape == (data.n_users, data.n_items)
        assert edges.multiply(data.interactions.csr).nnz == 0


def test_cold_items_get_edges(content_shop: Shop) -> None:
    edges = content_edges(content_shop(), graphs(content_shop()), WEIGHTS, ContentEdgesConfig())
    assert edges[:, 24:].getnnz(axis=0).min() > 0


@pytest.mark.parametrize(
    "change",
    [{"agree": 2}, {"user_edges": 4}, {"item_edges": 4}, {"tail": 0.3}, {"rho": 0.9}, {"augment": "both"}],
    ids=lambda change: next(iter(change)),
)
def test_another_setting_is_another_entry(content_shop: Shop, calls: list[int], change: dict[str, object]) -> None:
    data = content_shop()
    content_edges(data, graphs(data), WEIGHTS, ContentEdgesConfig())
    content_edges(data, graphs(data), WEIGHTS, ContentEdgesConfig.parse(change))
    assert len(calls) == 2


def test_other_events_graphs_and_weights_are_other_entries(content_shop: Shop, calls: list[int]) -> None:
    data, settings = content_shop(), ContentEdgesConfig()
    known = graphs(data)
    content_edges(data, known, WEIGHTS, settings)
    fewer = replace(data, interactions=data.interactions.take(np.arange(len(data.interactions) - 1)))
    heavier = known[0].copy()
    heavier.data[0] += 0.5
    content_edges(fewer, known, WEIGHTS, settings)
    content_edges(data, graphs(data, k=6), WEIGHTS, settings)
    content_edges(data, [heavier, known[1]], WEIGHTS, settings)
    content_edges(data, known[::-1], WEIGHTS, settings)
    content_edges(data, known, (0.5, 0.5), settings)
    assert len(calls) == 6
    content_edges(data, known, [0.3, 0.7], settings)
    assert len(calls) == 6


def test_a_torn_entry_is_made_again(content_shop: Shop, calls: list[int], own_cache: Path) -> None:
    data, settings = content_shop(), ContentEdgesConfig()
    known = graphs(data)
    first = content_edges(data, known, WEIGHTS, settings)
    (entry,) = own_cache.glob("graphs/edges-*.npz")
    entry.write_bytes(entry.read_bytes()[:100])
    again = content_edges(data, known, WEIGHTS, settings)
    assert len(calls) == 2
    assert (first != again).nnz == 0
    content_edges(data, known, WEIGHTS, settings)
    assert len(calls) == 2


def test_bad_input_is_an_error_and_leaves_no_entry(content_shop: Shop, own_cache: Path) -> None:
    data = content_shop()
    with pytest.raises(ConfigError, match="weights of item graphs"):
        content_edges(data, graphs(data), (1.0,), ContentEdgesConfig())
    with pytest.raises(ConfigError, match="agree: got 3, expected 1 to 2"):
        content_edges(data, graphs(data), WEIGHTS, ContentEdgesConfig(agree=3))
    with pytest.raises(DataError, match="item similarities"):
        content_edges(data, [sp.identity(4, format="csr")], (1.0,), ContentEdgesConfig())
    with pytest.raises(ConfigError, match="tail"):
        ContentEdgesConfig.parse({"tail": 2})
    assert not list(own_cache.glob("graphs/edges-*"))
