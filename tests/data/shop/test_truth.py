"""The truth of a planted shop: exact shares, tastes of equal strength, and affinities worked by hand."""

import numpy as np
import pytest

from modalmix.data.shop import GROUPS, STATES, ShopConfig, Truth
from modalmix.data.shop.attributes import LOOKS, WORDS
from modalmix.data.shop.truth import draw_truth


@pytest.fixture(scope="module")
def truth() -> Truth:
    return draw_truth(ShopConfig(missing_image=0.3, noise_image=0.5, missing_text=0.25, noise_text=0.1))


def test_groups_have_the_shares_asked_for(truth: Truth) -> None:
    assert [len(truth.members(group)) for group in GROUPS] == [240, 240, 120, 0]
    odd = draw_truth(ShopConfig(users=7, look_share=0.5, word_share=0.5, behaviour_share=0.0))
    assert sorted(len(odd.members(group)) for group in GROUPS) == [0, 0, 3, 4]
    alone = draw_truth(ShopConfig(users=9, look_share=0.0, word_share=0.0, behaviour_share=1.0))
    assert len(alone.members("behaviour")) == 9


def test_missing_and_noise_are_exact_shares(truth: Truth) -> None:
    image = {state: int((truth.image == code).sum()) for code, state in enumerate(STATES)}
    assert image == {"missing": 240, "noise": 280, "clean": 280}  # noise is half of the 560 pictures there are
    text = {state: int((truth.text == code).sum()) for code, state in enumerate(STATES)}
    assert text == {"missing": 200, "noise": 60, "clean": 540}


def test_a_larger_share_missing_contains_the_smaller() -> None:
    few, many = (draw_truth(ShopConfig(missing_image=share)) for share in (0.2, 0.6))
    missing = STATES.index("missing")
    assert ((many.image == missing) >= (few.image == missing)).all()


def test_all_or_nothing_missing() -> None:
    assert (draw_truth(ShopConfig(missing_text=1.0)).text == STATES.index("missing")).all()
    assert (draw_truth(ShopConfig(noise_image=1.0)).image == STATES.index("noise")).all()
    assert (draw_truth(ShopConfig()).image == STATES.index("clean")).all()


def test_tastes_have_mean_0_and_equal_weight(truth: Truth) -> None:
    for taste, attributes in ((truth.look_taste, LOOKS), (truth.word_taste, WORDS)):
        start = 0
        for values in attributes.values():
            part = taste[:, start : start + len(values)]
            np.testing.assert_allclose(part.mean(axis=1), 0, atol=1e-6)
            np.testing.assert_allclose(part.std(axis=1), 1 / np.sqrt(len(attributes)), atol=1e-6)
            start += len(values)
        assert start == taste.shape[1]


@pytest.mark.parametrize("mode", ["free", "alternate"])
def test_affinity_by_hand(mode: str) -> None:
    truth = draw_truth(ShopConfig(users=30, items=20, sharpness=2.5, popularity=0.7, category_modality=mode))
    scores = truth.affinity(np.arange(30))
    firsts = {"look": [0, 8, 14], "word": [0, 8, 14]}  # 8 colours, 6 shapes; 8 materials, 6 styles
    for user in range(30):
        for item in range(20):
            decides = GROUPS[truth.group[user]]
            if decides == "category":
                decides = "word" if truth.category[item] % 2 == 0 else "look"
            if decides == "behaviour":
                taste = truth.cluster_taste[user, truth.cluster[item]]
            else:
                values = (truth.look if decides == "look" else truth.words)[item]
                tastes = (truth.look_taste if decides == "look" else truth.word_taste)[user]
                taste = sum(tastes[first + value] for first, value in zip(firsts[decides], values, strict=True))
            assert scores[user, item] == pytest.approx(2.5 * taste + truth.popularity[item], abs=1e-5)


def test_affinity_of_a_block_is_that_part_of_the_whole(truth: Truth) -> None:
    some = np.array([5, 400, 17])
    np.testing.assert_allclose(truth.affinity(some), truth.affinity(np.arange(600))[some], atol=1e-5)


def test_popularity_is_a_power_of_the_rank() -> None:
    weights = np.sort(np.exp(draw_truth(ShopConfig(items=4, popularity=1.0)).popularity))[::-1]
    np.testing.assert_allclose(weights, [1, 1 / 2, 1 / 3, 1 / 4], rtol=1e-6)


def test_alternate_has_no_look_or_word_users() -> None:
    truth = draw_truth(ShopConfig(category_modality="alternate"))
    assert [len(truth.members(group)) for group in GROUPS] == [0, 0, 120, 480]
