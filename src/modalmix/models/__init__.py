"""One file a model: file name = model name = command-line name = test id. Importing this needs no torch."""

import ast
from pathlib import Path

_FOLDER = Path(__file__).parent


def names() -> list[str]:
    """The names of the models in the package, in alphabetical order."""
    return sorted(path.stem for path in _FOLDER.glob("*.py") if path.stem != "__init__")


def describe() -> dict[str, str]:
    """Name -> first line of the model file's docstring, read without importing it."""
    titles = {}
    for name in names():
        tree = ast.parse((_FOLDER / f"{name}.py").read_text(encoding="utf-8"))
        titles[name] = (ast.get_docstring(tree) or "").split("\n")[0]
    return titles
