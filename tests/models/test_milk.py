"""MILK against its equations, restated plainly."""

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from modalmix.data.catalog import Catalog
from modalmix.data.modality import Modality
from modalmix.data.split import TrainData
from modalmix.errors import ConfigError
from modalmix.models.contract import Query, Triples
from modalmix.models.milk import Milk, MilkConfig, environments, misalignment
from tests.models.conftest import Correlation, Shop
from tests.models.training import cold_items_follow_content, refuses_bad_modalities

BATCH = Triples(torch.tensor([0, 1, 1, 7, 0]), torch.tensor([3, 4, 5, 3, 6]), torch.tensor([9, 3, 9, 0, 8]))


def model(data: TrainData, **settings: Any) -> Milk:
    torch.manual_seed(0)
    return Milk(MilkConfig.parse({"dim": 6, **settings}), data)


def test_two_modalities_have_the_three_environments_of_the_paper() -> None:
    torch.manual_seed(0)
    even, drawn, swapped = environments(2, 0.1).tolist()
    assert even == [0.5, 0.5]
    assert sum(drawn) == pytest.approx(1.0)
    assert swapped == drawn[::-1]
    assert drawn[0] != drawn[1]


@pytest.mark.parametrize("n", [1, 3, 5])
def test_more_modalities_have_every_rotation(n: int) -> None:
    torch.manual_seed(0)
    rows = environments(n, 1.0)
    assert rows.shape == (n + 1, n)
    torch.testing.assert_close(rows.sum(dim=1), torch.ones(n + 1, dtype=torch.float64))
    torch.testing.assert_close(rows[0], torch.full((n,), 1 / n, dtype=torch.float64))
    torch.testing.assert_close(rows[1:].sum(dim=0), torch.ones(n, dtype=torch.float64))  # each share once a modality
    first = rows[1].tolist()
    assert [row.tolist() for row in rows[1:]] == [first[k:] + first[:k] for k in range(n)]


def test_the_draw_is_dirichlet() -> None:
    """Variance of a share of a symmetric Dirichlet: (1/M)(1 - 1/M) / (M a + 1)."""
    torch.manual_seed(0)
    for a, n in ((0.1, 2), (2.0, 3)):
        shares = torch.stack([environments(n, a)[1] for _ in range(4000)])
        torch.testing.assert_close(shares.mean(dim=0), torch.full((n,), 1 / n, dtype=torch.float64), atol=0.02, rtol=0)
        expected = (1 / n) * (1 - 1 / n) / (n * a + 1)
        assert float(shares.var(dim=0).mean()) == pytest.approx(expected, rel=0.1)
    tiny = torch.stack([environments(2, 0.01) for _ in range(500)])
    assert bool(tiny.isfinite().all())


def plain(built: Milk, data: TrainData, weights: torch.Tensor, batch: Triples) -> dict[str, torch.Tensor]:
    """The terms from the equations, item by item; every item has both modalities."""
    config = built.config
    h = []
    for linear, modality in zip(built.maps, data.catalog.modalities.values(), strict=True):
        x = torch.from_numpy(modality.matrix())
        warm = x[torch.from_numpy(data.warm)]
        x = (x - warm.mean(dim=0)) / warm.std(dim=0, correction=0)
        h.append((x / x.norm(dim=1, keepdim=True)) @ linear.weight.T + linear.bias)
    user, risks = built.users.weight[batch.user], []
    for w in weights:
        mixed = sum(share * part for share, part in zip(w, h, strict=True))
        if config.loss == "bpr":
            margin = (user * (mixed[batch.positive] - mixed[batch.negative])).sum(dim=1)
            risks.append(-torch.sigmoid(margin).log().mean())
        else:
            scores = (user @ mixed.T).masked_fill(~torch.from_numpy(data.warm), -torch.inf)
            risks.append(torch.nn.functional.cross_entropy(scores, batch.positive))
    mean = sum(risks) / len(risks)
    variance = sum((risk - mean) ** 2 for risk in risks) / (len(risks) - 1)
    even = sum(h) / len(h)
    used = [even[batch.positive]] + ([even[batch.negative]] if config.loss == "bpr" else [])
    penalty = sum((v**2).sum() for v in [user, *used]) / len(user)
    rows = sorted(set(batch.positive.tolist()))
    pairs = [(m, n) for m in range(len(h)) for n in range(m)]
    errors = [((h[m][rows] - h[n][rows]) ** 2).mean() for m, n in pairs]
    return {
        config.loss: sum(risks),
        "reg": config.reg * penalty,
        "invariance": config.invariance * variance,
        "align": config.align * sum(errors) / len(errors),
    }


@pytest.mark.parametrize("loss", ["bpr", "softmax"])
@pytest.mark.parametrize("dims", [{"image": 12, "text": 8}, {"image": 12, "text": 8, "sound": 5}])
def test_terms_and_gradients_equal_the_equations(content_shop: Shop, loss: str, dims: dict[str, int]) -> None:
    data = content_shop(dims)
    built = model(data, loss=loss, reg=0.3, align=0.7, concentration=0.5)
    torch.nn.init.normal_(built.users.weight)  # so that the environments' risks differ
    torch.manual_seed(5)
    terms = built.loss(BATCH)
    torch.manual_seed(5)
    expected = plain(built, data, environments(len(dims), 0.5).float(), BATCH)
    assert terms.keys() == expected.keys()
    assert expected["invariance"] > 0.01
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-4, atol=1e-6)
    parameters = list(built.parameters())
    got = torch.autograd.grad(sum(terms.values()), parameters)
    for mine, other in zip(got, torch.autograd.grad(sum(expected.values()), parameters), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-5)


