"""Variants of a model for an ablation: a part taken out of the model, a modality out of the data, labels made wrong."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast, final, get_args

from modalmix.data import perturb
from modalmix.data.dataset import Dataset
from modalmix.errors import ConfigError, ModelError, nearest
from modalmix.models.contract import ModelConfig, ModelType

Perturbation = Literal["only", "without", "noise", "shuffle"]
FULL = "full"
LABELS = "labels-"  # before a share: of the categories are wrong


@final
@dataclass(frozen=True)
class Variant:
    """Changes of the model's settings, or what is done to a modality or to labels; the full model has none."""

    name: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    perturbation: Perturbation | None = None
    modality: str = ""
    wrong: float = 0.0
    """Share of the labels in `column` of the items that are made wrong."""
    column: str = ""

    def settings(self, config: ModelConfig) -> ModelConfig:
        """The settings with the changes made. Raises ConfigError when they are unknown or contradict the others."""
        return config.replace(**self.changes)

    def dataset(self, dataset: Dataset, seed: int) -> Dataset:
        """The data set as this variant sees it; `seed` decides what is drawn. Raises ModelError, DataError."""
        if self.wrong:
            return perturb.wrong_labels(dataset, self.column, self.wrong, seed)
        match self.perturbation:
            case "only":
                return perturb.only(dataset, self.modality)
            case "without":
                return perturb.without(dataset, self.modality)
            case "noise":
                return perturb.noise(dataset, self.modality, seed)
            case "shuffle":
                return perturb.shuffle(dataset, self.modality, seed)
        return dataset

    def to_dict(self) -> dict[str, Any]:
        """What is different, JSON-able."""
        if self.wrong:
            return {"wrong": self.wrong, "column": self.column}
        return {"perturbation": self.perturbation, "modality": self.modality} if self.modality else dict(self.changes)


def reads_modalities(kind: ModelType) -> bool:
    """Whether a model reads content: it then has the setting `modalities`."""
    return "modalities" in kind.config.model_fields


def find_variants(
    kind: ModelType, config: ModelConfig, dataset: Dataset, names: Sequence[str] | None = None
) -> list[Variant]:
    """The variants of those names, or all that change anything; wrong labels only by name, for a curve takes many.

    Raises:
        ModelError: an unknown variant or modality, a variant of the data for a model that reads none, or no variant.
        DataError: `without-` the only modality; wrong labels where there are fewer than two.
        ConfigError: a name twice, or a variant that does not fit the settings or changes nothing.
    """
    if names:
        named = [_checked(_named(kind, config, dataset, name), config, dataset) for name in names]
        for variant in named:
            if named.count(variant) > 1:
                raise ConfigError("variants", got=f"'{variant.name}' twice", expected="each once")
        return named
    variants = [_named(kind, config, dataset, name) for name in _known(kind, dataset, everything=False)]
    found = [variant for variant in variants if _fits(variant, config, dataset)]
    if not found:
        raise ModelError(
            f"model {kind.name} has nothing to take out: it names no ablation"
            + (
                f" and data set '{dataset.name}' has no modality"
                if reads_modalities(kind)
                else " and reads no modality"
            )
        )
    return found


def _known(kind: ModelType, dataset: Dataset, *, everything: bool) -> list[str]:
    """Names of variants, those of the model first; without `everything` no labels, and no repetitions."""
    modalities = list(dataset.catalog.modalities) if reads_modalities(kind) else []
    # alone is the full model with one modality, and one of two alone is the other left out
    useful: dict[Perturbation, bool] = {"only": len(modalities) > 1, "without": len(modalities) > 2}
    kinds: list[Perturbation] = [one for one in get_args(Perturbation) if everything or useful.get(one, True)]
    labels = [f"{LABELS}0.2"] if everything and "category_column" in kind.config.model_fields else []
    return [*kind.config.ablations, *(f"{one}-{name}" for one in kinds for name in modalities), *labels]


def _named(kind: ModelType, config: ModelConfig, dataset: Dataset, name: str) -> Variant:
    """The variant of that name. Raises ModelError."""
    if name in kind.config.ablations:
        return Variant(name, kind.config.ablations[name])
    column = config.model_dump().get("category_column")
    if name.startswith(LABELS) and column is not None:
        share = _share(name)
        return Variant(f"{LABELS}{share:g}", wrong=share, column=column)
    perturbation, _, modality = name.partition("-")
    if perturbation in get_args(Perturbation) and modality:
        if not reads_modalities(kind):
            raise ModelError(
                f"variant '{name}' changes a modality, and model {kind.name} reads none",
                expected=f"one of {', '.join(kind.config.ablations)}" if kind.config.ablations else None,
                fix=None if kind.config.ablations else "Take a model of content, e.g. contentmean.",
            )
        if modality not in dataset.catalog.modalities:
            possible = [f"{perturbation}-{one}" for one in dataset.catalog.modalities]
            raise ModelError(
                f"variant '{name}': data set '{dataset.name}' has no modality '{modality}'",
                fix=nearest(name, possible) if possible else "Encode its pictures or texts first.",
            )
        return Variant(name, {}, cast(Perturbation, perturbation), modality)
    known = _known(kind, dataset, everything=True)
    fix = nearest(name, known)
    raise ModelError(
        f"model {kind.name} has no variant '{name}'",
        expected=f"one of {', '.join(known) or '(none)'}",
        fix=fix if fix.startswith("Did") else None,
    )


def _share(name: str) -> float:
    """The share of wrong labels that a variant's name ends with. Raises ModelError."""
    try:
        share = float(name.removeprefix(LABELS))
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ModelError(f"variant '{name}'", expected=f"a share above 0, at most 1, such as {LABELS}0.2")
    return share


def _checked(variant: Variant, config: ModelConfig, dataset: Dataset) -> Variant:
    """The variant, if it fits and changes something. Raises ConfigError, DataError."""
    unused = not variant.perturbation and variant.name not in config.useful_ablations()
    same = unused or variant.settings(config) == config
    if variant.wrong:
        if not config.uses_categories():
            raise ConfigError(f"variant '{variant.name}' changes nothing: these settings use no categories")
        perturb.wrong_labels(dataset, variant.column, variant.wrong, seed=0)  # an error when there are none
        return variant
    if variant.perturbation == "without":
        perturb.without(dataset, variant.modality)  # an error when it is the only one
    alone = variant.perturbation == "only" and len(dataset.catalog.modalities) == 1
    if (same and not variant.perturbation) or alone:
        reason = "these settings do not use it" if unused else "the settings are so already"
        reason = f"'{variant.modality}' is the only modality" if alone else reason
        raise ConfigError(f"variant '{variant.name}' changes nothing: {reason}")
    return variant


def _fits(variant: Variant, config: ModelConfig, dataset: Dataset) -> bool:
    """Whether a variant that nobody named is worth a run; a warning says why it is not."""
    try:
        _checked(variant, config, dataset)
    except ConfigError as error:
        warnings.warn(f"variant '{variant.name}' is left out: {error}", stacklevel=4)
        return False
    return True
