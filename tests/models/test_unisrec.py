"""UniSRec: adaptor, states and scores against a plain restatement, what may depend on what, and the bad inputs."""

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from modalmix.data.split import TrainData
from modalmix.errors import ConfigError, ModelError
from modalmix.models.contract import Query
from modalmix.models.contract.sequential import Steps
from modalmix.models.unisrec import UniSRec, UniSRecConfig, WhiteningExperts
from tests.models.conftest import Shop
from tests.models.sequences import HISTORY, TARGETS, check_causality, check_padding, check_softmax_loss

ITEMS, COLD = 30, 6


@pytest.fixture
def data(content_shop: Shop) -> TrainData:
    """Two modalities; image 3, text 4, and both of 5 and of the cold 29 missing."""
    return content_shop(absent={"image": [3, 5, 29], "text": [4, 5, 29]})


def model(data: TrainData, **settings: Any) -> UniSRec:
    torch.manual_seed(0)
    small = {"dim": 8, "length": 6, "layers": 1, "hidden": 16, "dropout": 0.0, "adaptor_dropout": 0.0, "experts": 3}
    built = UniSRec(UniSRecConfig.parse({**small, **settings}), data).eval()
    with torch.no_grad():  # what starts at zero says nothing in a test
        for adaptor in built.projections:
            for one in (adaptor.shift, adaptor.gate, adaptor.weight):  # type: ignore[union-attr]
                one.normal_()  # type: ignore[operator]
    return built


def adapted(built: UniSRec, item: int) -> Tensor:
    """The sum of the adaptors of what an item has, one expert at a time."""
    vector = torch.zeros(built.config.dim)
    for features, adaptor in zip(built.features, built.projections, strict=True):
        assert isinstance(adaptor, WhiteningExperts)
        if not features.present[item]:  # type: ignore[index]
            continue
        x = features.x[item]  # type: ignore[index]
        gate = torch.stack([x @ w for w in adaptor.gate]).softmax(dim=0)
        for g, weight, shift in zip(gate, adaptor.weight, adaptor.shift, strict=True):
            vector = vector + g * (weight @ (x - shift))
    return vector


