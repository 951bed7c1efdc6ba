"""CAMMSR: each part against a plain restatement, what may and may not depend on what, and the bad inputs."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from modalmix.data.split import TrainData
from modalmix.errors import ConfigError, ModelError
from modalmix.models.cammsr import Cammsr, CammsrConfig
from modalmix.models.contract import Query
from modalmix.models.contract.sequential import Steps
from tests.models.conftest import Shop
from tests.models.sequences import HISTORY, NAMES, TARGETS, check_causality, check_padding, several, with_categories

ITEMS = 30


@pytest.fixture
def data(content_shop: Shop) -> TrainData:
    """Two modalities, image 3 and text 4 and 5 missing; several categories an item, none for every fifth."""
    shop = content_shop(absent={"image": [3], "text": [4, 5]})
    return with_categories(shop, [several(k) for k in range(ITEMS)])


def model(data: TrainData, **settings: Any) -> Cammsr:
    torch.manual_seed(0)
    small = {"dim": 8, "length": 6, "layers": 1, "hidden": 16, "dropout": 0.0, "init_std": 0.5}
    return Cammsr(CammsrConfig.parse({**small, **settings}), data).eval()


def steps() -> Steps:
    return Steps(HISTORY, TARGETS)


def agreement(logits: Tensor, labels: list[str], names: Sequence[str]) -> Tensor:
    """Mean log probability of a head's right answers: half of it over an item's own categories."""
    p = torch.sigmoid(logits)
    own = [names.index(name) for name in labels]
    others = [c for c in range(len(names)) if c not in own]
    return (p[own].log().mean() + (1 - p[others]).log().mean()) / 2


def weights_of(built: Cammsr, history: Tensor) -> Tensor:
    """w of every modality and position, from the history alone."""
    items = built.items(built.train_catalog)
    rows = history[history >= 0]
    place = (history >= 0).nonzero()[:, 1]
    e = torch.stack(items.inputs[rows].split(built.config.dim, dim=1)) + built.positions[place]
    present = items.beside.present[rows]
    weights = torch.zeros(len(built.streams), len(rows))
    for k, row in enumerate(rows.tolist()):
        labels = several(row)
        quality = []
        for head, one in zip(built.heads, e[:, k], strict=True):
            if labels is None:
                p = torch.sigmoid(head(one))
                quality.append((p * p.log() + (1 - p) * (1 - p).log()).mean())
            else:
                quality.append(agreement(head(one), labels, built.categories.names))
        there = present[k].nonzero().squeeze(1)
        logits = torch.stack([quality[m] for m in there]) / built.config.category_temperature
        weights[there, k] = (logits.softmax(dim=0) * len(there)).detach()
    return weights


def category_loss(built: Cammsr) -> Tensor:
    """L_cat of the histories: in each modality, the mean over labelled items that have it."""
    items, means = built.items(built.train_catalog), []
    for m, head in enumerate(built.heads):
        errors = []
        for history in HISTORY:
            for place, row in enumerate(history[history >= 0].tolist()):
                labels = several(row)
                if labels is not None and items.beside.present[row, m]:
                    e = items.inputs[row].split(8)[m] + built.positions[place]
                    errors.append(-agreement(head(e), labels, built.categories.names))
        means.append(torch.stack(errors).mean())
    return torch.stack(means).mean()


def info_nce(one: Tensor, other: Tensor, target: list[int], temperature: float) -> Tensor:
    """Symmetric contrast of cosines; users with the same target are no negatives of each other."""
    losses = []
    for asking, found in ((one, other), (other, one)):
        for k in range(len(target)):
            cosine = F.cosine_similarity(asking[k : k + 1], found) / temperature
            others = [n for n in range(len(target)) if n == k or target[n] != target[k]]
            losses.append(torch.logsumexp(cosine[others], dim=0) - cosine[k])
    return torch.stack(losses).mean()


def last_states(built: Cammsr) -> tuple[Tensor, ...]:
    """z of each modality after each history."""
    states = built.states(HISTORY, built.items(built.train_catalog))
    return states[torch.arange(3), (HISTORY >= 0).sum(dim=1) - 1].split(8, dim=1)


@torch.no_grad()
def check_scores(built: Cammsr) -> None:
    """A score is the sum over modalities of <z at the last item, e without position>, and the prior."""
    scores = built.scorer(built.train_catalog)(Query(history=HISTORY))
    assert built.counted.trust.any()
    scores = scores - built.counted.of(HISTORY)
    outputs = built.items(built.train_catalog).outputs.split(8, dim=1)
    expected = torch.stack([z @ e.T for z, e in zip(last_states(built), outputs, strict=True)]).sum(dim=0)
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)


def test_states_equal_a_plain_restatement(data: TrainData) -> None:
    built = model(data, category_temperature=2.0)
    items = built.items(data.catalog)
    with torch.no_grad():
        states, weights = built.states(HISTORY, items), weights_of(built, HISTORY)
        read, first = built.read(HISTORY, items), 0
        for user, history in enumerate(HISTORY):
            n = int((history >= 0).sum())
            rows = history[:n]
            e = torch.stack(items.inputs[rows].split(8, dim=1)) + built.positions[:n]
            assert built.mixture is not None
            mixed = built.mixture(e, items.beside.present[rows])
            stream = e + weights[:, first : first + n].unsqueeze(2) * mixed
            torch.testing.assert_close(read.streams[:, first : first + n], stream, atol=1e-5, rtol=1e-5)
            for m, norm in enumerate(built.norms):
                x = norm.gamma * torch.tanh(norm.alpha * stream[m]) + norm.beta  # type: ignore[union-attr, operator]
                layer = built.encoders[m].layers[0]  # type: ignore[union-attr, index]
                q, k, v = layer.attention.query_key_value(x).view(n, 3, 2, 4).permute(1, 2, 0, 3)
                later = torch.ones(n, n).triu(1).bool()
                scores = (q @ k.transpose(1, 2) / 2.0).masked_fill(later, -torch.inf).softmax(dim=2)
                x = layer.norms[0](x + layer.attention.output((scores @ v).transpose(0, 1).flatten(1)))
                x = layer.norms[1](x + layer.network(x))
                torch.testing.assert_close(states[user, :n, 8 * m : 8 * m + 8], x, atol=1e-4, rtol=1e-4)
            first += n


def test_scores_are_sums_of_inner_products_without_position(data: TrainData) -> None:
    built = model(data)
    check_scores(built)
    outputs = built.items(data.catalog).outputs
    with torch.no_grad():
        built.positions += 1.0
    assert torch.equal(built.items(data.catalog).outputs, outputs)


@pytest.mark.parametrize("dims", [{"text": 5}, {"image": 5, "text": 4, "sound": 3}])
def test_one_modality_and_three(content_shop: Shop, dims: dict[str, int]) -> None:
    built = model(with_categories(content_shop(dims), [several(k) for k in range(ITEMS)]))
    assert len(built.streams) == 1 + len(dims)
    check_scores(built)
    torch.stack(list(built.train().loss(steps()).values())).sum().backward()
    idle = [name for name, one in built.named_parameters() if one.grad is None or not one.grad.any()]
    assert not idle


def test_one_position_table_moves_every_modality(data: TrainData) -> None:
    built = model(data)
    read = built.read(HISTORY, built.items(data.catalog))
    for m in range(3):
        (gradient,) = torch.autograd.grad(read.streams[m].sum(), built.positions, retain_graph=True)
        assert gradient[:4].abs().sum(dim=1).all()


def test_weights_average_one_and_ignore_the_ranking_loss(data: TrainData) -> None:
    built = model(data)
    items = built.items(data.catalog)
    rows = HISTORY[HISTORY >= 0]
    present = items.beside.present[rows]
    assert not present.all()
    read = built.look_up(rows, torch.zeros_like(rows), items)
    weights, _ = built.weigh(*read)
    torch.testing.assert_close(weights.sum(dim=0), present.sum(dim=1).float())
    terms = built.loss(steps())
    heads = list(built.heads.parameters())
    assert all(
        one is None for one in torch.autograd.grad(terms["softmax"], heads, allow_unused=True, retain_graph=True)
    )
    assert all(one.abs().sum() > 0 for one in torch.autograd.grad(terms["category"], heads))


@pytest.mark.parametrize("weigh_ids", [True, False])
@pytest.mark.parametrize("weighting", ["agreement", "confidence", "learned", "none"])
def test_routing_is_what_histories_of_one_item_are_read_with(data: TrainData, weighting: str, weigh_ids: bool) -> None:
    built = model(data, category_weighting=weighting, weigh_ids=weigh_ids)
    asked, items = torch.tensor([7, 3, 5, 0, 9]), built.items(data.catalog)
    present = items.beside.present[asked]
    assert built.mixture is not None
    routed = built.routing(Query(users=torch.arange(2)), asked)
    assert set(routed) == {"modality", "experts/id", "experts/image", "experts/text"}
    assert not any(one.requires_grad for one in routed.values())
    weights = routed["modality"]
    torch.testing.assert_close(weights.sum(dim=1), present.sum(dim=1).float())
    assert torch.equal(weights > 0, present)
    assert (weighting == "none") == bool((weights == present.float()).all())
    if weighting == "agreement" and weigh_ids:
        torch.testing.assert_close(weights.T, weights_of(built, asked.unsqueeze(1)), atol=1e-5, rtol=1e-5)
    gates = torch.stack([routed[f"experts/{name}"] for name in built.streams])
    assert gates.shape == (3, 5, built.config.experts)
    torch.testing.assert_close(gates.sum(dim=2), present.T.float())
    e = torch.stack(items.inputs[asked].split(8, dim=1)) + built.positions[0]
    said = built.mixture.experts((e * present.T.unsqueeze(2)).transpose(0, 1).flatten(1))
    mixed = (gates.permute(2, 0, 1).unsqueeze(3) * said).sum(dim=0)
    streams = built.read(asked.unsqueeze(1), items).streams
    torch.testing.assert_close(streams, e + weights.T.unsqueeze(2) * mixed, atol=1e-5, rtol=1e-5)


def test_routing_without_experts_has_weights_alone(data: TrainData) -> None:
    built = model(data, experts=0)
    assert set(built.routing(Query(users=torch.arange(1)), torch.arange(4))) == {"modality"}


def test_a_later_item_changes_no_earlier_state_and_padding_nothing(data: TrainData) -> None:
    built = model(data)
    check_causality(built, HISTORY)
    check_padding(built, HISTORY)


def test_without_swapped_positions_the_contrast_is_of_the_sequences_themselves(data: TrainData) -> None:
    built = model(data, swap_rate=0.0, swap=1.0)
    _, image, text = last_states(built)
    torch.testing.assert_close(built.loss(steps())["swap"], info_nce(image, text, [7, 1, 6], built.config.temperature))


def test_histories_with_the_same_last_target_are_no_negatives(data: TrainData) -> None:
    built = model(data, swap_rate=0.0, swap=1.0)
    targets = TARGETS.clone()
    targets[1, 1] = 7
    _, image, text = last_states(built)
    expected = info_nce(image, text, [7, 7, 6], built.config.temperature)
    torch.testing.assert_close(built.loss(Steps(HISTORY, targets))["swap"], expected)


@pytest.mark.parametrize(("swap_pairs", "pairs"), [("content", [(1, 2)]), ("all", [(0, 1), (0, 2), (1, 2)])])
def test_streams_swap_where_both_have_content(data: TrainData, swap_pairs: str, pairs: list[tuple[int, int]]) -> None:
    built = model(data, swap_rate=1.0, swap=0.7, temperature=0.5, swap_pairs=swap_pairs)
    items, losses = built.items(data.catalog), []
    read, rows = built.read(HISTORY, items), HISTORY[HISTORY >= 0].tolist()
    for one, other in pairs:
        swapped = read.streams.clone()
        for k, row in enumerate(rows):
            if items.beside.present[row, [one, other]].all():
                swapped[[one, other], k] = read.streams[[other, one], k]
        first, second = (built.encode_last(m, swapped[m], read.packing) for m in (one, other))
        losses.append(info_nce(first, second, [7, 1, 6], temperature=0.5))
    torch.testing.assert_close(built.loss(steps())["swap"], 0.7 * torch.stack(losses).mean())


def test_the_share_of_positions_that_swap(data: TrainData, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def draw(real: Tensor, rho: float) -> Tensor:
        asked.append(rho)
        return real

    monkeypatch.setattr("modalmix.models.cammsr.draw_positions", draw)
    found = model(data, swap_rate=0.3).loss(steps())["swap"]
    assert asked == [0.3]
    torch.testing.assert_close(found, model(data, swap_rate=1.0).loss(steps())["swap"])


@pytest.mark.parametrize(
    ("dims", "swap_pairs", "pairs"),
    [
        ({"text": 5}, "content", [(0, 1)]),
        ({"image": 5, "text": 4}, "content", [(1, 2)]),
        ({"image": 5, "text": 4}, "all", [(0, 1), (0, 2), (1, 2)]),
        ({"image": 5, "text": 4, "sound": 3}, "content", [(1, 2), (1, 3), (2, 3)]),
        ({"image": 5, "text": 4}, (("id", "text"),), [(0, 2)]),
    ],
)
def test_pairs_that_swap(content_shop: Shop, dims: dict[str, int], swap_pairs: Any, pairs: list[Any]) -> None:
    data = with_categories(content_shop(dims), [several(k) for k in range(ITEMS)])
    built = model(data, swap_pairs=swap_pairs)
    assert built.pairs == pairs
    assert torch.isfinite(torch.stack(list(built.loss(steps()).values()))).all()


def test_heads_learn_of_labelled_items_in_the_modalities_these_have(data: TrainData) -> None:
    built = model(data, category=0.3)
    found, expected = built.loss(steps())["category"], 0.3 * category_loss(built)
    torch.testing.assert_close(found, expected)
    read = [built.table, built.positions, *built.project.parameters()]
    for ours, theirs in zip(torch.autograd.grad(found, read), torch.autograd.grad(expected, read), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("weighting", ["agreement", "confidence", "learned", "none"])
@pytest.mark.parametrize("weigh_ids", [True, False])
def test_every_weighting_trains(data: TrainData, weighting: str, weigh_ids: bool) -> None:
    built = model(data, category_weighting=weighting, weigh_ids=weigh_ids).train()
    terms = built.loss(steps())
    assert ("category" in terms) == (weighting in ("agreement", "confidence"))
    torch.stack(list(terms.values())).sum().backward()
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_without_weighing_ids_content_averages_one(data: TrainData) -> None:
    built = model(data, weigh_ids=False)
    quality, present = torch.randn(3, 4), torch.ones(4, 3, dtype=torch.bool)
    present[1, 2] = False
    weights = built.shared(quality, present)
    assert (weights[0] == 1).all()
    torch.testing.assert_close(weights[1:].sum(dim=0), torch.tensor([2.0, 1.0, 2.0, 2.0]))


def test_one_category_an_item_is_learnt_by_cross_entropy(content_shop: Shop) -> None:
    data = with_categories(content_shop(), [NAMES[k % 3] for k in range(ITEMS)])
    built = model(data)
    assert built.categories.single
    items, rows = built.items(data.catalog), HISTORY[HISTORY >= 0]
    e = torch.stack(items.inputs[rows].split(8, dim=1)) + built.positions[(HISTORY >= 0).nonzero()[:, 1]]
    label = torch.tensor([built.categories.names.index(NAMES[row % 3]) for row in rows.tolist()])
    expected = torch.stack([F.cross_entropy(head(one), label) for head, one in zip(built.heads, e, strict=True)]).mean()
    torch.testing.assert_close(built.loss(steps())["category"], expected)


@pytest.mark.parametrize("weighting", ["confidence", "agreement"])
def test_how_sure_a_head_of_one_category_an_item_is(content_shop: Shop, weighting: str) -> None:
    """sum_c p_c ln p_c, p = softmax; for agreement only where an item has no category."""
    data = with_categories(content_shop(), [None if k == 4 else NAMES[k % 3] for k in range(ITEMS)])
    built = model(data, category_weighting=weighting)
    assert built.categories.single
    for head in built.heads:
        torch.nn.init.normal_(head.weight, std=1.0)
    found = built.routing(Query(users=torch.tensor([0])), torch.tensor([4]))["modality"][0]
    e = built.items(data.catalog).inputs[4].view(3, 8) + built.positions[0]
    p = torch.stack([head(one).softmax(dim=0) for head, one in zip(built.heads, e, strict=True)])
    torch.testing.assert_close(found, (3 * (p * p.log()).sum(dim=1).softmax(dim=0)).detach())


@pytest.mark.parametrize("weighting", ["agreement", "confidence"])
def test_without_categories_all_weigh_the_same_and_it_says_so(content_shop: Shop, weighting: str) -> None:
    with pytest.warns(UserWarning, match="no column 'categories'"):
        built = model(content_shop(), category_weighting=weighting)
    assert built.weighting == "none"
    assert "category" not in built.loss(steps())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model(content_shop(), category_weighting="none")


def test_experts_are_made_as_asked(data: TrainData) -> None:
    mixture = model(data, experts=3, expert_hidden=5, gate="linear", dropout=0.25).mixture
    assert mixture is not None
    assert mixture.gate == "linear"
    assert mixture.out_weight.shape == (3, 5, 24)
    assert [one.p for one in mixture.modules() if isinstance(one, torch.nn.Dropout)] == [0.25]


def test_the_published_settings() -> None:
    published = {
        "dim": 64,
        "dropout": 0.5,
        "attention_dropout": 0.5,
        "init_std": 0.02,
        "id_init": "normal",
        "whiten": 0,
        "category": 1.0,
        "swap": 0.1,
        "swap_rate": 0.5,
        "temperature": 0.2,
        "training": "prefixes",
        "lr": 1e-3,
        "lr_decay": "none",
        "weight_decay": 0.0,
        "batch_size": 1024,
        "epochs": 100,
        "patience": 10,
    }
    assert CammsrConfig.preset("paper").prior == CammsrConfig.preset("no-prior").prior == "none"
    paper = CammsrConfig.preset("paper").model_dump()
    assert {name: paper[name] for name in published} == published


def test_published_maps_start_alike(data: TrainData) -> None:
    torch.manual_seed(0)
    built = model(data, dim=64, map_std=0.02, expert_hidden=32)
    own = ("table", "positions", "mixture.out_bias")  # which start otherwise
    started = {name: one.detach() for name, one in built.named_parameters() if one.ndim > 1 and name not in own}
    assert {"mixture.query", "mixture.keys", "mixture.out_weight", "project.0.weight", "heads.0.weight"} <= set(started)
    for name, one in started.items():
        assert float(one.std()) == pytest.approx(0.02, rel=0.25), name


def test_ablations_are_switches(data: TrainData) -> None:
    for name, changes in CammsrConfig.ablations.items():
        built = model(data, **changes)
        terms = built.loss(steps())
        assert ("swap" in terms) == (name != "no-swap")
        assert (built.mixture is None) == (name == "no-experts")
        assert (built.weighting == "none") == (name == "no-category-guidance")
        assert isinstance(built.norms[0], torch.nn.LayerNorm) == (name == "layer-norm")
    dyt = model(data, dyt_scope="all")
    assert not [one for one in dyt.modules() if isinstance(one, torch.nn.LayerNorm)]


def test_added_items_with_and_without_content(data: TrainData) -> None:
    built = model(data)
    text = np.ones((2, 8), dtype=np.float32)
    text[1] = np.nan
    table = pl.DataFrame({"item": [100, 101], "categories": [["shoes", "new"], None]})
    bigger = data.catalog.extend(table, {"text": text})
    scores = built.scorer(bigger)(Query(history=torch.tensor([[0, 30, 31]])))
    assert scores.shape == (1, ITEMS + 2)
    assert torch.isfinite(scores).all()
    assert built.labels(bigger).counts[-2:].tolist() == [1, 0]


@pytest.mark.parametrize("weighting", ["agreement", "confidence"])
def test_weights_need_a_loss_for_their_heads(weighting: str) -> None:
    with pytest.raises(ConfigError, match="set category > 0"):
        CammsrConfig.parse({"category": 0.0, "category_weighting": weighting})
    CammsrConfig.parse({"category": 0.0, "category_weighting": "learned"})


def test_bad_settings(data: TrainData) -> None:
    for bad in ({"experts": -1}, {"swap_rate": 1.5}, {"temperature": 0.0}, {"heads": 3}):
        with pytest.raises(ConfigError):
            model(data, **bad)
    with pytest.raises(ModelError, match="expected of id, image, text"):
        model(data, swap_pairs=[["id", "sound"]])
    with pytest.raises(ModelError, match="Did you mean 'image'"):
        model(data, modalities=["imgae"])
