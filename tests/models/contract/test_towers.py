"""What the two-tower models share, seen through DropoutNet."""

import numpy as np
import polars as pl
import pytest
import torch

from modalmix.data.split import TrainData
from modalmix.errors import ModelError
from modalmix.models.contract import TeacherConfig
from modalmix.models.contract.towers import scaled
from modalmix.models.dropoutnet import DropoutNet, DropoutNetConfig
from tests.models.conftest import Shop


def model(data: TrainData, **settings: object) -> DropoutNet:
    torch.manual_seed(0)
    built = DropoutNet(DropoutNetConfig(dim=6, hidden=9, teacher=TeacherConfig(dim=5), **settings), data)
    built.prepare(data)
    return built


def test_scaled_vectors_by_hand() -> None:
    """Columns 1, 3 and 2, 6 over the warm rows: means 2 and 4, deviations 1 and 2, over the root of two columns."""
    vectors = torch.tensor([[1.0, 2.0], [9.0, 9.0], [3.0, 6.0]])
    root = 2**-0.5
    expected = torch.tensor([[-root, -root], [0.0, 0.0], [root, root]])
    torch.testing.assert_close(scaled(vectors, torch.tensor([True, False, True])), expected)


def test_the_networks_read_vectors_of_average_length_one(content_shop: Shop) -> None:
    built = model(content_shop())
    assert built.item_inputs[24:].abs().max() == 0
    torch.testing.assert_close(built.item_inputs[:24].square().sum(dim=1).mean(), torch.tensor(1.0))
    torch.testing.assert_close(built.user_inputs.square().sum(dim=1).mean(), torch.tensor(1.0))


def test_a_step_of_blocks_takes_each_warm_item_once(content_shop: Shop) -> None:
    data = content_shop()
    built = model(data)
    blocks = list(built.blocks(data, 7, np.random.default_rng(0)))
    assert [len(block.warm) for block in blocks] == [6, 6, 6, 6]  # 24 in 4 steps of at most 7
    assert sorted(np.concatenate([block.warm for block in blocks])) == list(range(24))
    assert all(len(block.others) == 0 for block in blocks)
    assert built.n_batches(data, 7) == 4
    both = list(model(data, negatives="all").blocks(data, 7, np.random.default_rng(0)))
    assert sorted(np.concatenate([block.others for block in both])) == list(range(24, 30))


def test_users_without_a_train_event_get_zeros(content_shop: Shop) -> None:
    data = content_shop()
    events = data.interactions.take(data.interactions.user != 11)
    built = model(TrainData(data.users, data.catalog, events))
    users = built.eval().scorer(data.catalog).users
    assert users[11].abs().max() == 0
    assert users[12].abs().max() > 0


def test_a_new_item_equals_a_cold_one_with_the_same_content(content_shop: Shop) -> None:
    data = content_shop()
    features = {name: m.matrix(np.array([29])) for name, m in data.catalog.modalities.items()}
    items = model(data).scorer(data.catalog.extend(pl.DataFrame({"item": [1000]}), features)).items
    torch.testing.assert_close(items[30], items[29])


def test_only_cold_items_without_content_have_nothing_to_go_by(content_shop: Shop) -> None:
    data = content_shop(absent={"image": [3, 5, 28, 29], "text": [3, 29]})
    scorer = model(data).scorer(data.catalog)
    assert scorer.without_content is not None
    assert scorer.without_content.nonzero().flatten().tolist() == [29]
    torch.testing.assert_close(scorer.items[29], scorer.items[:24].mean(dim=0))


def test_no_train_event_is_an_error(content_shop: Shop) -> None:
    data = content_shop()
    nothing = data.interactions.take(np.zeros(len(data.interactions), dtype=bool))
    with pytest.raises(ModelError, match="no item with a train interaction"):
        model(TrainData(data.users, data.catalog, nothing))
