"""The base of all settings: frozen pydantic models that live beside the class they configure.

A field's docstring becomes its help text. An unknown key is an error that names the nearest known one.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import pydantic
import yaml

from modalmix.errors import ConfigError, nearest


class Config(pydantic.BaseModel):
    """Frozen settings. `Config.read(path)` and `config.write(path)` speak YAML and JSON."""

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    @classmethod
    def parse(cls, settings: Mapping[str, Any]) -> Self:
        """Settings from a mapping. Raises ConfigError naming the key, the value and the nearest known key."""
        if not isinstance(settings, Mapping):
            raise ConfigError(cls.__name__, got=repr(settings), expected="a mapping of names to values")
        try:
            return cls.model_validate(dict(settings))
        except pydantic.ValidationError as error:
            raise explain(cls, error) from None

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """Settings from a .yaml, .yml or .json file. Raises ConfigError."""
        return cls.parse(read_settings(path))

    def replace(self, **changes: Any) -> Self:
        """The same settings with some changed, validated again. Raises ConfigError."""
        return self.parse({**dict(self), **changes})  # a dump would know nested settings by their declared class alone

    def merge(self, changes: Mapping[str, Any]) -> Self:
        """As `replace`, but a mapping for nested settings changes what it names and leaves the rest of them."""
        return self.parse(_merged(self, changes) if isinstance(changes, Mapping) else changes)

    def write(self, path: Path | str) -> None:
        """Write all settings, defaults included, as YAML, or as JSON where the name ends in .json."""
        values = self.model_dump(mode="json")
        as_json = Path(path).suffix == ".json"
        text = json.dumps(values, indent=2) + "\n" if as_json else yaml.safe_dump(values, sort_keys=False)
        Path(path).write_text(text, encoding="utf-8")


def read_settings(path: Path | str) -> dict[str, Any]:
    """The mapping in a YAML or JSON file. Raises ConfigError when it cannot be read or holds no mapping."""
    path = Path(path)
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))  # JSON is YAML
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"settings file {path} cannot be read", got=error, expected="YAML or JSON") from error
    if values is None:
        raise ConfigError(f"settings file {path} is empty", expected="a mapping of names to values")
    if not isinstance(values, dict):
        raise ConfigError(f"settings file {path}", got=type(values).__name__, expected="a mapping of names to values")
    return values


def explain(cls: type[Config], error: pydantic.ValidationError) -> ConfigError:
    """The first problem of a validation error in our words."""
    first = error.errors()[0]
    location = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = _fields_at(cls, first["loc"][:-1])
        return ConfigError(f"{cls.__name__} has no setting '{location}'", fix=nearest(str(first["loc"][-1]), known))
    if not location:  # settings that contradict one another
        return ConfigError(cls.__name__, expected=first["msg"].removeprefix("Value error, "))
    thing = f"{cls.__name__}.{location}"
    return ConfigError(thing, got=repr(first.get("input")), expected=first["msg"])


def _merged(settings: Config, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `settings`, those in `changes` changed; not validated."""
    values: dict[str, Any] = dict(settings)
    for name, value in changes.items():
        nested = values.get(name)
        values[name] = _merged(nested, value) if isinstance(nested, Config) and isinstance(value, Mapping) else value
    return values


def _fields_at(cls: type[pydantic.BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The field names of the settings nested at `location`."""
    for part in location:
        field = cls.model_fields.get(str(part))
        annotation = field.annotation if field else None
        if not (isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel)):
            return []
        cls = annotation
    return list(cls.model_fields)
