"""A planted shop: a data set whose truth is known."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import polars as pl
from jaxtyping import Bool, Float32, Int8
from PIL import Image

from modalmix.data.catalog import Catalog
from modalmix.data.dataset import Dataset
from modalmix.data.ids import IdMap
from modalmix.data.modality import Modality
from modalmix.data.shop.attributes import CATEGORIES, LOOKS, WORDS, names, one_hot
from modalmix.data.shop.config import ShopConfig
from modalmix.data.shop.events import draw_events
from modalmix.data.shop.pictures import draw, draw_noise
from modalmix.data.shop.titles import Text, write, write_noise
from modalmix.data.shop.truth import MISSING, NOISE, Truth, draw_truth, stream
from modalmix.errors import ModelError, nearest

NAME = "planted-shop"
MODALITIES = ("image", "text")


@dataclass(frozen=True, eq=False)
class Shop:
    """A planted shop. `dataset` has the catalogue (title, description, categories) and the events, but no features.

    `truth` is the known answer. `random[e]` is True where event e follows no taste.
    """

    dataset: Dataset
    truth: Truth
    random: Bool[np.ndarray, " events"]

    @property
    def config(self) -> ShopConfig:
        """The settings it was planted from."""
        return self.truth.config

    def picture(self, row: int) -> Image.Image | None:
        """The picture of the item in that row, drawn now; None where it is missing. The same one every time."""
        rng = stream(self.config.seed, "picture", row)
        if self.truth.image[row] == MISSING:
            return None
        if self.truth.image[row] == NOISE:
            return draw_noise(self.config.image_size, rng)
        return draw(names(LOOKS, self.truth.look[row]), self.config.image_size, rng)

    def features(self, name: str) -> Modality:
        """What a perfect encoder would give. Raises ModelError for a name other than "image" and "text".

        image (items, 19): one-hot looks. text (items, 20 + categories): one-hot words and category. All with noise of
        standard deviation `feature_noise`; noise items have noise of the same mean length; missing ones are absent.
        """
        truth, rng = self.truth, stream(self.config.seed, f"{name} features")
        if name == "image":
            return _modality(name, truth.look_codes, truth.image, self.config.feature_noise, rng)
        if name == "text":
            category = one_hot(truth.category[:, None], [self.config.categories])
            codes = np.concatenate([truth.word_codes, category], axis=1)
            return _modality(name, codes, truth.text, self.config.feature_noise, rng)
        raise ModelError(f"the planted shop has no modality '{name}'", fix=nearest(name, MODALITIES))

    @cached_property
    def _with_features(self) -> Dataset:
        modalities = {name: self.features(name) for name in MODALITIES}
        return replace(self.dataset, catalog=replace(self.dataset.catalog, modalities=modalities))

    def dataset_with_features(self) -> Dataset:
        """The data set with the planted features as modalities image and text: no encoder needed."""
        return self._with_features


def plant(config: ShopConfig | None = None) -> Shop:
    """The shop of these settings. The same settings give the same events, titles and pictures, bit for bit."""
    truth = draw_truth(config or ShopConfig())
    events, is_random = draw_events(truth)
    items = IdMap(_ids("A", truth.config.items), "item")
    users = IdMap(_ids("U", truth.config.users), "user")
    catalog = Catalog(items, table=_table(truth, items))
    counts = {"random events": int(is_random.sum())}
    return Shop(Dataset(NAME, users, catalog, events, counts=counts), truth, is_random)


def _ids(letter: str, count: int) -> list[str]:
    """A0000, A0001, ...: all of the same length, so that they sort as they count."""
    digits = max(4, len(str(count - 1)))
    return [f"{letter}{row:0{digits}}" for row in range(count)]


def _table(truth: Truth, items: IdMap) -> pl.DataFrame:
    """One row an item: what the shop says about it."""
    texts = [_text(truth, row) for row in range(len(items))]
    known = list(CATEGORIES)
    return pl.DataFrame(
        {
            "item": items.series,
            "title": [text and text.title for text in texts],
            "description": [text and text.description for text in texts],
            "categories": [[known[category]] for category in truth.category],
        },
        schema={"item": pl.String, "title": pl.String, "description": pl.String, "categories": pl.List(pl.String)},
    )


def _text(truth: Truth, row: int) -> Text | None:
    """What is written about the item in that row."""
    rng = stream(truth.config.seed, "text of item", row)
    if truth.text[row] == MISSING:
        return None
    if truth.text[row] == NOISE:
        return write_noise(rng)
    return write(names(WORDS, truth.words[row]), list(CATEGORIES.values())[truth.category[row]], rng)


def _modality(
    name: str,
    codes: Float32[np.ndarray, "items values"],
    states: Int8[np.ndarray, " items"],
    spread: float,
    rng: np.random.Generator,
) -> Modality:
    """Codes with noise, noise instead of codes, or absent (NaN), as the state of each item says."""
    noise = rng.standard_normal((2, *codes.shape), dtype=np.float32)
    features = codes + np.float32(spread) * noise[0]
    length = np.sqrt((codes**2).sum(axis=1).mean() / codes.shape[1] + spread**2)  # of an entry, root mean square
    features[states == NOISE] = np.float32(length) * noise[1][states == NOISE]
    features[states == MISSING] = np.nan
    return Modality.from_matrix(name, features, provenance={"source": NAME, "spread": spread})
