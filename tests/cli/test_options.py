"""Flags win over the settings file, the file over the defaults; mistakes are named."""

from pathlib import Path

import pytest
import tyro

from modalmix.cli.options import parse, take_flag
from modalmix.config import Config
from modalmix.errors import ConfigError


class Part(Config):
    """A part."""

    kind: str = "auto"
    """The kind."""
    seed: int = 1
    """The seed."""


class Options(Config):
    """Options."""

    folder: tyro.conf.Positional[Path]
    """Where."""
    k: int = 10
    """Length."""
    part: Part = Part()
    """A part."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "settings.yaml"
    path.write_text("k: 3\npart:\n  kind: file\n  seed: 7\n")
    return path


def test_flags_win_over_the_file_and_the_file_over_defaults(file: Path) -> None:
    options = parse(Options, ["here", "--config", str(file), "--part.kind", "flag"], "x", "X")
    assert (options.folder, options.k, options.part.kind, options.part.seed) == (Path("here"), 3, "flag", 7)


class Verb(Options):
    """Options of a verb with a default of its own."""

    part: Part = Part(kind="verb", seed=5)
    """A part."""


def test_a_block_in_the_file_leaves_the_verbs_defaults_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("part: {seed: 7}\n")
    assert parse(Verb, ["here", "--config", str(path)], "x", "X").part == Part(kind="verb", seed=7)


def test_short_flags_stand_for_long_ones() -> None:
    for arguments in (["f", "--kind", "b"], ["f", "--kind=b"]):
        assert parse(Options, arguments, "x", "X", {"--kind": "--part.kind"}).part.kind == "b"


def test_an_unknown_key_in_the_file_names_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("part:\n  sed: 7\n")
    with pytest.raises(ConfigError, match="'sed'. Did you mean 'seed'"):
        parse(Options, ["f", "--config", str(path)], "x", "X")
    path.write_text("prt: {}\n")
    with pytest.raises(ConfigError, match="'prt'. Did you mean 'part'"):
        parse(Options, ["f", "--config", str(path)], "x", "X")


def test_help_shows_the_docstrings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(Options, ["--help"], "verb", "What it does")
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "The seed." in shown
    assert "modalmix verb" in shown


def test_an_unknown_flag_stops_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(Options, ["f", "--part.sed", "4"], "x", "X")
    assert stop.value.code == 2


def test_take_flag() -> None:
    assert take_flag(["a", "--x", "1", "b"], "--x") == (["a", "b"], "1")
    assert take_flag(["--x=1", "b"], "--x") == (["b"], "1")
    assert take_flag(["b"], "--x") == (["b"], None)
    with pytest.raises(ConfigError, match="needs a value"):
        take_flag(["--x"], "--x")
