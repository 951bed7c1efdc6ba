"""Settings of the planted shop."""

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from modalmix.config import Config
from modalmix.data.shop.attributes import CATEGORIES

Share = Annotated[float, Field(ge=0, le=1)]


class ShopConfig(Config):
    """What shop to plant. One seed gives one world: asking for missing or noisy content changes nothing else in it."""

    users: int = Field(default=600, ge=1)
    """Number of users."""
    items: int = Field(default=800, ge=1)
    """Number of items."""
    categories: int = Field(default=8, ge=1, le=len(CATEGORIES))
    """Number of categories."""
    clusters: int = Field(default=16, ge=1)
    """Number of hidden clusters of items, which neither picture nor text shows."""
    events_per_user: float = Field(default=20.0, ge=1)
    """Mean number of events of a user; nobody buys more than half of the catalogue."""
    look_share: Share = 0.4
    """Share of users who choose by the look of an item: colour, shape, pattern."""
    word_share: Share = 0.4
    """Share of users who choose by its words: material, style, theme."""
    behaviour_share: Share = 0.2
    """Share of users who choose by hidden cluster, so that only the behaviour of others predicts them."""
    category_modality: Literal["free", "alternate"] = "free"
    """free: a user follows looks or words everywhere. alternate: all of them follow words in even categories
    (0, 2, ...) and looks in odd ones."""
    sharpness: float = Field(default=3.0, ge=0)
    """How strongly taste decides: an item a standard deviation nearer to it is exp(sharpness) times as likely."""
    popularity: float = Field(default=0.5, ge=0)
    """Skew of popularity: the item of rank r is chosen in proportion to r ** -popularity, taste aside."""
    noise: Share = 0.1
    """Share of events that follow nothing: a random item."""
    visits: int = Field(default=1, ge=1)
    """Visits a user pays to each category; the events of a visit lie within an hour."""
    missing_image: Share = 0.0
    """Share of items without a picture."""
    missing_text: Share = 0.0
    """Share of items without title and description; their category stays."""
    noise_image: Share = 0.0
    """Share of the pictures that are noise instead of the item."""
    noise_text: Share = 0.0
    """Share of the texts that are invented words."""
    feature_noise: float = Field(default=0.1, ge=0)
    """Standard deviation of the noise on the planted features, whose clean entries are 0 and 1."""
    image_size: int = Field(default=64, ge=16, le=1024)
    """Width and height of a picture in pixels."""
    seed: int = Field(default=2025, ge=0)
    """Seed of everything."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        shares = self.look_share + self.word_share + self.behaviour_share
        if not math.isclose(shares, 1.0, abs_tol=1e-6):
            raise ValueError(f"look_share + word_share + behaviour_share equal to 1, not {shares:g}")
        if self.category_modality == "alternate" and self.categories < 2:
            raise ValueError("categories at least 2 where category_modality=alternate")
        return self
