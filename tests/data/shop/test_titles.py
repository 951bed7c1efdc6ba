"""Texts tell all the words and the place, and noise tells none."""

import re
from itertools import product

import numpy as np

from modalmix.data.shop.attributes import CATEGORIES, LOOKS, WORDS
from modalmix.data.shop.titles import THEMES, write, write_noise

TOLD = [word for values in WORDS.values() for word in values]


def words_of(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def test_every_text_tells_its_words_and_no_other() -> None:
    rng = np.random.default_rng(0)
    places = list(CATEGORIES.values())
    for place, combination in zip(places * 24, product(*WORDS.values()), strict=True):
        text = write(dict(zip(WORDS, combination, strict=True)), place, rng)
        assert words_of(text.title) & set(TOLD) == set(combination)
        assert words_of(text.description) & set(TOLD) == set(combination)
        assert place in text.title.lower()
        assert text.title[0].isupper()
        assert "{" not in text.title + text.description


def test_no_text_tells_a_look() -> None:
    rng = np.random.default_rng(1)
    shown = {value for values in LOOKS.values() for value in values}
    for _ in range(100):
        text = write({"material": "glass", "style": "nordic", "theme": "ocean"}, "desk", rng)
        assert not shown & words_of(f"{text.title} {text.description}")


def test_noise_tells_nothing() -> None:
    text = write_noise(np.random.default_rng(2))
    known = {*TOLD, *" ".join(CATEGORIES.values()).split(), *words_of(" ".join(THEMES.values()))}
    assert not words_of(f"{text.title} {text.description}") & known
    assert len(text.title.split()) == 7


def test_every_theme_is_described() -> None:
    assert set(THEMES) == set(WORDS["theme"])
