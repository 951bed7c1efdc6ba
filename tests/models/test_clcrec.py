"""CLCRec against its equations, restated plainly."""

import math
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from modalmix.data.split import TrainData
from modalmix.errors import ConfigError
from modalmix.models.clcrec import CLCRec, CLCRecConfig, Contrasts, contrast
from modalmix.models.contract import Query
from tests.models.conftest import Correlation, Shop
from tests.models.training import cold_items_follow_content, refuses_bad_modalities

EVERYONE = Query(users=torch.arange(40))


def model(data: TrainData, **settings: Any) -> CLCRec:
    torch.manual_seed(0)
    return CLCRec(CLCRecConfig.parse({"dim": 6, "hidden": 10, "drawn": 7, **settings}), data)


def first_batch(built: CLCRec, data: TrainData, size: int = 50) -> Contrasts:
    return next(iter(built.batches(data, size, np.random.default_rng(0))))


def test_contrast_by_hand() -> None:
    anchor = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    items = torch.tensor([[1.0, 5.0], [3.0, 1.0], [2.0, 1.0], [0.0, -1.0]])  # two positives, two negatives
    free = torch.tensor([[True, True], [False, True]])
    # anchor 0 scores 1 against 2 and 0, anchor 1 scores 2 against -2: its first negative is not free; t = 1/2
    first = -math.log(math.exp(2) / (math.exp(2) + math.exp(4) + math.exp(0)))
    second = -math.log(math.exp(4) / (math.exp(4) + math.exp(-4)))
    assert contrast(anchor, items, free, 0.5).item() == pytest.approx((first + second) / 2)


def test_contrast_with_one_negative_is_bpr_and_with_none_zero() -> None:
    torch.manual_seed(0)
    anchor, items = torch.randn(1, 4, requires_grad=True), torch.randn(2, 4)
    margin = (anchor * (items[0] - items[1])).sum()
    expected = torch.nn.functional.softplus(-margin)
    torch.testing.assert_close(contrast(anchor, items, torch.tensor([[True]]), 1.0), expected)
    nothing = contrast(anchor, items, torch.tensor([[False]]), 0.1)
    assert nothing.item() == 0.0
    (gradient,) = torch.autograd.grad(nothing, anchor)
    assert gradient.tolist() == [[0.0] * 4]


def nce(anchor: torch.Tensor, positive: torch.Tensor, negatives: list[torch.Tensor], t: float) -> torch.Tensor:
    """The equation for one anchor."""
    others = sum((torch.exp(anchor @ negative / t) for negative in negatives), torch.zeros(()))
    own = torch.exp(anchor @ positive / t)
    return -torch.log(own / (own + others))


def plain(built: CLCRec, data: TrainData, batch: Contrasts, stands_in: torch.Tensor) -> dict[str, torch.Tensor]:
    """The terms, pair by pair; stands_in[k]: whether content takes the place of the id in slot k."""
    config = built.config
    x = []
    for modality in data.catalog.modalities.values():
        values, present = torch.from_numpy(modality.matrix()), torch.from_numpy(np.array(modality.present))
        learnt = values[torch.from_numpy(data.warm) & present]
        values = (values - learnt.mean(dim=0)) / learnt.std(dim=0, correction=0)
        values = values / values.norm(dim=1, keepdim=True)
        x.append(torch.where(present.unsqueeze(1), values, 0.0))
    hidden = torch.cat(x, dim=1) @ built.first.weight.T + built.first.bias
    g = torch.where(hidden > 0, hidden, 0.01 * hidden) @ built.second.weight.T + built.second.bias
    p, q, size = built.users.weight, built.items.weight, len(batch.user)
    z = [g[i] if stands_in[k] else q[i] for k, i in enumerate([*batch.positive.tolist(), *batch.negative.tolist()])]
    user_item, item_content = [], []
    for k in range(size):
        u, i = batch.user[k], batch.positive[k]
        free = [n for n in range(len(batch.negative)) if batch.free[k, n]]
        user_item.append(nce(p[u], z[k], [z[size + n] for n in free], config.temperature))
        content = [g[batch.negative[n]] / g[batch.negative[n]].norm() for n in free]
        item_content.append(nce(q[i] / q[i].norm(), g[i] / g[i].norm(), content, config.temperature))
    squares = (p[batch.user] ** 2).sum(dim=1).mean() + (q[batch.positive] ** 2).sum(dim=1).mean()
    return {
        "user-item": (1 - config.align) * torch.stack(user_item).mean(),
        "item-content": config.align * torch.stack(item_content).mean(),
        "reg": config.reg * (squares + (q[batch.negative] ** 2).sum(dim=1).mean()),
    }


