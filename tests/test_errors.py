"""Messages say the thing, what was got, what was expected, and the fix."""

import pytest

from modalmix import errors


def test_message_says_thing_got_expected_fix() -> None:
    error = errors.DataError("image.npy", got="7,049 rows", expected="7,050 rows", fix="Mark it absent with NaN.")
    assert str(error) == "image.npy: got 7,049 rows, expected 7,050 rows. Mark it absent with NaN."


def test_message_without_facts_is_a_sentence() -> None:
    assert str(errors.RunError("the run is torn.")) == "the run is torn."


def test_unknown_id_is_not_shown_in_quotes() -> None:
    assert str(errors.UnknownIdError("user id is unknown", got=3)) == "user id is unknown: got 3."


@pytest.mark.parametrize("name", [name for name in vars(errors) if name.endswith("Error")])
def test_every_error_is_in_the_tree_and_in_its_drawing(name: str) -> None:
    assert issubclass(getattr(errors, name), errors.ModalmixError)
    assert name in (errors.__doc__ or "")


def test_nearest_lists_the_names_when_none_is_close() -> None:
    assert errors.nearest("zzz", ["b", "a"]) == "Known: a, b."