@torch.no_grad()
def test_vectors_equal_a_plain_restatement(data: TrainData) -> None:
    built = model(data)
    assert built.table is not None
    items = built.items(data.catalog)
    typical = built.table[: ITEMS - COLD].mean(dim=0)
    for k in range(ITEMS):
        v = adapted(built, k) + (built.table[k] if k < ITEMS - COLD else typical)
        torch.testing.assert_close(items.inputs[k], v, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(items.outputs[k], v / v.norm() / 0.07, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(items.inputs[5], built.table[5])  # nothing but its id
    torch.testing.assert_close(items.inputs[29], typical)  # nothing at all


@torch.no_grad()
def test_inductive_vectors_are_content_alone(data: TrainData) -> None:
    built = model(data, ids=False, similarity="inner")
    assert not [name for name, _ in built.named_parameters() if "table" in name]
    items = built.items(data.catalog)
    content = torch.stack([adapted(built, k) for k in range(ITEMS)])
    there = [k for k in range(ITEMS) if k not in (5, 29)]
    torch.testing.assert_close(items.outputs[there], content[there], atol=1e-5, rtol=1e-4)
    mean = content[[k for k in there if k < ITEMS - COLD]].mean(dim=0)
    torch.testing.assert_close(items.outputs[[5, 29]], torch.stack([mean, mean]), atol=1e-5, rtol=1e-4)
    assert items.inputs is items.outputs


@torch.no_grad()
@pytest.mark.parametrize("similarity", ["cosine", "inner"])
def test_scores_equal_a_plain_restatement(data: TrainData, similarity: str) -> None:
    built = model(data, similarity=similarity)
    scores = built.scorer(data.catalog)(Query(history=HISTORY))
    v, layer = built.items(data.catalog).inputs, built.encoder.transformer.layers[0]
    for user, history in enumerate(HISTORY):
        rows = history[history >= 0]
        n = len(rows)
        x = F.layer_norm(v[rows] + built.encoder.positions[:n], (8,))
        q, k, value = layer.attention.query_key_value(x).view(n, 3, 2, 4).permute(1, 2, 0, 3)  # type: ignore[union-attr, operator]
        later = torch.ones(n, n).triu(1).bool()
        attended = (q @ k.transpose(1, 2) / 2.0).masked_fill(later, -torch.inf).softmax(dim=2) @ value
        x = layer.norms[0](x + layer.attention.output(attended.transpose(0, 1).flatten(1)))  # type: ignore[union-attr, index, operator]
        state = layer.norms[1](x + layer.network(x))[-1]  # type: ignore[union-attr, index, operator]
        expected = v @ state if similarity == "inner" else F.cosine_similarity(v, state.unsqueeze(0)) / 0.07
        torch.testing.assert_close(scores[user], expected, atol=1e-4, rtol=1e-4)


def test_the_loss_is_the_softmax_over_warm_items_at_every_position(data: TrainData) -> None:
    built = model(data)
    check_softmax_loss(built, built.items(data.catalog).outputs[: ITEMS - COLD])


def test_a_later_item_changes_no_earlier_state_and_padding_nothing(data: TrainData) -> None:
    built = model(data)
    check_causality(built, HISTORY)
    check_padding(built, HISTORY)


def test_gates_sum_to_one_start_even_and_are_noisy_in_training_only() -> None:
    torch.manual_seed(0)
    adaptor, x = WhiteningExperts(5, 4, 3, 0.0, noise=True), torch.randn(2000, 5)
    torch.testing.assert_close(adaptor.eval().gates(x), torch.full((2000, 3), 1 / 3))
    noisy = adaptor.train().gates(x)
    torch.testing.assert_close(noisy.sum(dim=1), torch.ones(2000))
    # logits are n * (softplus(0) + .01): differences of two have standard deviation sqrt(2) * .703
    spread = (noisy[:, 0].log() - noisy[:, 1].log()).std()
    assert abs(spread / (2**0.5 * (np.log(2.0) + 0.01)) - 1) < 0.06
    plain = WhiteningExperts(5, 4, 3, 0.0, noise=False).train()
    assert torch.equal(plain.gates(x), plain.gates(x))
    assert len(list(plain.parameters())) == 3


def test_whitening_takes_the_shift_from_the_features() -> None:
    adaptor = WhiteningExperts(5, 4, 1, 0.0, noise=False)
    x = torch.randn(7, 5)
    with torch.no_grad():
        adaptor.shift.copy_(x.mean(dim=0, keepdim=True))
        torch.testing.assert_close(adaptor(x).mean(dim=0), torch.zeros(4), atol=1e-6, rtol=0)
        torch.testing.assert_close(adaptor(x), (x - x.mean(dim=0)) @ adaptor.weight[0].T)


def test_dropout_hides_features_from_the_experts_but_not_from_the_gate() -> None:
    adaptor, x = WhiteningExperts(5, 4, 3, 0.5, noise=False).train(), torch.randn(7, 5)
    assert torch.equal(adaptor.gates(x), adaptor.gates(x))
    assert not torch.equal(adaptor(x), adaptor(x))
    assert torch.equal(adaptor.eval()(x), adaptor(x))


@pytest.mark.parametrize("dims", [{"text": 5}, {"image": 5, "text": 4, "sound": 3}])
@pytest.mark.parametrize("ids", [True, False])
def test_one_and_three_modalities_train(content_shop: Shop, dims: dict[str, int], ids: bool) -> None:
    built = model(content_shop(dims), ids=ids).train()
    assert built.modalities == tuple(dims)
    torch.stack(list(built.loss(Steps(HISTORY, TARGETS)).values())).sum().backward()
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_cold_and_added_items_are_told_apart_by_content(data: TrainData) -> None:
    built = model(data)
    text = np.ones((2, 8), dtype=np.float32)
    text[1] = np.nan
    bigger = data.catalog.extend(pl.DataFrame({"item": [100, 101]}), {"text": text})
    with torch.no_grad():
        items = built.items(bigger)
    assert len(items.inputs.unique(dim=0)) == ITEMS + 1  # the cold 29 and the added 101 both have nothing
    torch.testing.assert_close(items.inputs[31], items.inputs[29])
    scores = built.scorer(bigger)(Query(history=torch.tensor([[0, 30, 31]])))
    assert torch.isfinite(scores).all()
    assert scores[0, 24:29].unique().numel() == 5


def test_ablations_are_switches(data: TrainData) -> None:
    for name, changes in UniSRecConfig.ablations.items():
        built = model(data, **changes)
        adaptor = built.projections[0]
        assert isinstance(adaptor, WhiteningExperts)
        assert (len(adaptor.weight) == 1) == (name == "one-expert")
        assert (adaptor.noise is None) == (name == "no-noise")
        assert (built.table is None) == (name == "inductive")


def test_bad_settings(data: TrainData) -> None:
    for bad in ({"experts": 0}, {"temperature": 0.0}, {"adaptor_dropout": 1.0}, {"similarity": "dot"}, {"heads": 3}):
        with pytest.raises(ConfigError):
            model(data, **bad)
    with pytest.raises(ModelError, match="Did you mean 'image'"):
        model(data, modalities=["imgae"])


def test_a_modality_that_no_warm_item_has(content_shop: Shop) -> None:
    with pytest.raises(ModelError, match="no item with a train interaction has modality 'text'"):
        model(content_shop(absent={"text": list(range(ITEMS - COLD))}))
