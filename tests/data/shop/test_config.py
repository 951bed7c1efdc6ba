"""Settings of the planted shop: what is refused, and how it is said."""

import pytest

from modalmix.data.shop import ShopConfig
from modalmix.errors import ConfigError


def test_shares_must_sum_to_one() -> None:
    with pytest.raises(ConfigError, match=r"look_share \+ word_share \+ behaviour_share equal to 1, not 1\.1"):
        ShopConfig.parse({"look_share": 0.5})
    assert ShopConfig.parse({"look_share": 1 / 3, "word_share": 1 / 3, "behaviour_share": 1 / 3}).seed == 2025


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("users", 0),
        ("items", 0),
        ("items", -5),
        ("categories", 0),
        ("categories", 13),
        ("clusters", 0),
        ("events_per_user", 0),
        ("events_per_user", float("nan")),
        ("missing_image", 1.01),
        ("missing_text", -0.1),
        ("noise_image", 2),
        ("noise", -1),
        ("category_modality", "sometimes"),
        ("image_size", 8),
        ("visits", 0),
        ("seed", -1),
    ],
)
def test_an_impossible_value_is_named(setting: str, value: object) -> None:
    with pytest.raises(ConfigError, match=setting):
        ShopConfig.parse({setting: value})


def test_alternating_needs_two_categories() -> None:
    with pytest.raises(ConfigError, match="categories at least 2"):
        ShopConfig.parse({"category_modality": "alternate", "categories": 1})


def test_an_unknown_setting_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'missing_image'"):
        ShopConfig.parse({"missing_images": 0.5})


def test_every_setting_has_help() -> None:
    assert all(field.description for field in ShopConfig.model_fields.values())
