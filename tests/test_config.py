"""Settings: frozen, an unknown key names the nearest one, YAML and JSON in and out."""

from pathlib import Path

import pydantic
import pytest

from modalmix.config import Config, read_settings
from modalmix.errors import ConfigError


class Inner(Config):
    """Nested settings."""

    ratio: float = 0.5
    """A share."""


class Outer(Config):
    """Settings."""

    epochs: int = 3
    """Most epochs."""
    inner: Inner = Inner()
    """Nested."""


def test_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no setting 'epoch'. Did you mean 'epochs'?"):
        Outer.parse({"epoch": 4})


def test_unknown_nested_key_names_the_nearest_there() -> None:
    with pytest.raises(ConfigError, match=r"inner\.ration.*Did you mean 'ratio'"):
        Outer.parse({"inner": {"ration": 1}})


def test_wrong_type_and_infinity_are_errors() -> None:
    with pytest.raises(ConfigError, match=r"Outer\.epochs: got 'many', expected .*integer"):
        Outer.parse({"epochs": "many"})
    with pytest.raises(ConfigError, match="finite"):
        Outer.parse({"inner": {"ratio": float("inf")}})


def test_settings_are_frozen_and_replace_validates() -> None:
    with pytest.raises(pydantic.ValidationError):
        Outer().epochs = 5  # type: ignore[misc]
    assert Outer().replace(epochs=5).epochs == 5
    with pytest.raises(ConfigError):
        Outer().replace(epochs="x")


class Outermost(Config):
    """Settings two levels deep."""

    outer: Outer = Outer(epochs=9, inner=Inner(ratio=0.1))
    """Nested, with defaults of its own."""


def test_merge_keeps_what_a_nested_mapping_does_not_name() -> None:
    merged = Outermost().merge({"outer": {"inner": {"ratio": 0.2}}})
    assert (merged.outer.epochs, merged.outer.inner.ratio) == (9, 0.2)
    assert Outermost().merge({"outer": {"epochs": 8}}).outer.inner.ratio == 0.1


def test_merge_names_unknown_keys_and_what_is_no_mapping() -> None:
    with pytest.raises(ConfigError, match=r"outer\.inner\.ration.*Did you mean 'ratio'"):
        Outermost().merge({"outer": {"inner": {"ration": 1}}})
    with pytest.raises(ConfigError, match=r"Outermost\.outer: got 'many'"):
        Outermost().merge({"outer": "many"})
    with pytest.raises(ConfigError, match="expected a mapping"):
        Outermost().merge(["outer"])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["settings.yaml", "settings.json"])
def test_write_and_read_round_trip(tmp_path: Path, name: str) -> None:
    settings = Outer(epochs=7, inner=Inner(ratio=0.25))
    settings.write(tmp_path / name)
    assert Outer.read(tmp_path / name) == settings


@pytest.mark.parametrize("content", [b"- 1\n- 2\n", b"\xff\xfe\x00", b"a: [1"])
def test_unreadable_settings_files_are_errors(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        read_settings(path)


def test_a_missing_file_and_an_empty_one_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_settings(tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").touch()
    with pytest.raises(ConfigError, match="empty"):
        read_settings(tmp_path / "empty.yaml")


def test_text_where_a_mapping_belongs_is_an_error() -> None:
    with pytest.raises(ConfigError, match="Outer: got 'cold-item', expected a mapping"):
        Outer.parse("cold-item")  # type: ignore[arg-type]


def test_every_field_has_a_help_text() -> None:
    assert Outer.model_fields["epochs"].description == "Most epochs."
