"""List the models, or show the settings of one."""

import sys


def main(arguments: list[str]) -> int:
    """`modalmix models [NAME] [--json]`. Without NAME nothing heavy is imported."""
    as_json = "--json" in arguments
    rest = [argument for argument in arguments if argument != "--json"]
    if "-h" in rest or "--help" in rest:
        print("usage: modalmix models [NAME or PATH.py] [--json]\n\nList the models, or show the settings of one.")
        return 0
    return _show(rest[0], as_json) if rest else _list(as_json)


def _list(as_json: bool) -> int:
    from modalmix.models import describe

    titles = describe()
    if as_json:
        import json

        print(json.dumps(titles, indent=2))
        return 0
    width = max(len(name) for name in titles)
    for name, title in titles.items():
        print(f"{name.ljust(width)}  {title}")
    return 0


def _show(name: str, as_json: bool) -> int:
    from modalmix.models.contract import find_model

    config = find_model(name).config
    fields = {
        key: {"default": value.default, "type": str(value.annotation), "help": value.description or ""}
        for key, value in config.model_fields.items()
    }
    if as_json:
        import json

        print(json.dumps({"settings": fields, "presets": dict(config.presets)}, indent=2, default=str))
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table("setting", "default", "meaning", title=f"{name}: presets default, {', '.join(config.presets) or '-'}")
    for key, value in fields.items():
        table.add_row(key, str(value["default"]), str(value["help"]))
    Console(file=sys.stdout, markup=False, emoji=False).print(table)
    return 0
