import polars as pl
import pytest

from modalmix.data.ids import IdMap, known
from modalmix.errors import DataError, UnknownIdError


def test_rows_and_ids_are_inverse():
    ids = IdMap(["b", "a", "c"])
    assert ids.rows(["c", "b"]).tolist() == [2, 0]
    assert ids.ids([2, 0]) == ["c", "b"]
    assert len(ids) == 3
    assert ids.is_text


def test_unknown_ids_are_named():
    ids = IdMap([10, 20], "user")
    assert ids.find([20, 30]).tolist() == [1, -1]
    assert known(ids.find([20, 30])).tolist() == [True, False]
    with pytest.raises(UnknownIdError, match=r"1 user id\(s\) are unknown: got 30, expected ids such as 10, 20"):
        ids.rows([20, 30])


def test_strings_that_spell_integers_find_integer_ids():
    assert IdMap([10, 20]).rows(["20"]).tolist() == [1]
    assert IdMap([10, 20]).find(["x"]).tolist() == [-1]
    assert IdMap(["10"]).find([10]).tolist() == [0]


@pytest.mark.parametrize(
    ("ids", "message"),
    [(["a", "b", "a"], "'a' stands in several rows"), (["a", None], "row 1 is empty"), ([1.5], "dtype Float64")],
)
def test_bad_ids(ids, message):
    with pytest.raises(DataError, match=message):
        IdMap(ids)


def test_integer_widths_and_categories_are_one_kind():
    assert IdMap(pl.Series([1, 2], dtype=pl.Int16)).sha256 == IdMap([1, 2]).sha256
    assert IdMap(pl.Series(["a"], dtype=pl.Categorical)).sha256 == IdMap(["a"]).sha256
    assert IdMap(["1"]).sha256 != IdMap([1]).sha256
    assert IdMap([2, 1]).sha256 != IdMap([1, 2]).sha256


def test_extend_keeps_the_rows():
    ids = IdMap(["a", "b"])
    more = ids.extend(["c"])
    assert more.ids([0, 1, 2]) == ["a", "b", "c"]
    assert more.extends(ids)
    assert not ids.extends(more)
    with pytest.raises(DataError, match="several rows"):
        ids.extend(["b"])
    with pytest.raises(DataError, match="new item ids: got Int64, expected String"):
        ids.extend([7])


def test_no_ids():
    assert IdMap([]).find([1]).tolist() == [-1]


@pytest.mark.parametrize("asked", [["01"], ["+1"], [" 1"], ["1.0"], [1.9], [float("nan")], [None]])
def test_what_is_no_exact_integer_finds_no_integer_id(asked):
    assert IdMap([1, 2]).find(asked).tolist() == [-1]


@pytest.mark.parametrize("asked", [["1", 2], [["1"], 2], [{"a": 1}, 2], [object(), 2], [(1,), 2]])
def test_ids_of_several_types_and_what_is_no_id(asked):
    assert IdMap([1, 2]).find(asked).tolist()[1] == 1
    assert IdMap([1, 2]).find(asked).tolist()[0] == (0 if asked[0] == "1" else -1)
    assert IdMap(["x", "2"]).find(asked).tolist() == [-1, 1]
    with pytest.raises(UnknownIdError, match="unknown"):
        IdMap(["x", "2"]).rows(asked)


def test_integral_floats_find_integer_ids():
    assert IdMap([1, 2]).find([2.0, 17.0, 1.0]).tolist() == [1, -1, 0]


def test_categories_that_spell_integers_find_integer_ids():
    assert IdMap([1, 2]).find(pl.Series(["2", "01"], dtype=pl.Categorical)).tolist() == [1, -1]


def test_an_integer_beyond_64_bits_is_named():
    with pytest.raises(DataError, match=r"item ids: got 9223372036854775808, expected integers below 2\^63"):
        IdMap(pl.Series([1, 2**63], dtype=pl.UInt64))
