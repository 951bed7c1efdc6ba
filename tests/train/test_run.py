"""The run folder: what it records, whom it refuses, that it counts."""

import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from modalmix.data.split import Split
from modalmix.errors import ModelError, RunError
from modalmix.files import read_json, sha256_array, write_json
from modalmix.models.contract import ModelType, find_model
from modalmix.train.run import RunFolder
from modalmix.train.settings import TrainConfig


@pytest.fixture
def create(tmp_path: Path, tiny: ModelType, split: Split, quiet: TrainConfig) -> Any:
    """create(split, train config, model settings...): the run in one and the same folder."""

    def make(split: Split = split, config: TrainConfig = quiet, **settings: Any) -> RunFolder:
        record = {"source": "shop/", "data": {"features": "files"}}
        return RunFolder.create(tmp_path / "runs" / "first", tiny, tiny.config(**settings), config, split, record)

    return make


def finish(run: RunFolder) -> None:
    run.best.write_bytes(b"weights")
    run.finish({"best_epoch": 1})


def test_the_record(create: Any, split: Split) -> None:
    run = create(lr=0.5)
    record = run.record
    assert record["model"]["config"]["lr"] == 0.5
    assert record["model"]["name"].endswith("tiny_model.py")
    assert record["model"]["config"]["seed"] == 2025
    assert record["train"]["metric"] == "recall@20"
    assert record["source"] == "shop/"
    assert record["data"] == {"features": "files"}
    assert record["identity"]["data set"] == split.dataset.sha256
    assert record["identity"]["split"] == split.sha256
    features = split.dataset.catalog.modalities["image"]
    assert record["identity"]["features of 'image'"].startswith(sha256_array(features.features))
    assert record["dataset"]["summary"]["users"] == 30
    assert record["versions"].keys() >= {"python", "torch", "numpy", "modalmix"}
    assert isinstance(record["command"], list)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", record["started"])
    assert record["finished"] is None
    assert record["test_opened"] == 0
    assert yaml.safe_load((run.path / "model.yaml").read_text())["lr"] == 0.5
    assert yaml.safe_load((run.path / "train.yaml").read_text())["mask"] == "seen"
    assert run.model_config.lr == 0.5
    assert run.train_config.device == "cpu"


def test_the_split_is_kept(create: Any, split: Split) -> None:
    from modalmix.data.splitters import read_split

    kept = read_split(split.dataset, create().split)
    assert kept.sha256 == split.sha256


class TestCreate:
    def test_the_same_run_goes_on(self, create: Any) -> None:
        first = create()
        started = first.record["started"]
        second = create()
        assert second == first
        assert second.record["started"] == started

    def test_where_it_runs_and_what_it_shows_may_change(self, create: Any, quiet: TrainConfig) -> None:
        assert create().id == create(config=quiet.replace(progress=True, checkpoint_every=5)).id

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"lr": 0.5}, r"its model setting 'lr' differs: got 0.5, expected 0.05"),
            ({"config": TrainConfig(device="cpu", metric="ndcg@10")}, "train setting 'metric' differs: got ndcg@10"),
        ],
    )
    def test_other_settings(self, create: Any, change: dict[str, Any], message: str) -> None:
        before = (create().path / "run.json").read_bytes()
        with pytest.raises(RunError, match=message):
            create(**change)
        assert (create().path / "run.json").read_bytes() == before

    def test_other_data(self, create: Any, other_split: Split) -> None:
        create()
        with pytest.raises(RunError, match="holds another run: its data set differs"):
            create(other_split)

    def test_other_features(self, create: Any, other_features: Split) -> None:
        create()
        with pytest.raises(RunError, match="its features of 'image' differs"):
            create(other_features)

    def test_a_folder_with_something_else(self, create: Any, tmp_path: Path) -> None:
        folder = tmp_path / "runs" / "first"
        folder.mkdir(parents=True)
        (folder / "thesis.tex").write_text("precious")
        with pytest.raises(RunError, match="is not empty and holds no run"):
            create()
        assert [one.name for one in folder.iterdir()] == ["thesis.tex"]

    def test_a_file(self, create: Any, tmp_path: Path) -> None:
        (tmp_path / "runs").mkdir()
        (tmp_path / "runs" / "first").write_text("precious")
        with pytest.raises(RunError, match="is a file"):
            create()

    def test_leftovers_of_a_kill_are_cleaned(self, create: Any, tmp_path: Path) -> None:
        folder = tmp_path / "runs" / "first"
        folder.mkdir(parents=True)
        for name in (".run.abc123.json", ".last.abc123.safetensors", ".tmpAb12cd", ".gitignore"):
            (folder / name).write_text("x")
        run = create()
        assert [one.name for one in run.path.iterdir() if one.name.startswith(".")] == [".gitignore"]

    def test_another_process_is_training(self, create: Any) -> None:
        with create().locked(), pytest.raises(RunError, match="another process is training"):
            create()
        create()

    def test_a_folder_that_cannot_be_written(self, create: Any, tmp_path: Path) -> None:
        (tmp_path / "runs").write_text("a file where a folder should be")
        with pytest.raises(RunError, match="cannot be written"):
            create()