@pytest.mark.parametrize("substitution", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dims", [{"image": 12, "text": 8}, {"text": 8}, {"image": 12, "text": 8, "sound": 5}])
def test_terms_and_gradients_equal_the_equations(content_shop: Shop, substitution: float, dims: dict[str, int]) -> None:
    data = content_shop(dims, absent={} if len(dims) == 1 else {"image": [0, 4], "text": [7]})
    built = model(data, substitution=substitution, align=0.3, reg=0.2, temperature=0.4)
    batch = first_batch(built, data)
    torch.manual_seed(3)
    terms = built.loss(batch)
    torch.manual_seed(3)
    stands_in = torch.rand(len(batch.positive) + len(batch.negative)) < substitution
    expected = plain(built, data, batch, stands_in)
    assert terms.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-4, atol=1e-6)
    parameters = list(built.parameters())
    got = torch.autograd.grad(sum(terms.values()), parameters)
    for mine, other in zip(got, torch.autograd.grad(sum(expected.values()), parameters), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5)


def reached(built: CLCRec, batch: Contrasts) -> set[str]:
    """Names of the parameters that the loss changes."""
    sum(built.loss(batch).values()).backward()
    return {name.split(".")[0] for name, p in built.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"align": 0.0, "substitution": 0.0}, {"users", "items"}),
        ({"align": 0.0, "substitution": 1.0}, {"users", "first", "second"}),
        ({"align": 1.0}, {"items", "first", "second"}),
        ({}, {"users", "items", "first", "second"}),
    ],
)
def test_gradients_reach_what_each_term_is_about(
    content_shop: Shop, settings: dict[str, float], expected: set[str]
) -> None:
    data = content_shop()
    built = model(data, reg=0.0, **settings)
    assert reached(built, first_batch(built, data)) == expected


def test_batches_take_each_event_once_with_shared_warm_negatives(content_shop: Shop) -> None:
    data = content_shop()
    built = model(data)
    batches = list(built.batches(data, 64, np.random.default_rng(0)))
    assert len(batches) == built.n_batches(data, 64)
    assert [len(batch.user) for batch in batches[:-1]] == [64] * (len(batches) - 1)
    events = sorted(zip(data.interactions.user.tolist(), data.interactions.item.tolist(), strict=True))
    seen = [pair for batch in batches for pair in zip(batch.user.tolist(), batch.positive.tolist(), strict=True)]
    assert sorted(seen) == events
    met = data.interactions.csr.toarray() > 0
    for batch in batches:
        assert batch.negative.unique().numel() == 7
        assert data.warm[batch.negative].all()
        assert np.array_equal(batch.free.numpy(), ~met[batch.user][:, batch.negative])
        assert not batch.free.all()
    assert not torch.equal(batches[0].negative, batches[1].negative)


def test_more_negatives_than_candidates_takes_all(content_shop: Shop) -> None:
    data = content_shop()
    assert first_batch(model(data, drawn=512), data).negative.unique().tolist() == list(range(24))
    everything = first_batch(model(data, drawn=512, negatives="all"), data)
    assert everything.negative.unique().tolist() == list(range(30))


