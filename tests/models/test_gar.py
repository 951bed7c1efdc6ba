"""GAR against its equations, and who gets which gradient."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from modalmix.data.split import TrainData
from modalmix.errors import ConfigError
from modalmix.models.contract import Query, Triples, teach
from modalmix.models.gar import GAR, GARConfig
from tests.models.conftest import Correlation, Shop
from tests.models.training import (
    cold_items_are_content_alone,
    cold_items_follow_content,
    refuses_bad_catalogues,
    train,
    users_without_events_get_zeros,
)

EVERYONE = Query(users=torch.arange(40))
SMALL = {"dim": 6, "hidden": 10, "dropout": 0.0, "discriminator_dropout": 0.0, "teacher": {"dim": 5, "reg": 1.0}}


def model(data: TrainData, **settings: object) -> GAR:
    torch.manual_seed(0)
    built = GAR(GARConfig.parse({**SMALL, **settings}), data)
    built.prepare(data)
    return built


def batch(data: TrainData, of: GAR, size: int = 64) -> Triples:
    return next(iter(of.batches(data, size, np.random.default_rng(0))))


def plain_losses(of: GAR, triples: Triples, warm: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """L_D and L_G without any stopped gradient, event by event, on a copy of the model."""
    (user, i, j), config = triples, of.config
    D_U, D_I, U, V = of.discriminator.users, of.discriminator.items, of.teacher_users, of.teacher_items
    rows = i.unique()
    G = torch.zeros(30, 5).index_copy(0, rows, of.generator(of.train_content.features, rows))
    true = warm if config.loss == "softmax" else triples_rows(triples)
    d = D_I(torch.cat([V[true], G[rows]]))  # D in training mode: one normalisation for all
    d_true = torch.zeros(30, 6).index_copy(0, true, d[: len(true)])
    d_fake = torch.zeros(30, 6).index_copy(0, rows, d[len(true) :])
    d_u = torch.zeros(40, 6).index_copy(0, user.unique(), D_U(U[user.unique()]))[user]
    r, fake, negative = ((d_u * x).sum(dim=1) for x in (d_true[i], d_fake[i], d_true[j]))
    if config.loss == "softmax":
        full = F.cross_entropy(d_u @ d_true[true].T, torch.searchsorted(true, i))
        L_D = (1 - config.beta) * -torch.sigmoid(r - fake).log().mean() + config.beta * full
    else:
        L_D = -torch.sigmoid(r - (1 - config.beta) * fake - config.beta * negative).log().mean()
    of.discriminator.eval()
    d_u, d_i, d_fake = D_U(U[user]), D_I(V[i]), D_I(G[i])
    margin = (d_u * (d_fake - d_i)).sum(dim=1)
    L_G = (1 - config.alpha) * -torch.sigmoid(margin).log().mean() + config.alpha * (G[i] - V[i]).abs().mean()
    return L_D, L_G


def triples_rows(triples: Triples) -> torch.Tensor:
    return torch.cat([triples.positive, triples.negative]).unique()


@pytest.mark.parametrize("loss", ["bpr", "softmax"])
def test_each_part_gets_exactly_its_own_gradient(content_shop: Shop, loss: str) -> None:
    """One sum, one backward pass: D has the gradient of L_D alone, G that of L_G alone."""
    data = content_shop()
    of = model(data, alpha=0.3, beta=0.4, reg=0.0, loss=loss)
    triples, plain = batch(data, of), copy.deepcopy(of)
    terms = of.loss(triples)
    torch.stack(list(terms.values())).sum().backward()
    L_D, L_G = plain_losses(plain, triples, torch.from_numpy(np.flatnonzero(data.warm)))
    torch.testing.assert_close(terms["discriminator"], L_D)
    torch.testing.assert_close(terms["generator"] + terms["similarity"], L_G)
    names = [name for name, _ in of.named_parameters()]
    parameters = [value for _, value in plain.named_parameters()]
    of_d = torch.autograd.grad(L_D, parameters, retain_graph=True, allow_unused=True)
    of_g = torch.autograd.grad(L_G, parameters, allow_unused=True)
    stopped = 0.0
    for name, mine, d, g in zip(names, of.parameters(), of_d, of_g, strict=True):
        wanted, other = (d, g) if name.startswith("discriminator") else (g, d)
        torch.testing.assert_close(mine.grad, wanted, atol=1e-5, rtol=1e-4, msg=name)
        stopped += 0.0 if other is None else float(other.abs().sum())
    assert stopped > 0.1, "nothing would have been to stop"


def test_the_terms_reach_only_their_part(content_shop: Shop) -> None:
    data = content_shop()
    of = model(data, reg=0.1)
    for name, term in of.loss(batch(data, of)).items():
        gradients = torch.autograd.grad(term, list(of.parameters()), allow_unused=True, retain_graph=True)
        reached = {
            key.split(".")[0] for (key, _), g in zip(of.named_parameters(), gradients, strict=True) if g is not None
        }
        part = "generator" if name in ("generator", "similarity") else "discriminator"
        assert reached == {part}, name


def test_the_penalty_is_that_of_the_vectors_compared(content_shop: Shop) -> None:
    data = content_shop()
    of = model(data, reg=0.1, loss="bpr")
    user, i, j = triples = batch(data, of)
    with torch.no_grad():
        generated = of.generator(of.train_content.features, i.unique())
        rows = triples_rows(triples)
        d = of.discriminator.items(torch.cat([of.teacher_items[rows], generated]))
        d_u = of.discriminator.users(of.teacher_users[user.unique()])[torch.searchsorted(user.unique(), user)]
        d_i, d_j = d[torch.searchsorted(rows, i)], d[torch.searchsorted(rows, j)]
    expected = 0.1 * (d_u.square().sum() + d_i.square().sum() + d_j.square().sum()) / len(user)
    assert of.loss(triples)["reg"].item() == pytest.approx(expected.item(), rel=1e-4)


def test_judging_leaves_the_mode_as_it_was(content_shop: Shop) -> None:
    of = model(content_shop(), discriminator_dropout=0.5)
    vectors = torch.randn(9, 5)
    first, second = (of.discriminator.judge(vectors, vectors) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True)), "no dropout"
    assert of.discriminator.training
    assert of.discriminator.items.training
    assert not torch.equal(of.discriminator.items(vectors), of.discriminator.items(vectors))


def test_prepare_scales_item_vectors_to_a_mean_square_of_one(content_shop: Shop) -> None:
    data = content_shop()
    of = model(data)
    users, items = teach(data.interactions, of.config.teacher, of.config.seed)
    torch.testing.assert_close(of.teacher_users, users)
    assert of.teacher_items[:24].square().mean().item() == pytest.approx(1.0, rel=1e-5)
    torch.testing.assert_close(F.normalize(of.teacher_items, dim=1), F.normalize(items, dim=1))


def test_warm_items_are_scored_by_true_vectors_and_cold_ones_by_generated(content_shop: Shop) -> None:
    data = content_shop(absent={"image": [3, 29], "text": [3, 29]})
    of = model(data)
    scorer = of.scorer(data.catalog)
    of.eval()
    with torch.no_grad():
        d_u = of.discriminator.users(of.teacher_users)
        made = of.generator(of.train_content.features, None)
        warm = [row for row in range(24) if row != 3]
        made[29] = made[warm].mean(dim=0)
        expected = d_u @ of.discriminator.items(torch.cat([of.teacher_items[:24], made[24:]])).T
    torch.testing.assert_close(scorer(EVERYONE), expected)
    assert scorer.without_content is not None
    assert scorer.without_content.nonzero().flatten().tolist() == [29]  # item 3 has its teacher


def test_a_cold_vector_depends_on_content_alone(content_shop: Shop) -> None:
    data = content_shop()
    cold_items_are_content_alone(model(data), data)


def test_a_user_without_events_gets_zeros(content_shop: Shop) -> None:
    users_without_events_get_zeros(model, content_shop)


def test_a_batch_of_one_event_is_a_batch(content_shop: Shop) -> None:
    data = content_shop()
    of = model(data)
    assert all(torch.isfinite(term) for term in of.loss(Triples(*(rows[:1] for rows in batch(data, of)))).values())


@pytest.mark.parametrize("loss", ["bpr", "softmax"])
def test_it_learns_and_cold_items_follow_content(
    content_shop: Shop, loss: str, content_correlation: Correlation
) -> None:
    data = content_shop(users=80, items=60, cold=20)
    of = model(data, dim=8, hidden=20, lr=0.01, loss=loss)
    train(of, data, 30)
    cold_items_follow_content(of, data, content_correlation, 0.5)


def test_bad_settings_and_catalogues(content_shop: Shop) -> None:
    with pytest.raises(ConfigError, match="beta"):
        GARConfig.parse({"beta": 1.5})
    refuses_bad_catalogues(model, content_shop)
