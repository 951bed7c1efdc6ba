"""SMORE against a dense implementation, equation by equation."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from modalmix.data.drop import drop_modality
from modalmix.data.split import TrainData
from modalmix.errors import ConfigError
from modalmix.models.contract import Query, Triples
from modalmix.models.smore import SMORE, Preference, SMOREConfig
from tests.models.conftest import Shop

DIM, USERS, ITEMS, WARM = 6, 40, 30, 24


@pytest.fixture
def data(content_shop: Shop) -> TrainData:
    return content_shop(absent={"image": [2, 25], "text": [2, 7]})


def model(data: TrainData, **settings: Any) -> SMORE:
    torch.manual_seed(0)
    small = {"dim": DIM, "neighbors": 4, "layers": 2, "dropout": 0.0, "reg": 0.1, "contrast": 0.5}
    return SMORE(SMOREConfig.parse({**small, **settings}), data)


def cosine_graph(x: Tensor, present: Tensor, k: int) -> Tensor:
    """The k most similar items that have the modality, itself among them, weighted; D^-1/2 S D^-1/2, D its row sums."""
    unit = torch.nn.functional.normalize(x.double(), dim=1)
    cosines = (unit @ unit.T).masked_fill(~(present[:, None] & present[None, :]), -1.0)
    kept = torch.zeros_like(cosines)
    for i in range(len(x)):
        for j in cosines[i].argsort(descending=True)[:k]:
            kept[i, j] = cosines[i, j].clamp(min=0.0)
    root = kept.sum(dim=1).pow(-0.5)
    root[root.isinf()] = 0.0
    return root[:, None] * kept * root[None, :]


def filtered(x: Tensor, w: Tensor) -> Tensor:
    return torch.fft.ifft(x * w, norm="ortho").real


def two_sided(w: Tensor, dim: int) -> Tensor:
    """The filter at all `dim` frequencies from the learned half."""
    real = torch.arange(dim // 2 + 1) * 2 % dim == 0  # frequency 0 and the middle one have no imaginary part
    half = torch.complex(w[:, 0], w[:, 1].masked_fill(real, 0.0))
    return torch.cat([half, half[1 : (dim + 1) // 2].conj().flip(0)])


def plain(p: Mapping[str, Tensor], data: TrainData, item_layers: int = 1) -> tuple[Tensor, Tensor, Tensor]:
    """behaviour, side, and both together of the users, then the items. `p`: parameters by name."""
    names = list(data.catalog.modalities)
    features = [torch.from_numpy(data.catalog.modality(name).matrix()).double() for name in names]
    present = [torch.from_numpy(np.array(data.catalog.modality(name).present)) for name in names]
    ids = p["items.weight"] * torch.from_numpy(data.warm)[:, None]

    spectra, product = [], torch.ones(len(ids), DIM, dtype=torch.complex128)
    for m, x in enumerate(features):
        h = torch.nn.functional.normalize(x, dim=1) @ p[f"project.{m}.weight"].T + p[f"project.{m}.bias"]
        spectra.append(torch.fft.fft(h, norm="ortho"))
        product = torch.where(present[m][:, None], product * spectra[-1], product)
    graphs = [cosine_graph(x, has, 4) for x, has in zip(features, present, strict=True)]
    graphs.append(torch.stack(graphs).amax(dim=0))

    r = torch.from_numpy(data.interactions.csr.toarray()).double()
    users, items = r.sum(dim=1).pow(-0.5), r.sum(dim=0).pow(-0.5)
    items[items.isinf()] = 0.0
    r = users[:, None] * r * items[None, :]

    streams = []
    for s, (spectrum, graph) in enumerate(zip([*spectra, product], graphs, strict=True)):
        c = filtered(spectrum, two_sided(p["spectrum.filters"][s], DIM))
        z = ids * torch.sigmoid(c @ p[f"item_gates.{s}.weight"].T + p[f"item_gates.{s}.bias"])
        for _ in range(item_layers):
            z = graph @ z
        streams.append(torch.cat([r @ z, z]))

    a = torch.zeros(USERS + ITEMS, USERS + ITEMS, dtype=torch.float64)
    a[:USERS, USERS:], a[USERS:, :USERS] = r, r.T
    nodes = torch.cat([p["users.weight"], ids])
    b = (nodes + a @ nodes + a @ (a @ nodes)) / 3

    side = torch.zeros_like(b)
    for s, z in enumerate(streams):
        rows = slice(s * DIM, (s + 1) * DIM)
        gate = torch.sigmoid(b @ p["preference.gate.weight"][rows].T + p["preference.gate.bias"][rows])
        if s < len(names):
            hidden = streams[-1] @ p[f"preference.hidden.{s}.weight"].T + p[f"preference.hidden.{s}.bias"]
            z = z * torch.softmax(hidden.tanh() @ p[f"preference.query.{s}.weight"].T, dim=1)
        side = side + gate * z / len(streams)
    return b, side, b + side


def of(built: SMORE) -> dict[str, Tensor]:
    return {name: value.detach().double().requires_grad_() for name, value in built.named_parameters()}


@pytest.mark.parametrize("item_layers", [1, 2])
def test_scores_equal_the_equations(data: TrainData, item_layers: int) -> None:
    built = model(data, item_layers=item_layers)
    _, _, vectors = plain(of(built), data, item_layers)
    users, items = vectors.float().split([USERS, ITEMS])
    scores = built.scorer(data.catalog)(Query(users=torch.arange(USERS)))
    torch.testing.assert_close(scores, users @ items.T, atol=1e-5, rtol=1e-4)
    assert scores.abs().max() > 1e-3


def test_terms_and_gradients_equal_the_equations(data: TrainData) -> None:
    built = model(data)
    parameters = of(built)
    batch = Triples(torch.tensor([0, 1, 1, 7]), torch.tensor([3, 4, 5, 3]), torch.tensor([9, 3, 9, 0]))
    b, side, v = plain(parameters, data)
    u, i, j = v[batch.user], v[USERS + batch.positive], v[USERS + batch.negative]
    contrast = torch.zeros((), dtype=torch.float64)
    for rows in (batch.user, USERS + batch.positive):
        cosines = torch.cosine_similarity(side[rows][:, None], b[rows][None], dim=2)
        contrast = contrast + torch.nn.functional.cross_entropy(cosines / 0.2, torch.arange(4))
    expected = {
        "bpr": -torch.sigmoid((u * (i - j)).sum(dim=1)).log().mean(),
        "contrast": 0.5 * contrast,
        "reg": 0.1 * (u.square().sum() + i.square().sum() + j.square().sum()) / 4,
    }
    terms = built.loss(batch)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name].double(), value, atol=1e-6, rtol=1e-5, msg=name)
    torch.stack(list(terms.values())).sum().backward()
    torch.stack(list(expected.values())).sum().backward()
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad.double(), parameters[name].grad, atol=1e-5, rtol=1e-3, msg=name)


def test_preference_by_hand() -> None:
    """One modality, dim 2, P and Q zero: attention is 1/2 an entry; gates are sigmoid of 0 and of log 3."""
    preference = Preference(1, 2, dropout=0.0)
    with torch.no_grad():
        for parameter in preference.parameters():
            parameter.zero_()
        preference.gate.bias[2:] = float(np.log(3.0))
    streams = torch.tensor([[[4.0, 8.0], [1.0, -2.0]]])
    side = preference(streams, torch.zeros(1, 2))
    # ((1/2)(1/2)(4, 8) + (3/4)(1, -2)) / 2
    torch.testing.assert_close(side, torch.tensor([[0.875, 0.25]]))


def test_dropout_is_of_the_gates_and_in_training_only() -> None:
    torch.manual_seed(0)
    preference = Preference(1, 8, dropout=0.5)
    streams, behaviour = torch.rand(50, 2, 8) + 1.0, torch.randn(50, 8)
    dropped = preference(streams, behaviour)
    with torch.no_grad():
        preference.gate.weight.zero_()
        preference.gate.bias.fill_(-1e9)
    assert 0.15 < float((dropped == 0).float().mean()) < 0.35  # both streams of an entry dropped: a quarter
    assert torch.equal(preference.eval()(streams, behaviour), torch.zeros(50, 8))


def test_the_fusion_graph_is_the_largest_of_the_modality_graphs(data: TrainData) -> None:
    image, text, fused = (graph.toarray() for graph in model(data).stream_graphs(data.catalog))
    np.testing.assert_array_equal(fused, np.maximum(image, text))
    assert (fused > image).any()
    assert (fused > text).any()


@pytest.mark.parametrize("count", [1, 3, 6])
def test_any_number_of_modalities(content_shop: Shop, count: int) -> None:
    data = content_shop({f"m{k}": 3 + k for k in range(count)})
    built = model(data)
    assert len(built.item_graphs) == len(built.item_gates) == count + 1
    terms = built.loss(next(iter(built.batches(data, 64, np.random.default_rng(0)))))
    torch.stack(list(terms.values())).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in built.parameters())
    assert torch.isfinite(built.scorer(data.catalog)(Query(users=torch.arange(USERS)))).all()


def test_an_item_without_content_is_its_behaviour_alone(data: TrainData) -> None:
    built = model(data).eval()
    with torch.no_grad():
        _, items = built.vectors(data.catalog)
        behaviour = built.behaviour()[USERS:]
    torch.testing.assert_close(items[2], behaviour[2])
    assert not torch.allclose(items[7], behaviour[7])


def test_a_cold_item_is_what_its_neighbours_make_of_it(data: TrainData) -> None:
    built = model(data).eval()
    with torch.no_grad():
        before = built.vectors(data.catalog)[1][WARM:]
        built.items.weight[WARM:] += 5.0
        assert torch.equal(built.vectors(data.catalog)[1][WARM:], before)
        built.items.weight[:WARM] *= 2.0
        assert not torch.allclose(built.vectors(data.catalog)[1][WARM:], before)
    assert before.abs().sum(dim=1).gt(0).all()
    assert not built.behaviour()[USERS + WARM :].any()


def test_an_added_item_is_scored_by_its_own_graph_rows(data: TrainData) -> None:
    """A copy of a cold item scores about as that item: its neighbours are the same but for itself, who has no id."""
    built, cold = model(data), WARM + 2
    features = {name: modality.matrix(np.array([cold])) for name, modality in data.catalog.modalities.items()}
    bigger = data.catalog.extend(pl.DataFrame({"item": [100]}), features)
    scores = built.scorer(bigger)(Query(users=torch.arange(USERS)))
    known = built.scorer(data.catalog)(Query(users=torch.arange(USERS)))
    torch.testing.assert_close(scores[:, :ITEMS], known, atol=1e-6, rtol=1e-5)
    assert np.corrcoef(scores[:, ITEMS], known[:, cold])[0, 1] > 0.95


def test_content_lost_after_training_changes_what_is_scored(data: TrainData) -> None:
    built = model(data)
    without = drop_modality(data.catalog, "image", 1.0, np.random.default_rng(0))
    graphs = built.stream_graphs(without)
    assert graphs[0].nnz == 0
    np.testing.assert_array_equal(graphs[2].toarray(), graphs[1].toarray())
    scores = built.scorer(without)(Query(users=torch.arange(USERS)))
    assert torch.isfinite(scores).all()
    assert not torch.allclose(scores, built.scorer(data.catalog)(Query(users=torch.arange(USERS))))


def test_trained_features_get_gradients_and_frozen_ones_do_not(data: TrainData) -> None:
    batch = next(iter(model(data).batches(data, 64, np.random.default_rng(0))))
    trained, frozen = model(data, trainable_features=True), model(data)
    torch.testing.assert_close(trained.loss(batch)["bpr"], frozen.loss(batch)["bpr"])
    torch.stack(list(trained.loss(batch).values())).sum().backward()
    assert all(bool(modality.x.grad.any()) for modality in trained.features)
    assert not any("features" in name for name, _ in frozen.named_parameters())


def test_more_neighbours_than_items_is_an_error(data: TrainData) -> None:
    with pytest.raises(ConfigError, match="neighbors"):
        model(data, neighbors=ITEMS + 1)
    with pytest.raises(ConfigError, match="item_layers"):
        SMOREConfig.parse({"item_layers": 0})


def test_the_paper_preset_has_the_published_settings() -> None:
    paper = SMOREConfig.preset("paper")
    assert (paper.dim, paper.layers, paper.item_layers, paper.neighbors) == (64, 4, 1, 10)
    assert (paper.dropout, paper.contrast, paper.temperature) == (0.1, 0.01, 0.2)
    assert (paper.lr, 2 * paper.reg, paper.epochs, paper.patience) == (1e-3, 1e-4, 1000, 20)
    assert paper.lr_factor == 0.96
    assert paper.trainable_features