def test_warm_items_are_ids_and_cold_items_content(content_shop: Shop) -> None:
    data = content_shop(absent={"image": [2, 3, 28], "text": [3, 28]})
    built = model(data)
    scorer, (g, _) = built.scorer(data.catalog), built.item_vectors(built.train_content, None)
    torch.testing.assert_close(scorer.items[:24], built.items.weight[:24].detach())
    cold = [24, 25, 26, 27, 29]
    torch.testing.assert_close(scorer.items[cold], g[cold].detach())
    known = [row for row in range(24) if row != 3]
    torch.testing.assert_close(scorer.items[28], g[known].mean(dim=0).detach())
    assert scorer.without_content.nonzero().flatten().tolist() == [28]  # item 3 has its id
    torch.testing.assert_close(scorer(EVERYONE), built.users.weight.detach() @ scorer.items.T)


def test_a_cold_vector_depends_on_no_id(content_shop: Shop) -> None:
    data = content_shop(absent={"image": [25]})
    built = model(data)
    before = built.scorer(data.catalog).items
    torch.nn.init.normal_(built.items.weight)
    torch.testing.assert_close(built.scorer(data.catalog).items[24:], before[24:])
    for row in (24, 25):
        twin = {name: m.matrix([row]) for name, m in data.catalog.modalities.items()}
        scores = built.scorer(data.catalog.extend(pl.DataFrame({"item": [999]}), twin))(EVERYONE)
        torch.testing.assert_close(scores[:, -1], scores[:, row])


def train(built: CLCRec, data: TrainData, epochs: int = 60) -> None:
    optimizer = built.optimizer()
    for seed in range(epochs):
        torch.manual_seed(seed)
        for batch in built.batches(data, 256, np.random.default_rng(seed)):
            optimizer.zero_grad()
            sum(built.loss(batch).values()).backward()
            optimizer.step()


@pytest.mark.parametrize("dims", [{"text": 8}, {"image": 12, "text": 8}, {"image": 12, "text": 8, "a": 5, "b": 7}])
def test_it_learns_and_cold_items_follow_content(
    content_shop: Shop, dims: dict[str, int], content_correlation: Correlation
) -> None:
    data = content_shop(dims, users=80, items=60, cold=20)
    built = model(data, dim=8, lr=0.01, drawn=40)
    train(built, data)
    cold_items_follow_content(built, data, content_correlation, 0.5)


def test_ids_and_content_come_together(content_shop: Shop) -> None:
    """After training, the content of a warm item is nearer to its own id embedding than to those of the others."""
    data = content_shop(users=80, items=60)
    built = model(data, dim=8, lr=0.01, drawn=40)
    ranks = []
    for epochs in (0, 60):
        train(built, data, epochs)
        g = torch.nn.functional.normalize(built.item_vectors(built.train_content, None)[0][:54], dim=1)
        scores = g @ torch.nn.functional.normalize(built.items.weight[:54], dim=1).T
        ranks.append(float((scores > scores.diagonal().unsqueeze(1)).sum(dim=1).float().mean()))
    assert ranks[0] > 20  # chance is 26.5
    assert ranks[1] < 3


def test_items_without_content_train(content_shop: Shop) -> None:
    data = content_shop(absent={"image": range(20), "text": [0, 1, 2, 3, 4]})
    built = model(data)
    terms = built.loss(first_batch(built, data))
    sum(terms.values()).backward()
    assert all(bool(value.isfinite()) for value in terms.values())
    assert all(bool(p.grad.isfinite().all()) for p in built.parameters() if p.grad is not None)


def test_bad_input(content_shop: Shop) -> None:
    wrong = ({"temperature": 0.0}, {"align": 1.1}, {"substitution": -0.1}, {"drawn": 0}, {"hidden": 0}, {"loss": "bpr"})
    for settings in wrong:
        with pytest.raises(ConfigError):
            CLCRecConfig.parse(settings)
    refuses_bad_modalities(model, content_shop)


def test_the_paper_preset_is_the_published_code() -> None:
    paper = CLCRecConfig.preset("paper").model_dump()
    published = {"hidden": 256, "drawn": 128, "temperature": 2.0, "align": 0.5, "substitution": 0.5, "lr": 1e-3}
    assert paper | published | {"dim": 64, "standardize": False} == paper
