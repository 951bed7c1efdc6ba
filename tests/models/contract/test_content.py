"""What content models share, seen through the linear mean."""

import numpy as np
import pytest
import torch

from modalmix.data.catalog import Catalog
from modalmix.data.ids import IdMap
from modalmix.data.modality import Modality
from modalmix.data.split import TrainData
from modalmix.errors import ModelError
from modalmix.models.contentmean import ContentMean, ContentMeanConfig
from modalmix.models.contract import Query
from modalmix.models.contract import content as content_module
from modalmix.models.contract.content import fill_without_content
from tests.models.conftest import Shop

USERS = Query(users=torch.arange(40))


def model(data: TrainData, **settings: object) -> ContentMean:
    torch.manual_seed(0)
    return ContentMean(ContentMeanConfig.parse({"dim": 16, **settings}), data)


def test_a_modality_no_warm_item_has_is_an_error(content_shop: Shop) -> None:
    with pytest.raises(ModelError, match=r"no item with a train interaction has modality 'image'.*Leave it out"):
        model(content_shop(absent={"image": range(24)}))
    with pytest.raises(ModelError, match="image"):
        model(content_shop(absent={"image": range(30), "text": range(30)}))
    shop = content_shop()
    with pytest.raises(ModelError, match="no modality"):
        model(TrainData(shop.users, shop.catalog.select(()), shop.interactions))


def test_another_catalog_is_an_error(content_shop: Shop) -> None:
    data = content_shop()
    of = model(data)
    other = Catalog(IdMap(np.arange(100, 130)), data.catalog.modalities)
    with pytest.raises(ModelError, match="training items first"):
        of.scorer(other)
    wider = {name: Modality.from_matrix(name, np.ones((30, 99), np.float32)) for name in ("image", "text")}
    with pytest.raises(ModelError, match=r"features of 'image'.*dim 99.*dim 12"):
        of.scorer(Catalog(data.catalog.items, wider))


def test_statistics_travel_with_the_model_but_features_do_not(content_shop: Shop) -> None:
    data = content_shop()
    of, restored = model(data), model(data)
    torch.nn.init.normal_(of.users.weight)
    state = of.state_dict()
    assert not any(len(value) == data.n_items for value in state.values())
    assert state["features.0.mean"].shape == (12,)
    restored.load_state_dict(state)
    torch.testing.assert_close(restored.scorer(data.catalog)(USERS), of.scorer(data.catalog)(USERS))


def test_statistics_come_from_warm_items_that_have_the_modality(content_shop: Shop) -> None:
    data = content_shop(absent={"image": [0, 5]})
    learnt_on = np.setdiff1d(np.arange(24), [0, 5])
    x = np.asarray(data.catalog.modality("image").features)[learnt_on]
    state = model(data).state_dict()
    np.testing.assert_allclose(state["features.0.mean"], x.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(state["features.0.scale"], x.std(axis=0), rtol=1e-4)


def test_weight_decay_reaches_the_optimizer(content_shop: Shop) -> None:
    assert model(content_shop(), weight_decay=0.01).optimizer().param_groups[0]["weight_decay"] == 0.01


def test_absent_rows_stay_zero_and_others_have_length_one(content_shop: Shop) -> None:
    for standardize in (True, False):
        image, _ = model(content_shop(absent={"image": [4]}), standardize=standardize).train_content.features
        lengths = image.norm(dim=1)
        assert lengths[4] == 0.0
        torch.testing.assert_close(lengths[torch.arange(30) != 4], torch.ones(29))


def test_filling_by_hand() -> None:
    vectors = torch.tensor([[1.0, 2.0], [3.0, 4.0], [9.0, 9.0], [0.0, 0.0]])
    has_content, warm = torch.tensor([True, True, True, False]), torch.tensor([True, True, False, True])
    assert fill_without_content(vectors, has_content, warm)[3].tolist() == [2.0, 3.0]
    assert fill_without_content(vectors, has_content, ~torch.ones(4, dtype=torch.bool))[3].tolist() == [0.0, 0.0]


def test_a_big_catalogue_is_encoded_in_blocks(content_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    data = content_shop(absent={"image": [0, 3], "text": [3]})
    whole = model(data).scorer(data.catalog)
    monkeypatch.setattr(content_module, "_BLOCK", 7)
    in_blocks = model(data).scorer(data.catalog)
    torch.testing.assert_close(in_blocks.items, whole.items)
    assert torch.equal(in_blocks.without_content, whole.without_content)


def test_a_user_without_a_train_event_scores_nothing_rather_than_noise(content_shop: Shop) -> None:
    data = content_shop()
    train = data.interactions.take(data.interactions.user != 7)
    data = TrainData(data.users, data.catalog, train)
    scores = model(data).scorer(data.catalog)(USERS)
    assert scores[7].abs().sum() == 0.0
    assert bool((scores[:7].abs().sum(dim=1) > 0).all())


def test_a_batch_asks_for_each_item_once(content_shop: Shop) -> None:
    data = content_shop()
    of = model(data, loss="bpr")
    batch = next(iter(of.batches(data, 100, np.random.default_rng(0))))
    asked = of.asked(batch)
    assert asked.rows is not None
    assert len(asked.rows) == len(set(batch.positive.tolist()) | set(batch.negative.tolist()))
    assert torch.equal(asked.rows[asked.positive], batch.positive)
    assert torch.equal(asked.rows[asked.negative], batch.negative)
