"""The linear mean by hand."""

import pytest
import torch

from modalmix.models.contentmean import ContentMean, ContentMeanConfig
from tests.models.conftest import Correlation, Shop
from tests.models.training import cold_items_follow_content, train


def test_vectors_are_the_mean_of_the_present_maps(content_shop: Shop) -> None:
    data = content_shop(absent={"image": [0, 2], "text": [1, 2]})
    model = ContentMean(ContentMeanConfig(dim=4), data)
    (image, text), _ = model.train_content
    vectors, has_content = model.item_vectors(model.train_content, None)
    torch.testing.assert_close(vectors[0], model.maps[1](text[0]))
    torch.testing.assert_close(vectors[1], model.maps[0](image[1]))
    torch.testing.assert_close(vectors[3], (model.maps[0](image[3]) + model.maps[1](text[3])) / 2)
    assert has_content.tolist() == [row != 2 for row in range(30)]
    rows = torch.tensor([5, 0])
    torch.testing.assert_close(model.item_vectors(model.train_content, rows)[0], vectors[rows])


@pytest.mark.parametrize("loss", ["bpr", "softmax"])
def test_it_learns_and_cold_items_follow_content(
    content_shop: Shop, loss: str, content_correlation: Correlation
) -> None:
    torch.manual_seed(0)
    data = content_shop(users=80, items=60, cold=20)
    model = ContentMean(ContentMeanConfig(dim=8, loss=loss, lr=0.02), data)
    train(model, data, 60)
    cold_items_follow_content(model, data, content_correlation, 0.6)


def test_items_without_content_get_the_mean_warm_vector(content_shop: Shop) -> None:
    data = content_shop(absent={"image": [3, 29], "text": [3, 29]})
    model = ContentMean(ContentMeanConfig(dim=4), data)
    scorer = model.scorer(data.catalog)
    warm = [row for row in range(24) if row != 3]
    torch.testing.assert_close(scorer.items[3], scorer.items[warm].mean(dim=0))
    torch.testing.assert_close(scorer.items[29], scorer.items[3])
