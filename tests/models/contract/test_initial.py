"""What id tables start from."""

from collections.abc import Callable

import pytest
import torch

from modalmix.data.split import TrainData
from modalmix.errors import ModelError
from modalmix.models.contract.initial import initial_items

Shop = Callable[..., TrainData]


def start(data: TrainData, kind: str, dim: int = 4, **given: object) -> torch.Tensor:
    torch.manual_seed(0)
    return initial_items(data, dim, 0.1, kind, **given)  # type: ignore[arg-type]


def test_content_has_the_variance_of_random_columns_on_warm_items(content_shop: Shop) -> None:
    data = content_shop({"image": 12, "text": 8})
    table = start(data, "content")[torch.from_numpy(data.warm)]
    torch.testing.assert_close(table.mean(dim=0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(table.T @ table / len(table), 0.01 * torch.eye(4), atol=1e-5, rtol=0)


def test_it_follows_content(content_shop: Shop) -> None:
    """Content has two directions: nearest neighbours by it are nearest neighbours in the table."""
    data = content_shop({"image": 12})
    x = torch.from_numpy(data.catalog.modality("image").matrix())
    near = torch.cdist(x, x).fill_diagonal_(torch.inf).argmin(dim=1)
    found = start(data, "content", dim=2)
    distance = torch.cdist(found, found)
    rank = (distance < distance.gather(1, near.unsqueeze(1))).sum(dim=1) - 1  # itself is nearest
    assert rank.float().mean() < 3


def test_columns_beyond_the_content_and_rows_without_any_stay_random(content_shop: Shop) -> None:
    data = content_shop({"image": 3}, absent={"image": [2, 5]})
    random, found = start(data, "normal", dim=6), start(data, "content", dim=6)
    assert torch.equal(found[:, 3:], random[:, 3:])
    assert torch.equal(found[[2, 5]], random[[2, 5]])
    others = [row for row in range(30) if row not in (2, 5)]
    assert not (found[others, :3] == random[others, :3]).any()


def test_modalities_by_name(content_shop: Shop) -> None:
    data = content_shop({"image": 12, "text": 8})
    text = start(data, "content", modalities=("text",))
    assert torch.equal(text, start(content_shop({"image": 12, "text": 8}), "content", modalities=("text",)))
    assert not torch.equal(text, start(data, "content", modalities=("image",)))
    with pytest.raises(ModelError, match="no modality 'sound'"):
        start(data, "content", modalities=("sound",))


def test_without_content_there_is_nothing_to_start_from(content_shop: Shop) -> None:
    from dataclasses import replace

    data = content_shop()
    bare = replace(data, catalog=replace(data.catalog, modalities={}))
    assert start(bare, "normal").shape == (30, 4)
    with pytest.raises(ModelError, match="no modality"):
        start(bare, "content")
