"""Settings that models share: the same word for the same thing in every model."""

from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field

from modalmix.config import Config
from modalmix.errors import ModelError


class ModelConfig(Config):
    """Settings every model has. A preset is a named set of changes to the defaults.

    An ablation is a named set of changes that takes one part out of the model, on top of whatever settings are chosen:
    {"no-gate": {"gate": "mean"}}. `modalmix ablate` trains each of them beside the whole model.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    came_later: ClassVar[Mapping[str, Any]] = {}
    """Settings that older runs do not have, and what these were trained with; none whose default changes nothing."""

    def useful_ablations(self) -> Mapping[str, Mapping[str, Any]]:
        """Those that take something out of a model of these settings: all, unless a model says otherwise."""
        return self.ablations

    def uses_categories(self) -> bool:
        """Whether a model of these settings learns from categories of items, those in its `category_column`."""
        return False

    @classmethod
    def recorded(cls, values: Mapping[str, Any]) -> Self:
        """The settings in the record of a run, maybe an older one. Raises ConfigError for what is no setting now."""
        return cls.parse({**cls.came_later, **values})

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """The settings of a preset ("default" always exists). Raises ModelError for an unknown name."""
        known = {"default": {}, **cls.presets}
        if name not in known:
            raise ModelError(f"{cls.__module__} has no preset '{name}'", expected=f"one of {', '.join(known)}")
        return cls.parse({**known[name], **changes})


class GradientConfig(ModelConfig):
    """Settings of a model that the training loop trains."""

    dim: int = Field(default=64, ge=1)
    """Length of user and item vectors."""
    lr: float = Field(default=1e-3, gt=0)
    """Learning rate of Adam."""
    reg: float = Field(default=1e-4, ge=0)
    """Weight of the L2 penalty on the vectors of a batch."""
    batch_size: int = Field(default=2048, ge=1)
    """Training examples a step."""
    epochs: int = Field(default=300, ge=1)
    """Most epochs."""
    patience: int = Field(default=20, ge=1)
    """Epochs without a better validation score before training stops."""
    eval_every: int = Field(default=1, ge=1)
    """Epochs between validations."""
    seed: int = Field(default=2025, ge=0)
    """Seed of initialisation, order, negatives and dropout."""
