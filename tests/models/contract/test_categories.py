"""Categories of items from a column of lists, or of single names."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import polars as pl
import pytest
import torch

from modalmix.data.catalog import Catalog
from modalmix.data.ids import IdMap
from modalmix.errors import ModelError
from modalmix.models.contract.categories import Categories, labels_of


def catalog(values: Sequence[Any], name: str = "categories") -> Catalog:
    return Catalog(IdMap(list(range(len(values)))), {}, pl.DataFrame({"item": range(len(values)), name: values}))


def lists(found: Categories) -> list[list[str]]:
    labels, offsets = found.items.labels.tolist(), found.items.offsets.tolist()
    return [[found.names[k] for k in labels[a:b]] for a, b in pairwise(offsets)]


def test_lists_each_name_once() -> None:
    found = Categories.of(catalog([["b", "a", "b"], None, [], ["c"]]), "categories")
    assert found.names == ("a", "b", "c")
    assert lists(found) == [["a", "b"], [], [], ["c"]]
    assert not found.single


@pytest.mark.parametrize("values", [["x", None, "y", "x"], [7, None, 9, 7]])
def test_one_category_an_item(values: list[Any]) -> None:
    found = Categories.of(catalog(values), "categories")
    assert found.single
    assert lists(found) == [[str(one)] if one is not None else [] for one in values]


def test_text_of_a_csv_file_is_split_at_the_bar_and_empty_names_are_none() -> None:
    found = Categories.of(catalog(["Chairs|Sale", None, "", "Rugs | Sale|", "Sale|Sale"]), "categories")
    assert lists(found) == [["Chairs", "Sale"], [], [], ["Rugs", "Sale"], ["Sale"]]
    assert not found.single
    assert lists(Categories.of(catalog([["a", ""], [""]]), "categories")) == [["a"], []]


def test_numbers_in_lists() -> None:
    assert lists(Categories.of(catalog([[3, 1], [2]]), "categories")) == [["1", "3"], ["2"]]


def test_names_of_another_catalogue_leave_the_rest_out() -> None:
    found = Categories.of(catalog([["new", "b"], ["a"]]), "categories", ("a", "b"))
    assert found.names == ("a", "b")
    assert lists(found) == [["b"], ["a"]]


def test_a_column_that_is_not_there() -> None:
    found = Categories.of(catalog(["x"], name="genre"), "categories")
    assert (found.names, lists(found)) == ((), [[]])
    with pytest.raises(ModelError, match="no column 'genres'"):
        Categories.of(catalog(["x"], name="genre"), "genres", required=True)


def test_labels_of_rows_repeat_and_stay_in_order() -> None:
    found = Categories.of(catalog([["a", "b"], [], ["c"]]), "categories")
    taken = labels_of(found.items, torch.tensor([2, 0, 1, 0]))
    assert taken.counts.tolist() == [1, 2, 0, 2]
    assert taken.labels.tolist() == [2, 0, 1, 0, 1]
    assert taken.rows.tolist() == [0, 1, 1, 3, 3]
