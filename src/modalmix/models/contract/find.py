"""Find a model by name or path. No registry: the file is the registration."""

import importlib
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from modalmix.errors import ModelError, nearest
from modalmix.models import names
from modalmix.models.contract.recommender import Recommender
from modalmix.models.contract.settings import ModelConfig


@dataclass(frozen=True)
class ModelType:
    """A model's name, class and settings class."""

    name: str
    recommender: type[Recommender[Any]]
    config: type[ModelConfig]


def find_model(name: str) -> ModelType:
    """The model of that name, or the one in the file at that path (`my_model.py`).

    Raises ModelError for an unknown name (with the nearest), a missing file, or a file without exactly one model.
    """
    module = _load_path(Path(name)) if name.endswith(".py") else _load_name(name)
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, Recommender)
        and value.__module__ == module.__name__
        and not getattr(value, "__abstractmethods__", None)
    ]
    if len(found) != 1:
        raise ModelError(f"model file {name}", got=f"{len(found)} models", expected="one concrete Recommender class")
    return ModelType(name, found[0], _config_of(found[0]))


def _load_name(name: str) -> ModuleType:
    if name not in names():
        raise ModelError(f"there is no model '{name}'", fix=nearest(name, names()) + " Or give the path of a .py file.")
    return importlib.import_module(f"modalmix.models.{name}")


def _load_path(path: Path) -> ModuleType:
    path = path.resolve()
    if not path.is_file():
        raise ModelError(f"model file {path} does not exist")
    module_name = f"modalmix_model_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ModelError(f"model file {path} is not Python")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the file does wrong is the file's
        raise ModelError(f"model file {path} cannot be imported", got=f"{type(error).__name__}: {error}") from error
    return module


def _config_of(recommender: type[Recommender[Any]]) -> type[ModelConfig]:
    """The settings class: the C of Recommender[C] in the class statement."""
    for base in getattr(recommender, "__orig_bases__", ()):
        for argument in get_args(base):
            if isinstance(argument, type) and issubclass(argument, ModelConfig):
                return argument
    raise ModelError(
        f"{recommender.__name__} names no settings", fix="Write class Model(GradientRecommender[Settings])."
    )
