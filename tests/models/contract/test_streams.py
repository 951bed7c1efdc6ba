"""One sequence a modality, with a model of the test's own: what items are and have, and where a sequence ends."""

from dataclasses import replace
from functools import partial
from typing import Any, final

import numpy as np
import polars as pl
import pytest
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from modalmix.data.catalog import Catalog
from modalmix.data.split import TrainData
from modalmix.errors import ModelError
from modalmix.models.contract.sequential import Items
from modalmix.models.contract.streams import StreamConfig, StreamRecommender
from modalmix.nn.dyt import DynamicTanh
from modalmix.nn.packing import Packing
from tests.models.conftest import Shop

ITEMS, COLD = 30, 6
KINDS = ("hats", "shoes")


@final
class Plain(StreamRecommender[StreamConfig]):
    """e~ = e."""

    def __init__(self, config: StreamConfig, data: TrainData) -> None:
        super().__init__(config, data)
        self.add_encoders(partial(nn.LayerNorm, eps=0.1), inner="dyt")

    def states(self, history: Int[Tensor, "batch length"], items: Items) -> Float[Tensor, "batch length wide"]:
        packing = Packing(history >= 0)
        return self.states_of(self.placed(items.inputs[packing.pack(history)], packing.place), packing)


@pytest.fixture
def data(content_shop: Shop) -> TrainData:
    """Image 3 and text 4 missing, everything of the cold item 29; an item's kind, none for the first."""
    shop = content_shop(absent={"image": [3, 29], "text": [4, 29]})
    kinds = [None, *(KINDS[k % 2] for k in range(1, ITEMS))]
    table = pl.DataFrame({"item": shop.catalog.items.series, "categories": [kind and [kind] for kind in kinds]})
    return replace(shop, catalog=Catalog(shop.catalog.items, shop.catalog.modalities, table))


def model(data: TrainData, **settings: Any) -> Plain:
    torch.manual_seed(0)
    return Plain(StreamConfig.parse({"dim": 4, "heads": 1, "length": 5, "layers": 1, **settings}), data).eval()


def added(data: TrainData) -> Catalog:
    """Two items more: one with text and an unknown category beside a known one, named twice; one with nothing."""
    text = np.full((2, 8), 0.5, dtype=np.float32)
    text[1] = np.nan
    table = pl.DataFrame({"item": [100, 101], "categories": [["shoes", "wigs", "shoes"], None]})
    return data.catalog.extend(table, {"text": text})


@torch.no_grad()
def test_an_item_is_its_id_and_a_linear_map_of_what_it_has(data: TrainData) -> None:
    built = model(data)
    assert built.streams == ("id", "image", "text")
    items = built.items(data.catalog)
    assert items.inputs is items.outputs
    ids, image, text = items.outputs.split(4, dim=1)
    torch.testing.assert_close(ids[:-COLD], built.table[:-COLD])
    torch.testing.assert_close(ids[-COLD:], built.table[:-COLD].mean(dim=0).expand(COLD, 4))
    for k, (vectors, missing) in enumerate(((image, [3, 29]), (text, [4, 29]))):
        expected = built.features[k].x @ built.project[k].weight.T + built.project[k].bias  # type: ignore[operator, union-attr]
        expected[missing] = 0.0
        torch.testing.assert_close(vectors, expected)
        assert vectors.any(dim=1).sum() == ITEMS - 2
    present = items.beside.present
    assert present[[0, 3, 4, 29]].int().tolist() == [[1, 1, 1], [1, 0, 1], [1, 1, 0], [1, 0, 0]]


@torch.no_grad()
def test_an_added_item_has_the_mean_id_and_its_own_content(data: TrainData) -> None:
    built = model(data)
    before, after = built.items(data.catalog), built.items(added(data))
    torch.testing.assert_close(after.outputs[:ITEMS], before.outputs)
    torch.testing.assert_close(after.outputs[ITEMS:, :4], built.table[:-COLD].mean(dim=0).expand(2, 4))
    x = built.features[1].read(added(data).modality("text"))[0][ITEMS]  # type: ignore[operator]
    torch.testing.assert_close(after.outputs[ITEMS, 8:], built.project[1](x))
    assert after.beside.present[ITEMS:].int().tolist() == [[1, 0, 1], [1, 0, 0]]
    assert not after.outputs[ITEMS, 4:8].any()
    assert not after.outputs[ITEMS + 1, 4:].any()


def test_labels_of_added_items_are_those_that_training_knew(data: TrainData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plain, "reads_categories", True)
    built = model(data)
    assert built.categories.names == KINDS
    labels = built.items(added(data)).beside.labels
    assert labels.counts.tolist() == [0] + 29 * [1] + [1, 0]
    assert labels.labels.tolist() == [k % 2 for k in range(1, ITEMS)] + [KINDS.index("shoes")]


def test_labels_of_added_items_are_not_read_where_no_state_depends_on_them(data: TrainData) -> None:
    built = model(data)
    assert built.items(added(data)).beside.labels is None
    assert built.items(data.catalog).beside.labels.counts.tolist() == [0] + 29 * [1]


def test_a_column_of_another_name(data: TrainData) -> None:
    table = data.catalog.table.rename({"categories": "kind"})
    renamed = replace(data, catalog=Catalog(data.catalog.items, data.catalog.modalities, table))
    assert model(renamed).categories.names == ()
    assert model(renamed, category_column="kind").categories.names == KINDS


@torch.no_grad()
def test_a_sequence_ends_at_its_last_item(data: TrainData) -> None:
    built, history = model(data), torch.tensor([[0, 3, 8], [7, -1, -1], [4, 2, -1]])
    packing, items = Packing(history >= 0), built.items(data.catalog)
    e = built.placed(items.inputs[packing.pack(history)], packing.place)
    torch.testing.assert_close(e[1, 4], items.inputs[4, 4:8] + built.positions[0])  # item 4 is the fifth that is packed
    torch.testing.assert_close(e[2, 5], items.inputs[2, 8:] + built.positions[1])
    states = built.states(history, items)
    for k in range(3):
        ends = torch.stack([states[0, 2], states[1, 0], states[2, 1]])[:, 4 * k : 4 * k + 4]
        torch.testing.assert_close(built.encode_last(k, e[k], packing), ends)
    assert not states[history < 0].any()


def test_norms_before_and_inside_the_transformers(data: TrainData) -> None:
    built = model(data)
    assert [one.eps for one in built.norms] == [0.1, 0.1, 0.1]
    assert not any(isinstance(one, nn.LayerNorm) for one in built.encoders.modules())
    assert sum(isinstance(one, DynamicTanh) for one in built.encoders.modules()) == 6


@torch.no_grad()
def test_sequences_are_dropped_from_after_the_norms_in_training_alone(data: TrainData) -> None:
    built, history = model(data, layers=0, dropout=0.5), torch.tensor([[0, 3, 8], [7, 1, 2]])
    items = built.items(data.catalog)
    whole = built.states(history, items)
    assert torch.equal(built.states(history, items), whole)
    torch.manual_seed(0)
    assert (built.train().states(history, items) / whole).unique().tolist() == [0.0, 2.0]


def test_bad_modalities(content_shop: Shop) -> None:
    with pytest.raises(ModelError, match="Did you mean 'image'"):
        model(content_shop(), modalities=["imgae"])
    with pytest.raises(ModelError, match="no item with a train interaction has modality 'text'"):
        model(content_shop(absent={"text": range(ITEMS - COLD)}))
