"""Id plus content, with a projection of a test's own: what is summed, what fills in, and what `ids` switches."""

from typing import Any, final

import numpy as np
import pytest
import torch
from torch import nn

from modalmix.data.catalog import Catalog
from modalmix.data.modality import Modality
from modalmix.data.split import TrainData
from modalmix.errors import ConfigError
from modalmix.models.contract import Query, find_model
from modalmix.models.contract.content import ModalityFeatures, read_content
from modalmix.models.contract.content_sequential import ContentSequentialConfig, ContentSequentialRecommender
from tests.models.conftest import Shop

ITEMS, COLD = 30, 6


@final
class Named(ContentSequentialRecommender[ContentSequentialConfig]):
    """Says 1 for anything visual and 10 for anything else, whatever the features."""

    def projection(self, modality: ModalityFeatures) -> nn.Module:
        said = nn.Linear(modality.dim, self.config.dim)
        nn.init.zeros_(said.weight)
        nn.init.constant_(said.bias, 1.0 if modality.name == "image" else 10.0)
        return said


@pytest.fixture
def data(content_shop: Shop) -> TrainData:
    return content_shop(absent={"image": [3, 5, 29], "text": [4, 5, 29]})


def model(data: TrainData, **settings: Any) -> Named:
    torch.manual_seed(0)
    return Named(ContentSequentialConfig.parse({"dim": 4, "heads": 1, "length": 5, **settings}), data).eval()


@torch.no_grad()
def test_what_an_item_has_is_summed_over_its_id(data: TrainData) -> None:
    built = model(data)
    assert built.table is not None
    content = built.items(data.catalog).inputs.clone()
    content[:-COLD] -= built.table[:-COLD]
    content[-COLD:] -= built.table[:-COLD].mean(dim=0)
    expected = torch.full((ITEMS, 4), 11.0)
    expected[3], expected[4], expected[[5, 29]] = 10.0, 1.0, 0.0
    torch.testing.assert_close(content, expected)


@pytest.mark.parametrize("rows", ["all alike", "one item"])
@pytest.mark.parametrize("name", ["cammsr", "fdsa", "sasreccontent", "unisrec"])
def test_a_modality_that_tells_no_item_from_another_is_not_read(content_shop: Shop, name: str, rows: str) -> None:
    x = np.ones((ITEMS, 8), dtype=np.float32)
    if rows == "one item":
        x[np.arange(ITEMS) != 3] = np.nan
    data = content_shop()
    catalog = Catalog(data.catalog.items, {"text": Modality.from_matrix("text", x)}, data.catalog.table)
    data = TrainData(data.users, catalog, data.interactions)
    found = find_model(name)
    with pytest.warns(UserWarning, match="'text' have the same features: nothing is read of it"):
        built = found.recommender(found.config.parse({"dim": 8, "hidden": 8, "length": 5, "whiten": 4}), data)
    batch = next(iter(built.batches(data, 64, np.random.default_rng(0))))
    torch.stack(list(built.loss(batch).values())).sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in built.parameters() if p.grad is not None)
    assert bool(built.eval().scorer(catalog)(Query(users=torch.arange(3))).isfinite().all())


@torch.no_grad()
def test_without_ids_what_has_nothing_is_like_the_mean_of_warm_items(data: TrainData) -> None:
    vectors = model(data, ids=False).items(data.catalog).outputs
    expected = torch.full((ITEMS, 4), 11.0)
    expected[3], expected[4] = 10.0, 1.0
    expected[[5, 29]] = (21 * 11.0 + 10.0 + 1.0) / 23
    torch.testing.assert_close(vectors, expected)


def test_one_modality_of_two(data: TrainData) -> None:
    built = model(data, modalities=["text"], ids=False)
    assert built.modalities == ("text",)
    assert (built.items(data.catalog).outputs == 10.0).all()


def test_content_of_the_training_catalogue_is_not_read_again(data: TrainData) -> None:
    built = model(data)
    held = read_content(built.features, data.catalog, data.catalog)
    assert held.features[0] is built.features[0].x
    assert held.present[[3, 4, 5]].tolist() == [[False, True], [True, False], [False, False]]
    again = read_content(built.features, data.catalog, data.catalog.extend(data.catalog.table[:0], {}))
    assert all(torch.equal(one, other) for one, other in zip(held.features, again.features, strict=True))


def test_bad_settings(data: TrainData) -> None:
    with pytest.raises(ConfigError, match="heads divide dim"):
        model(data, heads=3)