def test_misalignment_by_hand() -> None:
    parts = torch.tensor([[[1.0, 2.0], [0.0, 4.0]], [[9.0, 9.0], [1.0, 1.0]], [[0.0, 0.0], [2.0, 0.0]]])
    both = torch.tensor([[True, True], [True, False], [True, True]])
    assert misalignment(parts, both).item() == pytest.approx((1 + 4 + 4 + 0) / 4)
    third = torch.cat([parts, torch.ones(3, 1, 2)], dim=1)
    has = torch.cat([both, torch.tensor([[False], [True], [False]])], dim=1)
    # (1,2): 9/4; (1,3): row 1 alone, (64 + 64) / 2; (2,3): nobody has both
    assert misalignment(third, has).item() == pytest.approx((9 / 4 + 64 + 0) / 3)
    assert misalignment(parts[:, :1], both[:, :1]).item() == 0.0


def test_one_modality_has_nothing_to_vary(content_shop: Shop) -> None:
    data = content_shop({"text": 8})
    built = model(data)
    terms = built.loss(BATCH)
    assert terms["align"].item() == 0.0
    assert terms["invariance"].item() == pytest.approx(0.0, abs=1e-9)
    h = built.item_vectors(built.train_content, None)[0]
    user = built.users(BATCH.user)
    margin = (user * (h[BATCH.positive] - h[BATCH.negative])).sum(dim=1)
    torch.testing.assert_close(terms["bpr"], 2 * torch.nn.functional.softplus(-margin).mean())


def test_vectors_are_the_even_mixture_and_a_missing_modality_says_its_bias(content_shop: Shop) -> None:
    data = content_shop(absent={"image": [2, 3, 29], "text": [3, 29]})
    built = model(data)
    (image, text), _ = built.train_content
    vectors, has_content = built.item_vectors(built.train_content, None)
    torch.testing.assert_close(vectors[1], (built.maps[0](image[1]) + built.maps[1](text[1])) / 2)
    torch.testing.assert_close(vectors[2], (built.maps[0].bias + built.maps[1](text[2])) / 2)
    assert has_content.logical_not().nonzero().flatten().tolist() == [3, 29]
    rows = torch.tensor([5, 0])
    torch.testing.assert_close(built.item_vectors(built.train_content, rows)[0], vectors[rows])
    scorer = built.scorer(data.catalog)
    known = [row for row in range(24) if row != 3]
    torch.testing.assert_close(scorer.items[[3, 29]], vectors[known].mean(dim=0).expand(2, -1))
    assert scorer.without_content.nonzero().flatten().tolist() == [3, 29]


def test_a_cold_vector_depends_on_no_id(content_shop: Shop) -> None:
    data = content_shop(absent={"image": [2]})
    built = model(data)
    assert [name for name, p in built.named_parameters() if data.n_items in p.shape] == []
    for row in (0, 2, 29):
        twin = {name: m.matrix([row]) for name, m in data.catalog.modalities.items()}
        bigger = data.catalog.extend(pl.DataFrame({"item": [999]}), twin)
        scores = built.scorer(bigger)(Query(users=torch.arange(40)))
        torch.testing.assert_close(scores[:, -1], scores[:, row])


def train(built: Milk, data: TrainData, epochs: int = 60) -> dict[str, float]:
    """Sums of the terms over the last ten epochs."""
    optimizer, late = built.optimizer(), dict.fromkeys(built.loss(BATCH), 0.0)
    for seed in range(epochs):
        torch.manual_seed(seed)
        for triples in built.batches(data, 256, np.random.default_rng(seed)):
            optimizer.zero_grad()
            terms = built.loss(triples)
            sum(terms.values()).backward()
            optimizer.step()
            if seed >= epochs - 10:
                late = {name: late[name] + value.item() for name, value in terms.items()}
    return late


@pytest.mark.parametrize("dims", [{"text": 8}, {"image": 12, "text": 8}, {"image": 12, "text": 8, "a": 5, "b": 7}])
def test_it_learns_and_cold_items_follow_content(
    content_shop: Shop, dims: dict[str, int], content_correlation: Correlation
) -> None:
    data = content_shop(dims, users=80, items=60, cold=20)
    built = model(data, dim=8, lr=0.02)
    train(built, data)
    cold_items_follow_content(built, data, content_correlation, 0.6)


def test_the_penalty_brings_the_environments_together(content_shop: Shop) -> None:
    """One modality is noise: left alone, the loss is far worse where it has the say."""
    shop, rng = content_shop(users=80, items=60), np.random.default_rng(0)
    noise = Modality.from_matrix("image", rng.standard_normal((60, 12)).astype(np.float32))
    catalog = Catalog(shop.catalog.items, {**shop.catalog.modalities, "image": noise})
    data, spread = TrainData(shop.users, catalog, shop.interactions), {}
    for weight in (1e-9, 50.0):
        spread[weight] = train(model(data, dim=8, lr=0.02, invariance=weight), data)["invariance"] / weight
    assert spread[50.0] < 0.5 * spread[1e-9]


def test_bad_input(content_shop: Shop) -> None:
    for settings in ({"concentration": 0.0}, {"invariance": -1.0}, {"align": -0.1}, {"loss": "hinge"}):
        with pytest.raises(ConfigError):
            MilkConfig.parse(settings)
    refuses_bad_modalities(model, content_shop)


def test_the_paper_preset_is_the_published_code() -> None:
    paper = MilkConfig.preset("paper").model_dump()
    published = {"dim": 64, "lr": 1e-3, "batch_size": 2048, "reg": 1e-4, "align": 0.05, "invariance": 50.0}
    assert paper | published | {"concentration": 0.1, "standardize": False, "loss": "bpr"} == paper
