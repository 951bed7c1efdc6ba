"""Flags and settings files become validated settings. Flags win over the file, the file over the defaults."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, cast

import pydantic
import tyro

from modalmix.config import Config, explain, read_settings
from modalmix.errors import ConfigError, nearest

Options = TypeVar("Options", bound=Config)


def parse(
    options: type[Options], arguments: Sequence[str], verb: str, title: str, short: Mapping[str, str] | None = None
) -> Options:
    """The options of one verb. Prints help or a usage error and exits, as command-line programs do.

    `--config FILE` (YAML or JSON) gives values that flags override. `short` maps short flags to full ones, e.g.
    {"--split": "--split.kind"}. Raises ConfigError for what the file gets wrong, and for impossible settings.
    """
    short = short or {}
    arguments, file = take_flag(list(arguments), "--config")
    notes = [f"{flag} = {full}" for flag, full in short.items()]
    call: dict[str, Any] = {
        "args": [_lengthen(argument, short) for argument in arguments],
        "prog": f"modalmix {verb}",
        "description": "\n".join([title, "--config FILE reads settings from YAML or JSON; flags win.", *notes]),
    }
    if file:
        call["default"] = _defaults(options, read_settings(file))
    try:
        return tyro.cli(options, **call)
    except pydantic.ValidationError as error:
        raise explain(options, error) from None


def take_flag(arguments: list[str], flag: str) -> tuple[list[str], str | None]:
    """The arguments without `flag VALUE` (or `flag=VALUE`), and the value. Raises ConfigError when it is missing."""
    for place, argument in enumerate(arguments):
        if argument == flag:
            if place + 1 == len(arguments):
                raise ConfigError(f"flag {flag} needs a value")
            return arguments[:place] + arguments[place + 2 :], arguments[place + 1]
        if argument.startswith(flag + "="):
            return arguments[:place] + arguments[place + 1 :], argument[len(flag) + 1 :]
    return arguments, None


def _lengthen(argument: str, short: Mapping[str, str]) -> str:
    flag, equals, value = argument.partition("=")
    return short.get(flag, flag) + equals + value


def _defaults(options: type[Options], values: Mapping[str, Any]) -> Options:
    """Options that hold the file's values; what only flags can give stays missing."""
    filled: dict[str, Any] = {}
    for name, value in values.items():
        field = options.model_fields.get(name)
        if field is None:
            raise ConfigError(f"the settings file has no setting '{name}'", fix=nearest(name, options.model_fields))
        default = field.get_default(call_default_factory=True)  # the verb's or the preset's, not always the class's
        filled[name] = default.merge(value) if isinstance(default, Config) else value
    for name, field in options.model_fields.items():
        if name not in filled:
            filled[name] = tyro.MISSING if field.is_required() else field.get_default(call_default_factory=True)
    return cast(Options, options.model_construct(**filled))
