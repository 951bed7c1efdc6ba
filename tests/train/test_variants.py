"""Which variants a model has on a data set."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import polars as pl
import pytest

from modalmix.data import Catalog, Dataset, IdMap, Interactions, Modality
from modalmix.errors import ConfigError, DataError, ModelError
from modalmix.models.contract import GradientConfig, ModelType, find_model
from modalmix.models.contract.content import ContentConfig
from modalmix.train.variants import find_variants


class WithContent(ContentConfig):
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {"no-reg": {"reg": 0.0}, "no-such": {"regs": 1.0}}


class IdsOnly(GradientConfig):
    ablations: ClassVar[Mapping[str, Mapping[str, Any]]] = {"no-reg": {"reg": 0.0}}


class Plain(GradientConfig):
    pass


def kind(config: type[GradientConfig]) -> ModelType:
    return ModelType("mine", find_model("bprmf").recommender, config)


def shop(*names: str) -> Dataset:
    modalities = {name: Modality.from_matrix(name, np.ones((4, 2), dtype=np.float32)) for name in names}
    rows = np.arange(4, dtype=np.int32)
    users, items = IdMap(np.arange(4), "user"), IdMap(np.arange(4))
    return Dataset("shop", users, Catalog(items, modalities), Interactions(rows, rows, 4, 4))


def names(config: GradientConfig, dataset: Dataset) -> list[str]:
    return [variant.name for variant in find_variants(kind(type(config)), config, dataset)]


def test_two_modalities_alone_are_each_other_left_out() -> None:
    with pytest.warns(UserWarning, match="'no-such' is left out: WithContent has no setting 'regs'"):
        found = names(WithContent(), shop("image", "a-text"))
    assert found == [
        *("no-reg", "only-image", "only-a-text", "noise-image", "noise-a-text", "shuffle-image", "shuffle-a-text")
    ]


@pytest.mark.filterwarnings("ignore:variant")
def test_three_modalities_are_also_left_out_one_by_one_and_one_is_never_alone() -> None:
    found = names(WithContent(), shop("x", "y", "z"))
    assert found == ["no-reg", *(f"{how}-{m}" for how in ("only", "without", "noise", "shuffle") for m in "xyz")]
    assert names(WithContent(), shop("x")) == ["no-reg", "noise-x", "shuffle-x"]


def test_a_model_of_ids_has_its_own_parts_only() -> None:
    assert names(IdsOnly(), shop("x", "y")) == ["no-reg"]
    with pytest.warns(UserWarning, match="changes nothing"), pytest.raises(ModelError, match="nothing to take out"):
        names(IdsOnly(reg=0.0), shop("x"))
    with pytest.raises(ModelError, match="names no ablation and reads no modality"):
        names(Plain(), shop("x"))


def test_what_the_settings_do_not_use_is_no_variant() -> None:
    mamex, dataset = find_model("mamex"), shop("image")
    taught_only = {"no-folds", "no-profiles"}
    assert taught_only <= {one.name for one in find_variants(mamex, mamex.config(), dataset)}
    joint = mamex.config.preset("joint")
    with pytest.warns(UserWarning, match="'no-folds' is left out: .*changes nothing: these settings do not use it"):
        assert not taught_only & {one.name for one in find_variants(mamex, joint, dataset)}


def test_what_a_variant_changes() -> None:
    config, dataset = WithContent(), shop("image", "a-text")
    no_reg, only, without = find_variants(
        kind(WithContent), config, dataset, ["no-reg", "only-a-text", "without-a-text"]
    )
    assert no_reg.settings(config) == config.replace(reg=0.0)
    assert no_reg.dataset(dataset, 0) is dataset
    assert list(only.dataset(dataset, 0).catalog.modalities) == ["a-text"]
    assert list(without.dataset(dataset, 0).catalog.modalities) == ["image"]
    assert only.settings(config) == config
    assert (no_reg.to_dict(), only.to_dict()) == ({"reg": 0.0}, {"perturbation": "only", "modality": "a-text"})


@pytest.mark.parametrize(
    ("config", "modalities", "asked", "error", "message"),
    [
        (WithContent(), "xy", ["no-regg"], ModelError, "no variant 'no-regg': expected one of .*only-x.*mean 'no-reg'"),
        (WithContent(), "xy", ["gate"], ModelError, "no variant 'gate': expected one of no-reg.*shuffle-y"),
        (WithContent(), ["image"], ["noise-imag"], ModelError, "no modality 'imag'. Did you mean 'noise-image'"),
        (WithContent(), "x", ["without-x"], DataError, "'x' is the only modality"),
        (WithContent(), "x", ["only-x"], ConfigError, "changes nothing: 'x' is the only modality"),
        (WithContent(), "", ["noise-x"], ModelError, "has no modality 'x'"),
        (WithContent(reg=0.0), "x", ["no-reg"], ConfigError, "changes nothing"),
        (WithContent(), "x", ["no-such"], ConfigError, "no setting 'regs'"),
        (WithContent(), "x", ["no-reg", "no-reg"], ConfigError, "'no-reg' twice"),
        (IdsOnly(), "x", ["noise-x"], ModelError, "mine reads none: expected one of no-reg"),
    ],
)
def test_mistakes_are_our_errors(
    config: GradientConfig, modalities: str, asked: list[str], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        find_variants(kind(type(config)), config, shop(*modalities), asked)


def test_every_ablation_of_every_model_is_a_change_of_its_settings() -> None:
    from modalmix.models import names as models

    for model in models():
        config = find_model(model).config
        for changes in config.ablations.values():
            assert set(changes) <= set(config.model_fields)
            presets = [config(), *(config.preset(name) for name in config.presets)]
            assert any(preset.replace(**changes) != preset for preset in presets)


class WithCategories(ContentConfig):
    category_column: str = "group"
    heads: bool = True

    def uses_categories(self) -> bool:
        return self.heads


def test_wrong_labels_are_a_variant_of_models_that_read_categories_on_demand() -> None:
    dataset, config = shop("x"), WithCategories()
    table = pl.DataFrame({"item": range(4), "group": [["a"], ["b"], ["a"], ["b"]]})
    dataset = replace(dataset, catalog=Catalog(dataset.catalog.items, dataset.catalog.modalities, table))
    assert names(config, dataset) == ["noise-x", "shuffle-x"]
    (wrong,) = find_variants(kind(WithCategories), config, dataset, ["labels-1.0"])
    assert (wrong.name, wrong.dataset(dataset, 7).made_wrong) == ("labels-1", "1 of the labels in 'group', seed 7")
    assert wrong.dataset(dataset, 0).catalog.table["group"].to_list() == [["b"], ["a"], ["b"], ["a"]]
    assert (wrong.settings(config), wrong.to_dict()) == (config, {"wrong": 1.0, "column": "group"})
    for name in ("labels-", "labels-x", "labels-0", "labels-1.5", "labels-nan"):
        with pytest.raises(ModelError, match=f"variant '{name}': expected a share above 0, at most 1"):
            find_variants(kind(WithCategories), config, dataset, [name])
    with pytest.raises(ModelError, match="expected one of .*labels-0.2"):
        find_variants(kind(WithCategories), config, dataset, ["label-0.2x"])
    with pytest.raises(ConfigError, match="'labels-0.2' twice"):
        find_variants(kind(WithCategories), config, dataset, ["labels-0.2", "labels-.20"])
    with pytest.raises(ConfigError, match="'labels-0.2' changes nothing: these settings use no categories"):
        find_variants(kind(WithCategories), WithCategories(heads=False), dataset, ["labels-0.2"])
    with pytest.raises(DataError, match="no column 'group'"):
        find_variants(kind(WithCategories), config, shop("x"), ["labels-0.2"])
    with pytest.raises(ModelError, match="no variant 'labels-0.2'"):
        find_variants(kind(WithContent), WithContent(), dataset, ["labels-0.2"])


@pytest.mark.parametrize(
    ("model", "settings", "used"),
    [
        ("cammsr", {}, True),
        ("cammsr", {"category_weighting": "confidence"}, True),
        ("cammsr", {"category_weighting": "learned"}, False),
        ("cammsr", {"category_weighting": "none"}, False),
        ("hm4sr", {}, True),
        ("hm4sr", {"category": 0.0}, False),
        ("sasrec", {}, False),
    ],
)
def test_who_learns_from_categories(model: str, settings: dict[str, Any], used: bool) -> None:
    assert find_model(model).config(**settings).uses_categories() == used
