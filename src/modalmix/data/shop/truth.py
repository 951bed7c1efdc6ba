"""What is true in a planted shop: every item's attributes, every user's taste, and the affinity that follows."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Int, Int8, Int16

from modalmix.data.shop.attributes import LOOKS, WORDS, draw, one_hot, sizes
from modalmix.data.shop.config import ShopConfig

GROUPS = ("look", "word", "behaviour", "category")
STATES = ("clean", "noise", "missing")
CLEAN, NOISE, MISSING = range(len(STATES))


def stream(seed: int, purpose: str, *rows: int) -> np.random.Generator:
    """The random numbers for one purpose; no purpose disturbs another."""
    return np.random.default_rng([seed, zlib.crc32(purpose.encode()), *rows])


@dataclass(frozen=True, eq=False)
class Truth:
    """The known answer. Attributes are positions in `LOOKS` and `WORDS`, groups in `GROUPS`, states in `STATES`.

    `popularity` is the log weight of an item whatever the taste. The group `category` exists in alternate shops only.
    """

    config: ShopConfig
    category: Int8[np.ndarray, " items"]
    look: Int8[np.ndarray, "items looks"]
    words: Int8[np.ndarray, "items words"]
    cluster: Int16[np.ndarray, " items"]
    popularity: Float32[np.ndarray, " items"]
    image: Int8[np.ndarray, " items"]
    text: Int8[np.ndarray, " items"]
    group: Int8[np.ndarray, " users"]
    look_taste: Float32[np.ndarray, "users look_values"]
    word_taste: Float32[np.ndarray, "users word_values"]
    cluster_taste: Float32[np.ndarray, "users clusters"]

    @cached_property
    def look_codes(self) -> Float32[np.ndarray, "items look_values"]:
        """One-hot looks."""
        return one_hot(self.look, sizes(LOOKS))

    @cached_property
    def word_codes(self) -> Float32[np.ndarray, "items word_values"]:
        """One-hot words."""
        return one_hot(self.words, sizes(WORDS))

    def members(self, group: str) -> Int[np.ndarray, " members"]:
        """Rows of the users of a group."""
        return np.flatnonzero(self.group == GROUPS.index(group))

    def affinity(self, users: Int[np.ndarray, " block"]) -> Float32[np.ndarray, "block items"]:
        """log of what the choice of each user is proportional to, random events aside: the oracle's scores.

        affinity(u, i) = sharpness * taste(u, i) + popularity(i). Ask for a block of users at a time.
        """
        taste = np.empty((len(users), len(self.category)), dtype=np.float32)
        groups = self.group[users]
        for code in np.unique(groups):
            chosen = groups == code
            taste[chosen] = self._taste(GROUPS[code], users[chosen])
        taste *= np.float32(self.config.sharpness)
        taste += self.popularity
        return taste

    def _taste(self, group: str, users: Int[np.ndarray, " block"]) -> Float32[np.ndarray, "block items"]:
        """How near each item is to the taste of users of one group; about standard normal over items."""
        if group == "look":
            return self.look_taste[users] @ self.look_codes.T
        if group == "word":
            return self.word_taste[users] @ self.word_codes.T
        if group == "behaviour":
            return self.cluster_taste[users][:, self.cluster]
        words_decide = self.category % 2 == 0
        return np.where(words_decide, self._taste("word", users), self._taste("look", users))


def draw_truth(config: ShopConfig) -> Truth:
    """The truth of a shop, from the seed."""
    seed, items = config.seed, config.items
    rank = 1 + stream(seed, "popularity").permutation(items)
    return Truth(
        config=config,
        category=stream(seed, "category").integers(0, config.categories, items, dtype=np.int8),
        look=draw(LOOKS, items, stream(seed, "look")),
        words=draw(WORDS, items, stream(seed, "words")),
        cluster=stream(seed, "cluster").integers(0, config.clusters, items).astype(np.int16),
        popularity=(-config.popularity * np.log(rank)).astype(np.float32),
        image=_states(items, config.missing_image, config.noise_image, stream(seed, "image")),
        text=_states(items, config.missing_text, config.noise_text, stream(seed, "text")),
        group=_groups(config, stream(seed, "group")),
        look_taste=_tastes(config.users, sizes(LOOKS), stream(seed, "look taste")),
        word_taste=_tastes(config.users, sizes(WORDS), stream(seed, "word taste")),
        cluster_taste=_tastes(config.users, [config.clusters], stream(seed, "cluster taste")),
    )


def _states(items: int, missing: float, noise: float, rng: np.random.Generator) -> Int8[np.ndarray, " items"]:
    """Exactly the share `missing` of items is missing, and the share `noise` of the others is noise."""
    order = rng.permutation(items)
    n_missing = round(missing * items)
    n_noise = round(noise * (items - n_missing))
    states = np.full(items, CLEAN, dtype=np.int8)
    states[order[:n_missing]] = MISSING
    states[order[items - n_noise :]] = NOISE  # from the other end: more missing moves no noise
    return states


def _groups(config: ShopConfig, rng: np.random.Generator) -> Int8[np.ndarray, " users"]:
    """Exactly the shares of each group, rounded so that they add up."""
    bounds = np.round(np.cumsum([config.look_share, config.word_share]) * config.users)
    by_rank = np.searchsorted(bounds, np.arange(config.users), side="right").astype(np.int8)
    groups = by_rank[rng.permutation(config.users)]
    if config.category_modality == "alternate":
        groups[groups != GROUPS.index("behaviour")] = GROUPS.index("category")
    return groups


def _tastes(users: int, of: Sequence[int], rng: np.random.Generator) -> Float32[np.ndarray, "users values"]:
    """A taste for each value of each attribute, where attribute a has of[a] values.

    Within an attribute a user's taste has mean 0 and variance 1 over its values, and attributes weigh the same, so that
    the taste for an item has about variance 1 however many attributes there are: no group is easier than another.
    """
    parts = []
    for values in of:
        taste = rng.standard_normal((users, values))
        taste -= taste.mean(axis=1, keepdims=True)
        spread = taste.std(axis=1, keepdims=True)
        parts.append(taste / np.where(spread > 0, spread, 1.0))
    return (np.concatenate(parts, axis=1) / np.sqrt(len(of))).astype(np.float32)