class TestOpen:
    def test_a_finished_run(self, create: Any) -> None:
        run = create()
        finish(run)
        opened = RunFolder.open(run.path)
        assert opened == run
        assert opened.is_finished
        assert opened.record["result"] == {"best_epoch": 1}

    def test_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(RunError, match="is not a run folder"):
            RunFolder.open(tmp_path)

    def test_an_unfinished_one(self, create: Any) -> None:
        with pytest.raises(RunError, match=r"is not finished\. Run the same command again"):
            RunFolder.open(create().path)

    def test_without_weights(self, create: Any) -> None:
        run = create()
        finish(run)
        run.best.unlink()
        with pytest.raises(RunError, match=r"incomplete: got no best.safetensors"):
            RunFolder.open(run.path)

    @pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"a": 1}', b"\xff\xfe".decode("latin1")])
    def test_a_torn_record(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "run.json").write_text(text, encoding="latin1")
        with pytest.raises(RunError, match=r"run.json cannot be read"):
            RunFolder.open(tmp_path)

    def test_another_version(self, create: Any) -> None:
        run = create()
        write_json(run.path / "run.json", {**run.record, "format": 99})
        with pytest.raises(RunError, match="got format 99, expected format 1"):
            RunFolder.open(run.path)


class TestData:
    def test_the_same_data(self, create: Any, split: Split) -> None:
        run = create()
        run.check_data(split)
        run.check_train_data(split.train_data())

    def test_another_split(self, create: Any, other_split: Split) -> None:
        run = create()
        with pytest.raises(RunError, match="a run folder from another data set: the data set differs") as error:
            run.check_data(other_split)
        assert other_split.dataset.sha256[:12] in str(error.value)
        with pytest.raises(RunError, match="the train part or its features differ"):
            run.check_train_data(other_split.train_data())

    def test_other_features(self, create: Any, other_features: Split) -> None:
        with pytest.raises(RunError, match="the features of 'image' differs"):
            create().check_data(other_features)

    def test_labels_made_wrong(self, create: Any, split: Split) -> None:
        """Neither is taken for the other: a model may score by labels."""
        wrong = replace(split, dataset=replace(split.dataset, made_wrong="0.2 of the labels"))
        run = create(wrong)
        run.check_data(wrong)
        with pytest.raises(RunError, match="made wrong differs.*got nothing .*expected 0.2 of the labels"):
            run.check_data(split)

    def test_data_as_read_and_then_labels_made_wrong(self, create: Any, split: Split) -> None:
        wrong = replace(split, dataset=replace(split.dataset, made_wrong="0.2 of the labels"))
        with pytest.raises(RunError, match="made wrong differs.*got 0.2 of the labels .*expected nothing"):
            create().check_data(wrong)


class TestCounting:
    def test_each_opening_counts(self, create: Any) -> None:
        run = create()
        assert [run.count_test_opening() for _ in range(3)] == [1, 2, 3]
        assert read_json(run.path / "run.json")["test_opened"] == 3

    def test_several_at_once(self, create: Any) -> None:
        run = create()
        threads = [threading.Thread(target=run.count_test_opening) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert run.record["test_opened"] == 8


class TestModelFile:
    @pytest.fixture
    def own(self, tmp_path: Path) -> Path:
        """A model file of the user's."""
        path = tmp_path / "own.py"
        path.write_text((Path(__file__).parent / "tiny_model.py").read_text())
        return path

    @pytest.fixture
    def run(self, own: Path, tmp_path: Path, split: Split, quiet: TrainConfig) -> RunFolder:
        model = find_model(str(own))
        return RunFolder.create(tmp_path / "run", model, model.config(), quiet, split)

    def test_an_unchanged_one_is_found(self, run: RunFolder, own: Path) -> None:
        assert run.model_type.name == str(own)

    def test_a_changed_one_is_refused_and_not_executed(self, run: RunFolder, own: Path) -> None:
        own.write_text("raise SystemExit")
        with pytest.raises(RunError, match=rf"model file {own} was changed .* Restore the file, or train again"):
            _ = run.model_type

    def test_a_restored_one_is_found_again(self, run: RunFolder, own: Path) -> None:
        before = own.read_bytes()
        own.write_text("")
        own.write_bytes(before)
        assert run.model_type.name == str(own)

    def test_one_that_is_gone(self, run: RunFolder, own: Path) -> None:
        own.unlink()
        with pytest.raises(ModelError, match="does not exist"):
            _ = run.model_type

    def test_a_model_of_modalmix_has_no_file_to_compare(self, tmp_path: Path, split: Split, quiet: TrainConfig) -> None:
        model = find_model("popularity")
        run = RunFolder.create(tmp_path / "run", model, model.config(), quiet, split)
        assert run.model_type == model


def test_evaluations_are_kept_beside(create: Any) -> None:
    run = create()
    assert read_json(run.write_evaluation("test", {"recall@20": 0.5})) == {"recall@20": 0.5}
    with pytest.raises(RunError, match="cannot be named 'run'"):
        run.write_evaluation("run", {})
