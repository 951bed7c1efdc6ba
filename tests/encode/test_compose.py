import polars as pl
import pytest

from modalmix.encode import TextConfig, compose_text, text_columns
from modalmix.errors import EncodeError


def test_a_text_is_written_from_title_categories_and_plot() -> None:
    table = pl.DataFrame(
        {
            "item": [0, 1, 2, 3],
            "title": ["Toy Story (1995)", None, "  ", "Who?"],
            "overview": ["Led by Woody. ", "A plot", None, ""],
            "tags": [["pixar"], ["x"], ["leak"], []],
            "categories": [["Adventure", "Animation"], [], [], [None, "Drama"]],
        },
        schema_overrides={"categories": pl.List(pl.String)},
    )
    assert compose_text(table) == [
        "Toy Story (1995). Categories: Adventure, Animation. Led by Woody.",
        "A plot.",
        None,
        "Who? Categories: Drama.",
    ]


def test_user_tags_and_unnamed_numbers_are_not_words() -> None:
    table = pl.DataFrame({"item": [0], "categories": [[1, 2]], "tags": [["pixar"]], "text_keywords": ["red bike"]})
    assert text_columns(table) == ("text_keywords",)
    assert compose_text(table) == ["red bike."]


def test_the_columns_asked_for_are_taken_in_their_order() -> None:
    table = {"title": ["A"], "tags": [["x", "y"]], "genres": ["Action|Comedy"]}
    assert compose_text(table, ["genres", "tags", "title"]) == ["Genres: Action, Comedy. Tags: x, y. A."]
    assert text_columns(pl.DataFrame(table), TextConfig(columns=("tags",))) == ("tags",)


def test_a_table_without_words_has_no_texts() -> None:
    assert compose_text(pl.DataFrame({"item": [0, 1]})) == [None, None]
    assert compose_text(pl.DataFrame({"title": []}, schema={"title": pl.String})) == []


@pytest.mark.parametrize(("column", "told"), [("titel", "Did you mean 'title'"), ("year", "got Int64")])
def test_a_column_asked_for_must_hold_words(column: str, told: str) -> None:
    table = pl.DataFrame({"title": ["A"], "year": [1995]})
    with pytest.raises(EncodeError, match=told):
        compose_text(table, [column])
