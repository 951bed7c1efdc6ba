"""`modalmix evaluate RUN --drop`: the table, the JSON, the files, and one line for every mistake."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from modalmix.cli import main
from modalmix.cli.verbs.evaluate import parse_drop
from modalmix.data.shop import ShopConfig, plant, write_shop
from modalmix.errors import ConfigError


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shop"
    write_shop(plant(ShopConfig(users=60, items=80, image_size=16)), folder)
    items = pl.read_parquet(folder / "items.parquet")
    for name, dim in (("image", 7), ("text", 5)):
        np.save(folder / f"{name}.npy", np.random.default_rng(dim).standard_normal((len(items), dim)))
    return folder


def train(shop: Path, run: Path, model: str, *flags: str) -> Path:
    assert main(["train", str(shop), "--model", model, "--split", "cold-item", "--run", str(run), *flags]) == 0
    return run


@pytest.fixture(scope="module")
def trained(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(shop, tmp_path_factory.mktemp("runs") / "contentknn", "contentknn", "--features", "files")


def opened(run: Path) -> int:
    return int(json.loads((run / "run.json").read_text())["test_opened"])


def test_the_curve_is_printed_and_kept(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = opened(trained)
    assert main(["evaluate", str(trained), "--drop", "image=0,0.5,1", "--drop-seeds", "2"]) == 0
    shown = capsys.readouterr()
    assert opened(trained) == before + 1
    assert all(
        word in shown.out for word in ("recall@20", "cold", "warm", "all", "keeps", "100 %", "random", "most pop.")
    )
    assert "drop.png" in shown.err
    assert (trained / "drop.png").stat().st_size > 10_000
    kept = json.loads((trained / "drop.json").read_text())
    assert kept["drop"] == "image"
    assert [point["share"] for point in kept["points"]] == [0, 0.5, 1]
    assert set(kept["points"][1]["pools"]) == {"cold", "warm", "all"}


def test_json_settings_and_the_plain_evaluation(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--ks", "10", "--mask", "train", "--json"]
    assert main(["evaluate", str(trained), *flags]) == 0
    plain = json.loads(capsys.readouterr().out)
    flags += ["--drop", "any=.3", "--drop-seeds", "3", "--drop-metric", "ndcg@10"]
    assert main(["evaluate", str(trained), *flags]) == 0
    curve = json.loads(capsys.readouterr().out)
    assert curve["full"] == plain
    assert curve["metric"] == "ndcg@10"
    none, some = (point["pools"]["cold"]["ndcg@10"] for point in curve["points"])
    assert none["mean"] == plain["pools"]["cold"]["metrics"]["ndcg@10"]["mean"]
    assert some["n"] == 3
    assert some["retained"] == pytest.approx(some["mean"] / none["mean"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--drop", "imag=0,1"], "no modality 'imag'. Did you mean 'image'?"),
        (["--drop", "image=0,1.5"], "got 1.5, expected a number from 0 to 1"),
        (["--drop", "image=0,nan"], "got nan"),
        (["--drop", "image=0,half"], "'half'"),
        (["--drop", "image=0,,1"], "got ''"),
        (["--drop", "image=0,0.0,1"], "0 twice"),
        (["--drop", "image="], "such as image=0,0.25"),
        (["--drop", "image"], "such as image=0,0.25"),
        (["--drop", "=0,1"], "such as image=0,0.25"),
        (["--drop", "image=1", "--drop-metric", "recal@20"], "Did you mean 'recall@20'?"),
    ],
)
def test_mistakes_are_one_line_and_open_nothing(
    trained: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = opened(trained)
    assert main(["evaluate", str(trained), *flags]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1
    assert opened(trained) == before


def test_a_model_without_modalities_is_refused(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(shop, tmp_path / "run", "popularity")
    assert main(["evaluate", str(run), "--drop", "image=0,1"]) == 2
    assert "the model reads no modality" in capsys.readouterr().err
    assert opened(run) == 0


def test_a_modality_whose_name_has_an_equals_sign() -> None:
    assert parse_drop("a=b=0, 0.5") == ("a=b", (0.0, 0.5))
    with pytest.raises(ConfigError):
        parse_drop("")


def test_two_steps_against_all_items(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--epochs", "4", "--trigger", "epoch:2", "--eval-every", "4", "--dim", "8", "--neighbors", "5"]
    run = train(shop, tmp_path / "magnet", "magnet", "--features", "files", *few)
    capsys.readouterr()
    assert main(["evaluate", str(run), "--retrieve", "20", "80", "--json"]) == 0
    curve = json.loads(capsys.readouterr().out)
    assert (curve["items"], [point["candidates"] for point in curve["points"]]) == (80, [20, 80])
    assert curve["points"][1]["recall"] == {"10": 1.0, "20": 1.0}
    twenty = curve["points"][0]
    assert twenty["recall"]["10"] > twenty["scored"] / 80 + 0.4, "as many drawn at random have scored / 80"
    assert main(["evaluate", str(run), "--retrieve", "20"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("candidates", "recall@20", "cpu_ms", "all"))
    assert opened(run) == 0
    user = pl.read_parquet(shop / "interactions.parquet")["user"][0]
    lists = []
    for flags in ([], ["--retrieve", "80"]):
        assert main(["recommend", str(run), "--users", user, "--json", *flags]) == 0
        lists.append([row["item"] for row in json.loads(capsys.readouterr().out)])
    assert lists[0] == lists[1]
    assert main(["recommend", str(run), "--users", user, "--retrieve", "5"]) == 2
    assert "at most the 5 candidates" in capsys.readouterr().err


def test_two_steps_of_a_model_that_needs_none(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(trained), "--retrieve", "50"]) == 2
    assert "two steps" in capsys.readouterr().err
