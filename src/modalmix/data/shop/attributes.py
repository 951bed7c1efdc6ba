"""What an item of the planted shop may be: the attributes a picture shows, those a text tells, and the categories.

Every attribute is drawn on its own, so that a look says nothing about the words, the category or the hidden cluster.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float32, Int8

Attributes = Mapping[str, tuple[str, ...]]

LOOKS: Attributes = {
    "colour": ("red", "orange", "yellow", "green", "teal", "blue", "purple", "pink"),
    "shape": ("vase", "bottle", "bowl", "mug", "lamp", "cushion"),
    "pattern": ("plain", "stripes", "dots", "checks", "zigzag"),
}
WORDS: Attributes = {
    "material": ("walnut", "brass", "linen", "bamboo", "leather", "marble", "wool", "glass"),
    "style": ("rustic", "modern", "vintage", "industrial", "bohemian", "nordic"),
    "theme": ("forest", "ocean", "space", "music", "circus", "desert"),
}
# the category and the word that a title uses for it
CATEGORIES: Mapping[str, str] = {
    "Kitchen": "kitchen",
    "Garden": "patio",
    "Bath": "bathroom",
    "Bedroom": "bedside",
    "Office": "desk",
    "Kids": "nursery",
    "Hallway": "hallway",
    "Dining": "dinner table",
    "Library": "bookshelf",
    "Hobby": "workshop",
    "Travel": "camper van",
    "Party": "party",
}


def sizes(attributes: Attributes) -> list[int]:
    """Number of values of each attribute."""
    return [len(values) for values in attributes.values()]


def draw(attributes: Attributes, items: int, rng: np.random.Generator) -> Int8[np.ndarray, "items attributes"]:
    """Values of each attribute for each item, uniform and independent."""
    return rng.integers(0, sizes(attributes), (items, len(attributes)), dtype=np.int8)


def one_hot(values: Int8[np.ndarray, "items attributes"], of: Sequence[int]) -> Float32[np.ndarray, "items values"]:
    """The one-hot codes of all attributes side by side, where attribute a has of[a] values."""
    columns = values + np.concatenate([[0], np.cumsum(of)[:-1]]).astype(np.int64)
    codes = np.zeros((len(values), sum(of)), dtype=np.float32)
    np.put_along_axis(codes, columns, 1.0, axis=1)
    return codes


def names(attributes: Attributes, values: Int8[np.ndarray, " attributes"]) -> dict[str, str]:
    """The value of each attribute as a word: {"colour": "red", ...}."""
    return {name: words[value] for (name, words), value in zip(attributes.items(), values, strict=True)}
