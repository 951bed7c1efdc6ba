"""Options of the training verbs: a flag beats the settings file, the file the preset, the preset the defaults."""

from pathlib import Path

import pytest

from modalmix.cli.train_options import TrainOptions, parse_training
from modalmix.models.contract import ModelConfig
from modalmix.models.mamex import MamexConfig as Settings
from modalmix.train.source import DataConfig


def parsed(folder: Path, file: str, *flags: str) -> TrainOptions:
    """The options of a verb that encodes raw content, with this settings file and these flags."""
    path = folder / "settings.yaml"
    path.write_text(file)
    flags = ("shop", "--config", str(path), *flags)
    return parse_training(flags, "run", "Run", data=DataConfig(features="raw"))


@pytest.fixture
def paper() -> ModelConfig:
    preset = Settings.preset("paper", dim=16)
    assert preset != Settings.preset("default", dim=16)
    return preset


def test_the_files_settings_change_the_files_preset(tmp_path: Path, paper: ModelConfig) -> None:
    options = parsed(tmp_path, "{model: mamex, preset: paper, settings: {dim: 16}}")
    assert options.settings.model_dump() == paper.model_dump()


def test_the_files_settings_change_the_preset_of_the_flag(tmp_path: Path, paper: ModelConfig) -> None:
    options = parsed(tmp_path, "{model: mamex, settings: {dim: 16}}", "--preset", "paper")
    assert options.settings.model_dump() == paper.model_dump()


def test_a_flag_wins_over_the_files_settings(tmp_path: Path, paper: ModelConfig) -> None:
    options = parsed(tmp_path, "{model: mamex, preset: paper, settings: {dim: 32}}", "--dim", "16")
    assert options.settings.model_dump() == paper.model_dump()


def test_the_files_settings_win_over_the_preset(tmp_path: Path) -> None:
    name, value = next(iter(Settings.presets["paper"].items()))
    default = Settings().model_dump(mode="json")[name]
    assert default != value
    options = parsed(tmp_path, f"{{model: mamex, preset: paper, settings: {{{name}: {default}}}}}")
    assert getattr(options.settings, name) == default


def test_the_preset_of_the_flag_wins_over_the_files(tmp_path: Path) -> None:
    options = parsed(tmp_path, "{model: mamex, preset: paper, settings: {dim: 16}}", "--preset", "default")
    assert options.settings.model_dump() == Settings(dim=16).model_dump()


def test_a_data_block_keeps_the_verbs_features(tmp_path: Path) -> None:
    options = parsed(tmp_path, "{model: mamex, data: {modalities: [image], reader: {min_rating: 4}}}")
    assert (options.data.features, options.data.modalities, options.data.reader.min_rating) == ("raw", ("image",), 4)


def test_a_flag_beside_a_data_block_changes_only_its_own(tmp_path: Path) -> None:
    options = parsed(tmp_path, "{model: mamex, data: {reader: {min_rating: 4}}}", "--k-core", "3")
    assert (options.data.reader.min_rating, options.data.reader.k_core) == (4, 3)
