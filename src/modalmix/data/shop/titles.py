"""Titles and descriptions that tell an item's words and category, and nothing of its look."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

BRANDS = ("Halden", "Orsini", "Tamsin & Co", "Kestrel", "Maris", "Oakhurst", "Lumen", "Pellow", "Svala", "Dovetail")
NOUNS = ("accent", "ornament", "keepsake", "piece")
TITLES = (
    "{brand} {style} {place} {noun} with {material} trim, {theme} theme",
    "{style} {place} {noun} by {brand}: {theme} collection, {material} trim",
    "{theme} {place} {noun} in {style} style with {material} details, {brand}",
)
OPENINGS = (
    "In {style} style: one {noun} for your {place}.",
    "This {place} {noun} brings {style} charm home.",
    "Looking for a gift in {style} style? Here is one for the {place}.",
)
MATERIALS = (
    "The details are made of {material}.",
    "Finished by hand with {material}.",
    "Its trim of real {material} ages well.",
)
THEMES: Mapping[str, str] = {
    "forest": "Inspired by the forest: pine trees, moss and foxes.",
    "ocean": "Inspired by the ocean: waves, shells and whales.",
    "space": "Inspired by space: planets, stars and rockets.",
    "music": "Inspired by music: guitars, melodies and concert halls.",
    "circus": "Inspired by the circus: acrobats, clowns and big tents.",
    "desert": "Inspired by the desert: dunes, cacti and camels.",
}
SYLLABLES = (
    "ba",
    "den",
    "fi",
    "gor",
    "hul",
    "ja",
    "ket",
    "lo",
    "mir",
    "nos",
    "pu",
    "ra",
    "sev",
    "tol",
    "vi",
    "wex",
    "zam",
)


class Text(NamedTuple):
    """What is written about an item."""

    title: str
    description: str


def write(words: Mapping[str, str], place: str, rng: np.random.Generator) -> Text:
    """Title and description of an item with the given material, style and theme, for a place of the house."""
    told = {**words, "place": place, "noun": _one(NOUNS, rng), "brand": _one(BRANDS, rng)}
    title = _one(TITLES, rng).format_map(told)
    sentences = (_one(OPENINGS, rng), _one(MATERIALS, rng), THEMES[words["theme"]])
    return Text(title[0].upper() + title[1:], " ".join(sentences).format_map(told))


def write_noise(rng: np.random.Generator) -> Text:
    """Title and description of invented words."""
    return Text(_invented(7, rng).capitalize(), _invented(18, rng).capitalize() + ".")


def _one(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def _invented(words: int, rng: np.random.Generator) -> str:
    lengths = rng.integers(2, 4, words)
    return " ".join("".join(_one(SYLLABLES, rng) for _ in range(length)) for length in lengths)
