"""Attributes are independent, and their codes are one-hot."""

import numpy as np

from modalmix.data.shop.attributes import CATEGORIES, LOOKS, WORDS, draw, names, one_hot, sizes


def test_one_hot_by_hand() -> None:
    values = np.array([[0, 1], [2, 0]], dtype=np.int8)
    assert one_hot(values, [3, 2]).tolist() == [[1, 0, 0, 0, 1], [0, 0, 1, 1, 0]]


def test_names_of_values() -> None:
    assert names(LOOKS, np.array([1, 5, 2], dtype=np.int8)) == {
        "colour": "orange",
        "shape": "cushion",
        "pattern": "dots",
    }


def test_values_are_uniform_and_attributes_independent() -> None:
    values = draw(LOOKS, 60_000, np.random.default_rng(0))
    for attribute, size in enumerate(sizes(LOOKS)):
        share = np.bincount(values[:, attribute], minlength=size) / len(values)
        np.testing.assert_allclose(share, 1 / size, atol=0.007)
    assert np.abs(np.corrcoef(values.T) - np.eye(len(LOOKS))).max() < 0.02


def test_words_and_categories_do_not_tell_the_look() -> None:
    shown = {word for values in LOOKS.values() for word in values}
    told = {word for values in WORDS.values() for word in values} | set(CATEGORIES.values())
    assert not shown & told
