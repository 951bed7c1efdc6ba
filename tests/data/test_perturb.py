"""A modality alone, gone, made noise, or dealt to the wrong items; wrong labels."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from modalmix.data import Catalog, Dataset, IdMap, Interactions, Modality, SplitConfig, make_split
from modalmix.data.perturb import noise, only, select, shuffle, without, wrong_labels
from modalmix.errors import DataError, ModelError

ITEMS = 3000
ABSENT = (0, 7)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    rng = np.random.default_rng(5)
    image = (rng.exponential(size=(ITEMS, 3)) * [1.0, 10.0, 0.0] + [0.0, -4.0, 2.5]).astype(np.float32)
    image[list(ABSENT)] = np.nan
    modalities = {
        "image": Modality.from_matrix("image", image, provenance={"encoder": "e"}),
        "text": Modality.from_matrix("text", np.arange(1, ITEMS * 2 + 1, dtype=np.float32).reshape(ITEMS, 2)),
        "sound": Modality.from_matrix("sound", np.ones((ITEMS, 1), dtype=np.float32)),
    }
    user, item = np.repeat(np.arange(300), 10), np.arange(ITEMS)
    events = Interactions(user.astype(np.int32), item.astype(np.int32), 300, ITEMS)
    users = IdMap(np.arange(300), "user")
    return Dataset("d", users, Catalog(IdMap(np.arange(ITEMS)), modalities), events, reading={"features": "files"})


def test_only_and_without_name_what_is_left(dataset: Dataset) -> None:
    assert list(only(dataset, "text").catalog.modalities) == ["text"]
    assert list(without(dataset, "text").catalog.modalities) == ["image", "sound"]
    assert without(dataset, "text").reading == {"features": "files", "modalities": ["image", "sound"]}
    assert list(dataset.catalog.modalities) == ["image", "text", "sound"]
    assert select(dataset, ["text"]).catalog.modality("text") is dataset.catalog.modality("text")


def test_noise_has_the_columns_mean_and_deviation_and_nothing_else(dataset: Dataset) -> None:
    """Within five standard errors: sd / sqrt(n) of a mean, sd / sqrt(2 n) of a deviation."""
    old, new = dataset.catalog.modality("image"), noise(dataset, "image", seed=1).catalog.modality("image")
    assert (new.present == old.present).all()
    before, after = old.matrix()[old.present], new.matrix()[new.present]
    n, sd = len(before), before.std(axis=0)
    assert np.abs(after.mean(axis=0) - before.mean(axis=0)) == pytest.approx(0, abs=5 * sd.max() / np.sqrt(n))
    assert after.std(axis=0)[:2] == pytest.approx(sd[:2], rel=5 / np.sqrt(2 * n))
    assert (after[:, 2] == 2.5).all()  # a constant column stays what it is
    assert abs(np.corrcoef(before[:, 0], after[:, 0])[0, 1]) < 5 / np.sqrt(n)
    skew = ((after[:, 1] - after[:, 1].mean()) ** 3).mean() / after[:, 1].std() ** 3
    assert abs(skew) < 5 * np.sqrt(6 / n)  # that of an exponential is 2
    assert (new.matrix()[list(ABSENT)] == 0).all()
    assert new.provenance == {"encoder": "e", "perturbed": "noise", "perturbation_seed": 1}


def test_shuffle_deals_the_same_rows_among_those_who_have_it(dataset: Dataset) -> None:
    old, new = dataset.catalog.modality("image"), shuffle(dataset, "image", seed=1).catalog.modality("image")
    assert (new.present == old.present).all()
    before, after = old.matrix()[old.present], new.matrix()[new.present]
    assert sorted(map(tuple, before)) == sorted(map(tuple, after))
    stayed = int((before == after).all(axis=1).sum())
    assert stayed <= 8  # a random permutation has one fixed point on average, and Poisson's tail
    assert (new.matrix()[list(ABSENT)] == 0).all()


@pytest.mark.parametrize("perturb", [noise, shuffle])
def test_the_seed_decides_and_nothing_else_changes(dataset: Dataset, perturb) -> None:  # type: ignore[no-untyped-def]
    once, again, other = (perturb(dataset, "image", seed) for seed in (1, 1, 2))
    assert once.catalog.sha256 == again.catalog.sha256
    assert once.catalog.sha256 != other.catalog.sha256
    assert once.catalog.modality("text") is dataset.catalog.modality("text")
    assert once.sha256 == dataset.sha256
    config = SplitConfig(kind="cold-item", seed=3)
    assert make_split(once, config).sha256 == make_split(dataset, config).sha256


def test_a_modality_that_nobody_has_stays_absent(dataset: Dataset) -> None:
    nobody = Modality.from_matrix("image", np.full((ITEMS, 2), np.nan, dtype=np.float32))
    empty = replace(dataset, catalog=Catalog(dataset.catalog.items, {"image": nobody}))
    for perturbed in (noise(empty, "image", 0), shuffle(empty, "image", 0)):
        assert not perturbed.catalog.modality("image").present.any()


def test_mistakes_are_our_errors(dataset: Dataset) -> None:
    for perturb in (only, without, lambda data, name: noise(data, name, 0), lambda data, name: shuffle(data, name, 0)):
        with pytest.raises(ModelError, match="no modality 'imagge'. Did you mean 'image'"):
            perturb(dataset, "imagge")
    with pytest.raises(DataError, match="'text' is the only modality"):
        without(only(dataset, "text"), "text")


def labelled(labels: pl.Series) -> Dataset:
    n = len(labels)
    catalog = Catalog(IdMap(range(n)), {}, pl.DataFrame({"item": range(n), "title": "a", "group": labels}))
    none = np.empty(0, dtype=np.int32)
    return Dataset("labels", IdMap([0], "user"), catalog, Interactions(none, none, 1, n))


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_a_share_of_the_labels_is_wrong(share: float) -> None:
    """Five standard errors: .5 / sqrt(2,000 labels)."""
    dataset = labelled(pl.Series([[k % 5, 5 + k % 2] for k in range(1000)]))
    noisy = wrong_labels(dataset, "group", share, seed=1).catalog.table
    before, after = (table["group"].explode().to_numpy() for table in (dataset.catalog.table, noisy))
    assert (before != after).mean() == pytest.approx(share, abs=5 * 0.5 / np.sqrt(2000))
    assert set(after) <= set(before)
    assert noisy.drop("group").equals(dataset.catalog.table.drop("group"))


def test_wrong_labels_are_spread_evenly_over_the_others() -> None:
    dataset = labelled(pl.Series([["a"]] * 3000 + [["b"], ["c"], ["d"]]))
    drawn = wrong_labels(dataset, "group", 1.0, seed=2).catalog.table["group"].head(3000).explode()
    counts = dict(drawn.value_counts().iter_rows())
    assert set(counts) == {"b", "c", "d"}
    sd = np.sqrt(3000 * (1 / 3) * (2 / 3))
    assert max(abs(count - 1000) for count in counts.values()) < 5 * sd


def test_labels_of_a_text_column_are_split_and_items_without_stay_without() -> None:
    text = labelled(pl.Series(["a| b", None, "b", ""]))
    assert wrong_labels(text, "group", 0.0, 0).catalog.table["group"].to_list() == [["a", "b"], None, ["b"], []]
    assert wrong_labels(text, "group", 1.0, 0).catalog.table["group"].to_list() == [["b", "a"], None, ["a"], []]
    assert wrong_labels(text, "group", 0.5, 3).made_wrong == "0.5 of the labels in 'group', seed 3"
    spaced = labelled(pl.Series([["a ", ""], ["b"]]))
    assert wrong_labels(spaced, "group", 1.0, 0).catalog.table["group"].to_list() == [["b"], ["a"]]
    lists = labelled(pl.Series([None, [], [1, None, 2]], dtype=pl.List(pl.Int64)))
    assert wrong_labels(lists, "group", 1.0, 0).catalog.table["group"].to_list() == [None, [], [2, 1]]


@pytest.mark.parametrize(
    ("column", "share", "labels", "message"),
    [
        ("groups", 0.2, [["a"], ["b"]], "no column 'groups'. Did you mean 'group'"),
        ("group", 1.2, [["a"], ["b"]], "share of wrong labels: got 1.2, expected 0 to 1"),
        ("group", 0.2, [["a"], ["a ", ""]], "at least two"),
        ("group", 0.2, [None, []], "at least two"),
    ],
)
def test_labels_that_cannot_be_wrong(column: str, share: float, labels: list[object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        wrong_labels(labelled(pl.Series(labels, dtype=pl.List(pl.String))), column, share, seed=0)
