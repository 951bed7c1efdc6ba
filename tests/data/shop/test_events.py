"""Events: the right number, the right odds, in order, and taste that can be measured."""

import numpy as np
import pytest

from modalmix.data.interactions import Interactions
from modalmix.data.shop import Shop, ShopConfig, Truth, events, plant


@pytest.fixture(scope="module")
def shop() -> Shop:
    return plant()


def mean_taste(truth: Truth, met: Interactions, group: str) -> tuple[float, float, float]:
    """Mean taste of the users of a group for the items they met: by look, by words, by hidden cluster."""
    mine = np.isin(met.user, truth.members(group))
    user, item = met.user[mine], met.item[mine]
    look = (truth.look_taste[user] * truth.look_codes[item]).sum(axis=1).mean()
    word = (truth.word_taste[user] * truth.word_codes[item]).sum(axis=1).mean()
    return float(look), float(word), float(truth.cluster_taste[user, truth.cluster[item]].mean())


def test_sizes(shop: Shop) -> None:
    degree = shop.dataset.interactions.user_degree
    assert degree.mean() == pytest.approx(20, abs=1)
    assert degree.min() >= 3
    assert degree.max() <= 400
    assert degree.std() > 5


def test_nobody_meets_an_item_twice(shop: Shop) -> None:
    met = shop.dataset.interactions
    assert met.csr.nnz == len(met)


def test_noise_is_the_share_asked_for_and_follows_nothing(shop: Shop) -> None:
    spread = np.sqrt(0.1 * 0.9 / len(shop.random))
    assert shop.random.mean() == pytest.approx(0.1, abs=4 * spread)
    assert max(map(abs, mean_taste(shop.truth, shop.dataset.interactions.take(shop.random), "look"))) < 0.2
    assert plant(ShopConfig(users=50, items=60, noise=0.0)).random.sum() == 0
    assert plant(ShopConfig(users=50, items=60, noise=1.0)).random.all()


def test_a_choice_is_in_proportion_to_exp_affinity() -> None:
    # with 3 items everybody buys one; without taste its odds are 1 : 2^-1/2 : 3^-1/2
    shop = plant(ShopConfig(users=30_000, items=3, sharpness=0.0, popularity=0.5, noise=0.0))
    met = shop.dataset.interactions
    assert len(met) == 30_000
    expected = np.exp(np.sort(shop.truth.popularity)) / np.exp(shop.truth.popularity).sum()
    np.testing.assert_allclose(expected, np.array([0.57735, 0.70711, 1.0]) / 2.28446, atol=1e-5)
    share = met.item_degree[np.argsort(shop.truth.popularity)] / 30_000
    np.testing.assert_allclose(share, expected, atol=4 * np.sqrt(0.25 / 30_000))


def test_each_group_follows_its_own_taste_only(shop: Shop) -> None:
    met = shop.dataset.interactions.take(~shop.random)
    for own, group in enumerate(("look", "word", "behaviour")):
        tastes = mean_taste(shop.truth, met, group)
        assert tastes[own] > 1.2
        assert max(abs(taste) for kind, taste in enumerate(tastes) if kind != own) < 0.15


def test_alternate_words_in_even_categories_looks_in_odd_ones() -> None:
    shop = plant(ShopConfig(category_modality="alternate"))
    met = shop.dataset.interactions.take(~shop.random)
    even = shop.truth.category[met.item] % 2 == 0
    look, word, _ = mean_taste(shop.truth, met.take(even), "category")
    assert word > 1.2
    assert abs(look) < 0.15
    look, word, _ = mean_taste(shop.truth, met.take(~even), "category")
    assert look > 1.2
    assert abs(word) < 0.15


def test_events_are_in_the_order_of_time_and_a_visit_stays_in_a_category(shop: Shop) -> None:
    met = shop.dataset.interactions
    assert met.time is not None
    assert (np.diff(met.time) >= 0).all()
    assert met.time[0] >= 1_672_531_200
    assert met.time[-1] < 1_672_531_200 + 2 * 365 * 86_400 + 3_600
    order = met.in_time_order
    user, category, time = met.user[order], shop.truth.category[met.item[order]], met.time[order]
    next_ = user[1:] == user[:-1]
    stays = (category[1:] == category[:-1])[next_]
    assert stays.mean() > 0.45  # at random 1 / 8
    assert (np.diff(time)[next_][stays] < 3_600).mean() > 0.99


def test_more_visits_mix_the_categories() -> None:
    def stay(visits: int) -> float:
        shop = plant(ShopConfig(users=200, visits=visits))
        met = shop.dataset.interactions
        order = met.in_time_order
        user, category = met.user[order], shop.truth.category[met.item[order]]
        return float((category[1:] == category[:-1])[user[1:] == user[:-1]].mean())

    assert stay(1) > stay(4) + 0.2


def test_the_block_size_changes_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_BLOCK", 7 * 800)
    again, is_random = events.draw_events(shop.truth)
    assert again.sha256 == shop.dataset.interactions.sha256
    assert (is_random == shop.random).all()


@pytest.mark.parametrize(("users", "items"), [(1, 1), (1, 50), (40, 1), (5, 2), (40, 3)])
def test_tiny_shops(users: int, items: int) -> None:
    met = plant(ShopConfig(users=users, items=items)).dataset.interactions
    assert met.n_users == users
    assert met.n_items == items
    assert met.user_degree.min() >= 1
    assert met.user_degree.max() <= max(1, items // 2)
