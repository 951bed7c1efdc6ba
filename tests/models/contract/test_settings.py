"""Presets."""

from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from modalmix.errors import ConfigError, ModelError
from modalmix.models.contract import GradientConfig


class Settings(GradientConfig):
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"dim": 128}}


def test_a_preset_changes_the_defaults_and_gives_way_to_what_is_said() -> None:
    assert Settings.preset("default") == Settings()
    assert Settings.preset("paper").dim == 128
    assert Settings.preset("paper", dim=7, lr=0.5).model_dump() == {**Settings().model_dump(), "dim": 7, "lr": 0.5}


def test_unknown_preset_and_unknown_setting() -> None:
    with pytest.raises(ModelError, match="default, paper"):
        Settings.preset("papre")
    with pytest.raises(ConfigError, match="Did you mean 'reg'"):
        Settings.preset("paper", regs=1)


@pytest.mark.parametrize("wrong", [{"lr": 0}, {"batch_size": 0}, {"epochs": 0}, {"lr": float("nan")}])
def test_impossible_values(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Settings.parse(wrong)
