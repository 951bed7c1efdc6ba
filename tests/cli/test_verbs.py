"""Every verb on a small planted shop, as a user would call it."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from modalmix.cli import main
from modalmix.data.shop import ShopConfig, plant, write_shop
from modalmix.pipeline import load_run

FEW = ["--epochs", "3", "--batch-size", "256", "--dim", "16"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shop"
    write_shop(plant(ShopConfig(users=60, items=80, image_size=32, missing_image=0.2)), folder)
    return folder


@pytest.fixture(scope="module")
def trained(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "bprmf"
    assert (
        main(
            ["train", str(shop), "--model", "bprmf", "--features", "none", "--split", "random", "--run", str(run), *FEW]
        )
        == 0
    )
    return run


def printed(capsys: pytest.CaptureFixture[str]) -> dict:  # type: ignore[type-arg]
    return json.loads(capsys.readouterr().out)


def test_run_goes_from_pictures_to_three_pools_and_recommendations(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["run", str(shop), "--model", "mamex", "--split", "cold-item", "--run", str(run), "--json", *FEW]) == 0
    shown = printed(capsys)
    assert set(shown["evaluation"]["pools"]) == {"cold", "warm", "all"}
    cold = shown["evaluation"]["pools"]["cold"]
    assert cold["metrics"]["recall@20"]["low"] <= cold["metrics"]["recall@20"]["mean"]
    assert {"random", "popularity"} <= set(cold["floors"])
    user = pl.read_parquet(shop / "interactions.parquet")["user"][0]
    assert main(["recommend", str(run), "--users", user, "--k", "5", "--candidates", "cold", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    titles = set(pl.read_parquet(shop / "items.parquet")["title"])
    assert all(row["title"] in titles for row in rows)


def test_evaluate_counts_how_often_the_test_split_was_opened(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for opened in (1, 2):
        assert main(["evaluate", str(trained), "--mask", "train", "--ks", "10", "--json"]) == 0
        assert "recall@10" in printed(capsys)["pools"]["all"]["metrics"]
        assert json.loads((trained / "evaluation.json").read_text())["test_opened"] == opened
    assert pl.read_parquet(trained / "per_user.parquet").height > 0


def test_evaluate_prints_a_table_with_floors(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(trained)]) == 0
    shown = capsys.readouterr().out
    assert "recall@20" in shown
    assert "random" in shown


def test_recommend_for_a_history_and_into_csv(
    trained: Path, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    items = pl.read_parquet(shop / "items.parquet")["item"].to_list()
    out = tmp_path / "list.csv"
    assert main(["recommend", str(trained), "--history", *items[:2], "--k", "3", "--csv", str(out)]) == 0
    frame = pl.read_csv(out)
    assert frame.height == 3
    assert not set(frame["item"]) & set(items[:2])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--users", "nobody"], "'nobody'"),
        (["--users", "nobody", "--k", "0"], "k: got 0"),
        ([], "exactly one"),
    ],
)
def test_bad_requests_are_one_clear_line(
    trained: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recommend", str(trained), *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_run_of_another_data_set_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    write_shop(plant(ShopConfig(users=60, items=80, image_size=16, seed=1)), other)
    assert main(["recommend", str(trained), "--users", "x", "--data", str(other)]) == 2
    assert "another data set" in capsys.readouterr().err


def test_train_of_other_settings_in_the_same_folder_is_refused(
    trained: Path, shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--features", "none", "--split", "random", "--run", str(trained), *FEW, "--lr", "0.5"]
    assert main(["train", str(shop), "--model", "bprmf", *flags]) == 2
    assert "lr" in capsys.readouterr().err


def test_settings_from_yaml_and_unknown_settings(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("model: bprmf\nsettings: {epochs: 1, dim: 8}\nsplit: {kind: random}\ndata: {features: none}\n")
    run = tmp_path / "run"
    assert main(["train", str(shop), "--config", str(file), "--run", str(run), "--json"]) == 0
    assert printed(capsys)["model"] == "bprmf"
    file.write_text("model: bprmf\nsettings: {epoch: 1}\n")
    assert main(["train", str(shop), "--config", str(file), "--run", str(run)]) == 2
    assert "Did you mean 'epochs'" in capsys.readouterr().err


def test_data_verbs(shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "describe", str(shop), "--json"]) == 0
    assert printed(capsys)["items"] == 80
    assert main(["data", "validate", str(shop)]) == 0
    capsys.readouterr()
    assert main(["data", "split", str(shop), str(tmp_path / "split.parquet"), "--kind", "cold-item", "--json"]) == 0
    assert printed(capsys)["train"] > 0
    assert set(pl.read_parquet(tmp_path / "split.parquet").columns) >= {"user", "item", "split"}
    assert main(["data", "import", str(shop / "interactions.parquet"), str(tmp_path / "copy")]) == 0
    assert main(["data", "import", str(shop / "interactions.parquet"), str(tmp_path / "copy")]) == 2
    assert main(["data", "synth", str(tmp_path / "new"), "--users", "20", "--items", "30"]) == 0
    assert len(list((tmp_path / "new" / "images").iterdir())) > 0


def test_encode_writes_feature_files_that_train_reads(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "features"
    assert main(["encode", str(shop), "--modalities", "text", "--out", str(out), "--json"]) == 0
    assert printed(capsys)["text"]["dim"] == 384
    assert (out / "text.npy").exists()
    assert (out / "text.json").exists()
    assert main(["encode", str(shop), "--modalities", "text", "--out", str(out)]) == 2


def test_validate_finds_a_missing_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pl.DataFrame({"user": [1], "thing": [2]}).write_parquet(tmp_path / "interactions.parquet")
    assert main(["data", "validate", str(tmp_path)]) == 2
    assert "item" in capsys.readouterr().err


def test_a_model_file_of_ones_own_works_by_path(shop: Path, tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    own.write_text((Path(__file__).parents[2] / "src" / "modalmix" / "models" / "popularity.py").read_text())
    flags = ["--features", "none", "--split", "random", "--run", str(tmp_path / "run")]
    assert main(["train", str(shop), "--model", str(own), *flags]) == 0
    assert main(["evaluate", str(tmp_path / "run")]) == 0


def test_a_model_file_changed_after_the_training_is_one_line(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, run = tmp_path / "mine.py", str(tmp_path / "run")
    own.write_text((Path(__file__).parents[2] / "src" / "modalmix" / "models" / "popularity.py").read_text())
    flags = ["--features", "none", "--split", "random", "--run", run]
    assert main(["train", str(shop), "--model", str(own), *flags]) == 0
    own.write_text(own.read_text().replace("self.scores.repeat", "-self.scores.repeat"))
    assert main(["evaluate", run]) == 2
    shown = capsys.readouterr().err.splitlines()[-1]
    assert f"model file {own} was changed" in shown
    assert "Restore the file" in shown


def test_a_feature_file_given_by_a_relative_path_is_found_from_another_folder(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    np.save(here / "look.npy", np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32))
    monkeypatch.chdir(here)
    flags = ["--features", "files", "--data.reader.modality-files", "look", "look.npy", "--split", "random"]
    assert main(["train", str(shop), "--model", "contentmean", *flags, "--run", "run"]) == 0
    monkeypatch.chdir(elsewhere)
    assert "look" in load_run(here / "run").split.dataset.catalog.modalities


@pytest.mark.slow
def test_demo_runs_the_main_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_shop(plant(ShopConfig(users=60, items=80, image_size=32)), tmp_path / "runs" / "demo-shop")
    assert main(["demo"]) == 0
    shown = capsys.readouterr().out
    assert "new items for" in shown


def test_a_list_is_never_written_over_another_file(
    trained: Path, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    user = pl.read_parquet(shop / "interactions.parquet")["user"][0]
    there = tmp_path / "there.csv"
    there.write_text("mine")
    assert main(["recommend", str(trained), "--users", user, "--csv", str(there)]) == 2
    assert str(there) in capsys.readouterr().err
    assert there.read_text() == "mine"
    (tmp_path / "file").touch()
    assert main(["recommend", str(trained), "--users", user, "--csv", str(tmp_path / "file" / "list.csv")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("code", ["def broken(:", "import nothing_of_that_name"])
def test_a_broken_model_file_is_one_line(
    code: str, shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "mine.py"
    own.write_text(code)
    assert main(["train", str(shop), "--model", str(own)]) == 2
    assert "cannot be imported" in capsys.readouterr().err


def test_contradicting_settings_are_said_in_one_line(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(shop), "--model", "mamex", "--top-k", "9"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_validate_looks_at_the_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "shop"
    write_shop(plant(ShopConfig(users=20, items=30, image_size=16)), folder)
    first = min((folder / "images").iterdir())
    first.write_bytes(b"")
    (folder / "images" / "nobody.jpg").write_bytes(b"x")
    assert main(["data", "validate", str(folder), "--json"]) == 0
    warnings = " ".join(printed(capsys)["warnings"])
    assert f"{first.name} for one" in warnings
    assert "nobody.jpg" in warnings


def test_a_sequential_model_answers_a_history_and_somebody_who_has_met_nothing(
    shop: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, ordered = str(tmp_path / "run"), ["--features", "none", "--split", "leave-last-two-out", *FEW]
    assert main(["train", str(shop), "--model", "sasrec", "--run", run, *ordered]) == 0
    items = pl.read_parquet(shop / "items.parquet")["item"].to_list()
    capsys.readouterr()
    lists = []
    for history in (items[:2], items[1::-1]):
        assert main(["recommend", run, "--history", *history, "--k", "5", "--json"]) == 0
        lists.append([(row["item"], row["score"]) for row in json.loads(capsys.readouterr().out)])
    assert not {item for item, _ in lists[0]} & set(items[:2])
    assert lists[0] != lists[1], "order counts"
    with pytest.warns(UserWarning, match="answered by popularity"):
        assert main(["recommend", run, "--history", "--k", "80", "--json"]) == 0
    scores = [row["score"] for row in json.loads(capsys.readouterr().out)]
    split = load_run(run).split
    assert scores == pytest.approx(sorted(np.log1p(split.train.item_degree), reverse=True), rel=1e-5)
