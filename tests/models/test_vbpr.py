"""VBPR against its formula."""

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from modalmix.data.split import TrainData
from modalmix.models.contract import Query, Triples
from modalmix.models.vbpr import VBPR, VBPRConfig
from tests.models.conftest import Shop
from tests.models.training import refuses_bad_catalogues

BATCH = Triples(torch.tensor([0, 1, 1, 7]), torch.tensor([3, 4, 5, 3]), torch.tensor([9, 3, 9, 0]))
EVERYONE = Query(users=torch.arange(40))


@pytest.fixture
def data(content_shop: Shop) -> TrainData:
    """Item 3 has no image, item 4 no content; items 24 to 29 are cold."""
    return content_shop({"image": 12, "text": 8, "sound": 5}, absent={"image": [3, 4], "text": [4], "sound": [4, 5]})


def model(data: TrainData, **settings: Any) -> VBPR:
    torch.manual_seed(0)
    built = VBPR(VBPRConfig.parse({"dim": 6, "reg": 0.1, **settings}), data)
    for name, parameter in built.named_parameters():
        if "bias" in name:
            torch.nn.init.normal_(parameter)
    return built


def plain(built: VBPR, data: TrainData) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor]:
    """Leaves, and user vectors, item vectors and item biases of the formula over the concatenated raw features."""
    leaves = {name: value.detach().clone().requires_grad_() for name, value in built.named_parameters()}
    f = torch.cat([torch.from_numpy(data.catalog.modality(name).matrix()) for name in built.modalities], dim=1)
    count = range(len(built.modalities))
    e = torch.cat([leaves[f"projections.{k}.weight"] for k in count], dim=1)
    vectors = torch.cat([leaves["items"], f @ e.T], dim=1)
    if "bias" not in leaves:
        return leaves, leaves["users"], vectors, torch.zeros(len(f))
    beta = torch.cat([leaves[f"projections.{k}.bias"] for k in count], dim=1)[0]
    return leaves, leaves["users"], vectors, leaves["bias"] + f @ beta


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("modalities", [None, ("text",)])
def test_loss_and_gradient_equal_the_formula(data: TrainData, bias: bool, modalities: tuple[str, ...] | None) -> None:
    features = {name: m.matrix() for name, m in data.catalog.modalities.items()}
    fast = model(data, bias=bias, modalities=modalities, standardize=False)
    for projection in fast.projections:  # unit rows are the model's; the formula below takes raw ones
        projection.features.x = torch.from_numpy(features[projection.features.name])
    leaves, users, vectors, b = plain(fast, data)
    u, i, j = BATCH
    margin = (users[u] * (vectors[i] - vectors[j])).sum(dim=1) + b[i] - b[j]
    bpr = -torch.sigmoid(margin).log().mean()
    reg = 0.1 * (users[u].pow(2).sum() + vectors[i].pow(2).sum() + vectors[j].pow(2).sum()) / 4
    if bias:
        reg = reg + 0.1 * (leaves["bias"][i].pow(2).sum() + leaves["bias"][j].pow(2).sum()) / 4
    terms = fast.loss(BATCH)
    torch.testing.assert_close(terms["bpr"], bpr, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(terms["reg"], reg, atol=1e-5, rtol=1e-5)
    (terms["bpr"] + terms["reg"]).backward()
    (bpr + reg).backward()
    for name, parameter in fast.named_parameters():
        torch.testing.assert_close(parameter.grad, leaves[name].grad, atol=1e-5, rtol=1e-5, msg=name)


def test_the_buffer_of_gathered_features_serves_batches_of_any_size(data: TrainData) -> None:
    built = model(data)
    first = built.loss(BATCH)["bpr"].item()
    built.loss(Triples(*(torch.arange(20) for _ in range(3))))
    built.loss(Triples(*(rows[:1] for rows in BATCH)))
    assert built.loss(BATCH)["bpr"].item() == first


def test_a_cold_item_is_scored_by_content_alone(data: TrainData) -> None:
    built = model(data)
    before = built.scorer(data.catalog)(EVERYONE)
    with torch.no_grad():
        built.items += 100.0
        assert built.bias is not None
        built.bias += 100.0
    after = built.scorer(data.catalog)(EVERYONE)
    assert torch.equal(before[:, 24:], after[:, 24:])
    assert before[:, 24:].std() > 0
    assert not torch.equal(before[:, :24], after[:, :24])


def test_a_missing_modality_adds_nothing(data: TrainData) -> None:
    built = model(data)
    before = built.scorer(data.catalog)(EVERYONE)
    with torch.no_grad():
        built.projections[built.modalities.index("image")].weight += 1.0  # type: ignore[union-attr]
    after = built.scorer(data.catalog)(EVERYONE)
    assert torch.equal(before[:, [3, 4]], after[:, [3, 4]])
    assert not torch.equal(before[:, 5], after[:, 5])


def test_a_new_item_equals_a_cold_one_with_the_same_content(data: TrainData) -> None:
    features = {name: m.matrix(np.array([29])) for name, m in data.catalog.modalities.items()}
    bigger = data.catalog.extend(pl.DataFrame({"item": [1000]}), features)
    scores = model(data).scorer(bigger)(EVERYONE)
    torch.testing.assert_close(scores[:, 30], scores[:, 29])


def test_half_precision_is_close(data: TrainData) -> None:
    full, half = model(data), model(data, precision="bfloat16")
    torch.testing.assert_close(half.loss(BATCH)["bpr"], full.loss(BATCH)["bpr"], atol=0.02, rtol=0.02)
    torch.testing.assert_close(
        half.scorer(data.catalog)(EVERYONE), full.scorer(data.catalog)(EVERYONE), atol=0.05, rtol=0.05
    )
    assert half.loss(BATCH)["bpr"].dtype == torch.float32


def test_features_are_not_saved_and_not_trained(data: TrainData) -> None:
    built = model(data)
    assert all(30 not in value.shape for name, value in built.state_dict().items() if name not in ("items", "bias"))
    assert {name.split(".")[-1] for name, _ in built.named_parameters()} == {"users", "items", "bias", "weight"}


def test_bad_catalogues(content_shop: Shop) -> None:
    refuses_bad_catalogues(model, content_shop)
