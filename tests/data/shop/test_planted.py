"""The planted shop as a whole: determinism, content, and its known answers."""

import numpy as np
import pytest

from modalmix.data.shop import STATES, Shop, ShopConfig, plant
from modalmix.data.shop.pictures import to_jpeg
from modalmix.errors import ModelError

HALF = ShopConfig(users=50, items=100, missing_image=0.2, noise_image=0.5, missing_text=0.3, noise_text=0.5)
Matrix = np.ndarray


@pytest.fixture(scope="module")
def shop() -> Shop:
    return plant()


@pytest.fixture(scope="module")
def half() -> Shop:
    return plant(HALF)


def recall_at_20(scores: Matrix, known: Matrix, held_out: Matrix, users: Matrix) -> float:
    """Mean over users with held-out items of the share of them among the 20 best that are not known."""
    scores = np.where(known, -np.inf, scores)
    best = np.argsort(-scores, axis=1, kind="stable")[:, :20]
    hits, positives = np.take_along_axis(held_out, best, axis=1).sum(axis=1), held_out.sum(axis=1)
    users = users[positives[users] > 0]
    return float((hits[users] / positives[users]).mean())


def dense(shop: Shop, chosen: Matrix) -> Matrix:
    return shop.dataset.interactions.take(chosen).csr.toarray() > 0


def test_same_seed_same_shop(half: Shop) -> None:
    again = plant(HALF)
    assert again.dataset.sha256 == half.dataset.sha256
    assert again.dataset.catalog.table.equals(half.dataset.catalog.table)
    assert again.dataset_with_features().catalog.sha256 == half.dataset_with_features().catalog.sha256
    for row in range(100):
        one, other = half.picture(row), again.picture(row)
        assert (one is None and other is None) or (one and other and to_jpeg(one) == to_jpeg(other))


def test_another_seed_another_shop(half: Shop) -> None:
    other = plant(HALF.replace(seed=1))
    assert other.dataset.interactions.sha256 != half.dataset.interactions.sha256
    assert not other.dataset.catalog.table.equals(half.dataset.catalog.table)


def test_missing_and_noisy_content_changes_nothing_else(half: Shop) -> None:
    clean = plant(ShopConfig(users=50, items=100))
    assert clean.dataset.sha256 == half.dataset.sha256
    kept = np.flatnonzero(half.truth.text == STATES.index("clean"))
    assert clean.dataset.catalog.table[kept].equals(half.dataset.catalog.table[kept])
    for row in np.flatnonzero(half.truth.image == STATES.index("clean"))[:5].tolist():
        one, other = clean.picture(row), half.picture(row)
        assert one is not None
        assert other is not None
        assert to_jpeg(one) == to_jpeg(other)


def test_ids_and_table(half: Shop) -> None:
    table = half.dataset.catalog.table
    assert table.columns == ["item", "title", "description", "categories"]
    assert table["item"][[0, 99]].to_list() == ["A0000", "A0099"]
    assert half.dataset.users.ids([0, 49]) == ["U0000", "U0049"]
    assert table["title"].null_count() == table["description"].null_count() == 30
    assert table["categories"].list.len().to_list() == [1] * 100
    missing = int(np.flatnonzero(half.truth.text == STATES.index("missing"))[0])
    assert half.dataset.catalog.titles([missing]) == [f"A{missing:04}"]
    assert not half.dataset.catalog.modalities
    assert half.dataset.counts["random events"] == half.random.sum()


def test_large_shops_have_ids_of_one_length() -> None:
    ids = plant(ShopConfig(users=1, items=10_001)).dataset.catalog.items.series
    assert ids[0] == "A00000"
    assert ids[10_000] == "A10000"


def test_pictures_are_missing_where_the_truth_says(half: Shop) -> None:
    missing = half.truth.image == STATES.index("missing")
    assert [half.picture(row) is None for row in range(100)] == missing.tolist()
    assert missing.sum() == 20


def test_features_are_the_truth_with_mild_noise(shop: Shop) -> None:
    image, text = shop.features("image"), shop.features("text")
    assert image.matrix().shape == (800, 19)
    assert text.matrix().shape == (800, 28)
    assert (image.matrix() - shop.truth.look_codes).std() == pytest.approx(0.1, abs=0.005)
    words = text.matrix()
    assert (words[:, :8].argmax(axis=1) == shop.truth.words[:, 0]).all()
    assert (words[:, 20:].argmax(axis=1) == shop.truth.category).all()


def test_features_of_noise_and_missing_items(half: Shop) -> None:
    catalog = half.dataset_with_features().catalog
    assert list(catalog.modalities) == ["image", "text"]
    for name, states in (("image", half.truth.image), ("text", half.truth.text)):
        modality = catalog.modality(name)
        assert (modality.present == (states != STATES.index("missing"))).all()
        length = np.linalg.norm(modality.matrix(), axis=1)
        clean, noise = length[states == STATES.index("clean")], length[states == STATES.index("noise")]
        assert noise.mean() == pytest.approx(clean.mean(), rel=0.1)
    noise = half.truth.image == STATES.index("noise")
    told = half.features("image").matrix()[:, :8].argmax(axis=1) == half.truth.look[:, 0]
    assert told[half.truth.image == STATES.index("clean")].all()
    assert told[noise].mean() < 0.4  # chance 1 / 8 of 40 items


def test_an_unknown_modality_names_the_nearest(shop: Shop) -> None:
    with pytest.raises(ModelError, match="Did you mean 'image'"):
        shop.features("images")


def test_the_oracle_is_well_above_popularity_above_chance(shop: Shop) -> None:
    held = np.random.default_rng(0).random(len(shop.random)) < 0.2
    known, held_out, users = dense(shop, ~held), dense(shop, held), np.arange(600)
    oracle = recall_at_20(shop.truth.affinity(users), known, held_out, users)
    popular = recall_at_20(np.tile(known.sum(axis=0), (600, 1)), known, held_out, users)
    chance = recall_at_20(np.random.default_rng(1).random(known.shape), known, held_out, users)
    assert chance == pytest.approx(20 / 780, abs=0.01)
    assert popular > 2 * chance
    assert oracle > 5 * popular
    assert oracle > 0.45


def test_content_finds_cold_items_for_those_who_follow_it(shop: Shop) -> None:
    cold = np.random.default_rng(0).permutation(800) < 160
    is_cold = cold[shop.dataset.interactions.item]
    known, held_out = dense(shop, ~is_cold) | ~cold, dense(shop, is_cold)
    chance = 20 / 160
    for modality, own, others in (
        ("image", "look", ("word", "behaviour")),
        ("text", "word", ("look", "behaviour")),
    ):
        features = shop.features(modality).matrix()
        features = (features - features.mean(axis=0)) / features.std(axis=0)
        scores = dense(shop, ~is_cold) @ features @ features.T  # the mean item a user has met
        assert recall_at_20(scores, known, held_out, shop.truth.members(own)) > 4 * chance
        for other in others:
            assert abs(recall_at_20(scores, known, held_out, shop.truth.members(other)) - chance) < 0.05
    for group in ("look", "word", "behaviour"):
        users = shop.truth.members(group)
        assert recall_at_20(shop.truth.affinity(np.arange(600)), known, held_out, users) > 0.6


def test_one_user_and_one_item() -> None:
    shop = plant(ShopConfig(users=1, items=1))
    assert shop.dataset_with_features().summary()["interactions"] == 1
    assert shop.picture(0) is not None
