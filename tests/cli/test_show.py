"""What is shown is the data as it is: brackets and colons in titles are no markup."""

from pathlib import Path

import polars as pl
import pytest

from modalmix import evaluate, fit, load_data
from modalmix.cli import main
from modalmix.cli.show import console, facts_table, frame_table, notice, show_evaluation, show_examination
from modalmix.data import Examination
from modalmix.evaluation import Evaluation

TITLES = ("AC [/DC] live", "Best of [dvd] edition", "[red]hot[/red]", "a :smile: day", "back\\[slash]\\")
Shown = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users who each met three items of the titles above."""
    folder = tmp_path_factory.mktemp("data") / "a :smile: shop"
    folder.mkdir()
    rows = [(f"u{user}", f"i{(user + step) % len(TITLES)}") for user in range(30) for step in range(3)]
    pl.DataFrame(rows, schema=["user", "item"], orient="row").write_csv(folder / "interactions.csv")
    items = [f"i{row}" for row in range(len(TITLES))]
    pl.DataFrame({"item": items, "title": TITLES}).write_csv(folder / "items.csv")
    return folder


@pytest.fixture(scope="module")
def run(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "first"
    flags = ["--features", "none", "--split", "random", "--run", str(path)]
    assert main(["train", str(shop), "--model", "popularity", *flags]) == 0
    return path


@pytest.fixture(scope="module")
def evaluation(shop: Path) -> Evaluation:
    return evaluate(fit(load_data(shop, features="none"), "popularity", split="random"))


@pytest.mark.parametrize("title", TITLES)
class TestTitles:
    def test_in_a_list(self, title: str, capsys: Shown) -> None:
        console.print(frame_table(pl.DataFrame({title: [title]}), title))
        assert capsys.readouterr().out.count(title) == 3

    def test_in_facts(self, title: str, capsys: Shown) -> None:
        console.print(facts_table({title: title}, title))
        assert capsys.readouterr().out.count(title) == 3

    def test_in_a_notice(self, title: str, capsys: Shown) -> None:
        notice(title)
        assert title in capsys.readouterr().err

    def test_over_an_evaluation(self, title: str, evaluation: Evaluation, capsys: Shown) -> None:
        show_evaluation(evaluation, title)
        assert title in capsys.readouterr().out

    def test_in_an_examination(self, title: str, capsys: Shown) -> None:
        show_examination(Examination(problems=[title], warnings=[title]))
        assert capsys.readouterr().out.count(title) == 2


def test_an_examination_keeps_its_own_words(capsys: Shown) -> None:
    show_examination(Examination(warnings=["odd"]))
    shown = capsys.readouterr().out
    assert "warning" in shown
    assert "[yellow]" not in shown


def test_recommend_shows_titles_as_they_are(run: Path, capsys: Shown) -> None:
    assert main(["recommend", str(run), "--users", "u0", "--k", "5", "--no-filter-seen"]) == 0
    shown = capsys.readouterr().out
    assert all(title in shown for title in TITLES), shown


def test_describe_shows_the_name_as_it_is(shop: Path, capsys: Shown) -> None:
    assert main(["data", "describe", str(shop)]) == 0
    assert "data set a :smile: shop" in capsys.readouterr().out


def test_the_settings_of_a_model_are_shown_as_they_are(tmp_path: Path, capsys: Shown) -> None:
    source = (Path(__file__).parents[2] / "src" / "modalmix" / "models" / "popularity.py").read_text()
    help_text = '    share: float = 0.5\n    """In [0, 1], or [/x]."""'
    own = tmp_path / "own.py"
    own.write_text(source.replace('    """Popularity has no settings."""', help_text))
    assert main(["models", str(own)]) == 0
    assert "In [0, 1], or [/x]." in capsys.readouterr().out
