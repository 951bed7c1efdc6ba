"""From a split to a fitted model and back from its folder."""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from modalmix.data.split import Holdout, Split
from modalmix.data.splitters import SplitConfig, make_split
from modalmix.errors import ConfigError, ModelError, RunError
from modalmix.evaluation import fit_calibration, fit_prior, validation_score
from modalmix.files import write_json
from modalmix.models.contract import Calibration, ModelType, Query, SequentialScorer, find_model
from modalmix.train import RunFolder, TrainConfig, fit, load_model
from modalmix.train.fit import recorded, validation

CLOSED = str(Path(__file__).parent / "closed_model.py")


class Sealed(Split):
    """A split whose test part must stay closed."""

    def testing(self) -> Holdout:
        raise AssertionError("the trainer opened the test part")


def sealed(split: Split) -> Split:
    parts = split.train, split.valid, split.test
    return Sealed(split.dataset, *parts, split.kind, split.settings, split.cold_split)


def all_scores(fitted: Any) -> torch.Tensor:
    return fitted.scorer()(Query(users=torch.arange(30)))


@pytest.mark.parametrize("model", ["tiny", "closed"])
def test_saved_and_loaded_equal(tmp_path: Path, tiny: ModelType, split: Split, quiet: TrainConfig, model: str) -> None:
    kind = tiny if model == "tiny" else CLOSED
    fitted = fit(kind, sealed(split), None, quiet, tmp_path / "run")
    loaded = load_model(RunFolder.open(tmp_path / "run"), split.train_data())
    assert torch.equal(loaded.scorer(split.dataset.catalog)(Query(users=torch.arange(30))), all_scores(fitted))
    assert not loaded.training


def test_the_score_is_that_of_the_validation_part(split: Split, tiny: ModelType, quiet: TrainConfig) -> None:
    fitted = fit(tiny, split, tiny.config(epochs=4), quiet.replace(metric="ndcg@5"))
    score = validation_score(fitted.scorer(), split.validation(), metric="ndcg@5")
    assert fitted.result.best_score == score
    assert fitted.result.best_score == max(row["score"] for row in fitted.result.history)


def test_the_same_with_and_without_a_folder(tmp_path: Path, split: Split, tiny: ModelType, quiet: TrainConfig) -> None:
    torch.rand(5)
    here = fit(tiny, split, None, quiet)
    there = fit(tiny, split, None, quiet, tmp_path / "run")
    assert torch.equal(all_scores(here), all_scores(there))
    assert here.run is None
    assert there.run is not None


def test_the_record_of_a_finished_run(tmp_path: Path, split: Split, tiny: ModelType, quiet: TrainConfig) -> None:
    fitted = fit(tiny, split, None, quiet, tmp_path / "run", {"source": "here"})
    record = RunFolder.open(tmp_path / "run").record
    assert record["result"]["epochs"] == 6
    assert record["result"]["best_score"] == fitted.result.best_score
    assert record["result"]["seconds"] > 0
    assert record["result"]["cpu_seconds"] > 0
    assert record["result"]["peak_memory"] > 1e7
    assert record["source"] == "here"
    assert record["finished"] >= record["started"]
    assert record["test_opened"] == 0


@pytest.mark.parametrize("model", ["tiny", "closed"])
def test_a_finished_run_is_loaded_not_fitted(
    tmp_path: Path, tiny: ModelType, split: Split, quiet: TrainConfig, model: str
) -> None:
    kind = tiny if model == "tiny" else CLOSED
    first = fit(kind, split, None, quiet, tmp_path / "run")
    written = first.run.best.stat().st_mtime_ns
    second = fit(kind, split, None, quiet, tmp_path / "run")
    assert second.result == first.result
    assert torch.equal(all_scores(second), all_scores(first))
    assert second.run.best.stat().st_mtime_ns == written


def test_an_interrupted_run_is_taken_up(
    tmp_path: Path, split: Split, tiny: ModelType, quiet: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(tiny, split, None, quiet)

    def interrupt(self: Any, epoch: int) -> None:
        if epoch == 4:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(tiny.recommender, "start_epoch", interrupt)
        with pytest.raises(KeyboardInterrupt, match=r"stopped in epoch 4\. The state after epoch 3"):
            fit(tiny, split, None, quiet, tmp_path / "run")
    with pytest.raises(RunError, match="not finished"):
        RunFolder.open(tmp_path / "run")
    resumed = fit(tiny, split, None, quiet, tmp_path / "run")
    assert torch.equal(all_scores(resumed), all_scores(whole))
    assert [row["epoch"] for row in resumed.result.history] == [1, 2, 3, 4, 5, 6]


def test_loading_for_other_data(
    tmp_path: Path, split: Split, other_split: Split, other_features: Split, quiet: TrainConfig
) -> None:
    fit(CLOSED, split, None, quiet, tmp_path / "run")
    run = RunFolder.open(tmp_path / "run")
    for other in (other_split, other_features):
        with pytest.raises(RunError, match="from another data set"):
            load_model(run, other.train_data())


def test_torn_weights(tmp_path: Path, split: Split, tiny: ModelType, quiet: TrainConfig) -> None:
    run = fit(tiny, split, None, quiet, tmp_path / "run").run
    run.best.write_bytes(run.best.read_bytes()[:-10])
    with pytest.raises(RunError, match=r"best.safetensors cannot be read"):
        load_model(RunFolder.open(run.path), split.train_data())


def test_settings_of_another_model(split: Split, tiny: ModelType) -> None:
    with pytest.raises(ConfigError, match="Settings has no setting 'dim'"):
        fit(CLOSED, split, tiny.config())


def test_settings_of_the_same_file_loaded_again(split: Split, tiny: ModelType, quiet: TrainConfig) -> None:
    assert fit(tiny.name, split, tiny.config(epochs=2), quiet).result.epochs == 2


def test_an_unknown_model(split: Split) -> None:
    with pytest.raises(ModelError, match="there is no model 'lightgnc'"):
        fit("lightgnc", split)


class TestSelection:
    def test_pool_is_cold_where_items_are_held_out_whole(
        self, split: Split, tiny: ModelType, monkeypatch: pytest.MonkeyPatch, quiet: TrainConfig
    ) -> None:
        asked: list[dict[str, Any]] = []
        monkeypatch.setitem(validation.__globals__, "validation_score", lambda *_, **how: asked.append(how) or 0.5)
        model = tiny.recommender(tiny.config(), split.train_data())
        cold = replace(split, train=split.train.take(split.train.item != split.valid.item[0]), cold_split=True)
        warm = replace(split, valid=split.train, cold_split=True)
        for one, pool in ((split, "auto"), (cold, "auto"), (cold, "warm"), (warm, "auto")):
            validation(one, quiet.replace(pool=pool, mask="train"))(model)  # type: ignore[misc]
        assert [how["pool"] for how in asked] == ["all", "cold", "warm", "all"]
        assert asked[0] == {"metric": "recall@20", "mask": "train", "pool": "all"}

    def test_an_unknown_metric_is_told_before_training(
        self, split: Split, tiny: ModelType, quiet: TrainConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tiny.recommender, "start_epoch", lambda *_: pytest.fail("training began"))
        with pytest.raises(ConfigError, match="there is no metric 'recal'"):
            fit(tiny, split, None, quiet.replace(metric="recal@20"))

    def test_no_validation_part(self, split: Split, tiny: ModelType, quiet: TrainConfig) -> None:
        none = replace(split, valid=split.valid.take(np.zeros(len(split.valid), dtype=bool)))
        result = fit(tiny, none, None, quiet).result
        assert (result.best_epoch, result.best_score) == (6, None)


def test_early_stopping_by_validation(split: Split, tiny: ModelType, quiet: TrainConfig) -> None:
    """Trained far too long on 240 events, the best epoch is early and training stops `patience` after it."""
    result = fit(tiny, split, tiny.config(epochs=400, patience=5, lr=0.3), quiet.replace(metric="recall@5")).result
    assert result.stopped == "patience"
    assert result.epochs == result.best_epoch + 5


def test_two_folders_of_the_same_settings_hold_the_same_bits(
    tmp_path: Path, split: Split, tiny: ModelType, quiet: TrainConfig, same_bits: Callable[..., bool]
) -> None:
    one, other = (fit(tiny, split, None, quiet, tmp_path / name) for name in ("a", "b"))
    assert one.run.best.read_bytes() == other.run.best.read_bytes()
    assert same_bits(one.model, other.model)


class TestCalibration:
    """Item popularity, where a cold item scores 0, so that no list has it until it is lifted."""

    @pytest.fixture
    def cold(self, split: Split) -> Split:
        return sealed(make_split(split.dataset, SplitConfig(kind="cold-item", seed=1)))

    def test_it_is_fitted_on_validation_and_the_test_part_stays_closed(self, cold: Split, quiet: TrainConfig) -> None:
        fitted = fit(CLOSED, cold, None, quiet)
        model = fitted.model.scorer(cold.dataset.catalog)
        found = fitted.result.calibration
        assert found == fit_calibration(model, cold.validation(), "offset")
        assert found.offset > 0
        raw = model(Query(users=torch.arange(30)))
        expected = raw + found.offset * torch.from_numpy(~cold.train_data().warm)
        torch.testing.assert_close(all_scores(fitted), expected)

    @pytest.mark.parametrize("kind", ["norm", "offset", "norm-offset"])
    def test_the_setting_names_the_kind_and_the_mask_is_that_of_selection(
        self, cold: Split, quiet: TrainConfig, kind: Any
    ) -> None:
        model = str(Path(__file__).parent / "tiny_model.py")
        fitted = fit(model, cold, None, quiet.replace(calibration=kind, mask="train"))
        scorer = fitted.model.scorer(cold.dataset.catalog)
        expected = fit_calibration(scorer, cold.validation(), kind, mask="train")
        assert (fitted.result.cold_scale, fitted.result.cold_offset) == (expected.scale, expected.offset)

    def test_selection_is_by_scores_as_they_are(self, cold: Split, tiny: ModelType, quiet: TrainConfig) -> None:
        """The weights and the best score are those without a calibration."""
        plain, fitted = (fit(tiny, cold, None, quiet.replace(calibration=kind)) for kind in ("none", "norm-offset"))
        assert plain.result.calibration == Calibration()
        assert fitted.result.best_score == plain.result.best_score
        assert torch.equal(fitted.model.get_parameter("items.weight"), plain.model.get_parameter("items.weight"))
        assert torch.equal(all_scores(plain), plain.model.scorer(plain.catalog)(Query(users=torch.arange(30))))

    def test_there_is_none_where_items_are_not_held_out_whole(self, split: Split, quiet: TrainConfig) -> None:
        assert fit(CLOSED, split, None, quiet).result.calibration == Calibration()

    def test_there_is_none_without_a_validation_part(self, cold: Split, quiet: TrainConfig) -> None:
        blind = replace(cold, valid=cold.valid.take(np.zeros(len(cold.valid), dtype=bool)))
        assert fit(CLOSED, blind, None, quiet).result.calibration == Calibration()

    @pytest.mark.parametrize("model", ["tiny", "closed"])
    def test_a_finished_run_keeps_it(
        self, tmp_path: Path, cold: Split, tiny: ModelType, quiet: TrainConfig, model: str
    ) -> None:
        kind = tiny if model == "tiny" else CLOSED
        how = quiet.replace(calibration="norm-offset" if model == "tiny" else "offset")
        fitted = fit(kind, cold, None, how, tmp_path / "run")
        again = fit(kind, cold, None, how, tmp_path / "run")
        assert fitted.result.calibration != Calibration()
        assert again.result.calibration == recorded(RunFolder.open(tmp_path / "run")).calibration
        assert again.result.calibration == fitted.result.calibration
        assert torch.equal(all_scores(again), all_scores(fitted))


class TestPrior:
    """A sequential model with counted transitions beside it: validation says how far they are trusted."""

    @pytest.fixture
    def cold(self, split: Split) -> Split:
        return sealed(make_split(split.dataset, SplitConfig(kind="cold-item", seed=1)))

    SMALL: ClassVar = {"dim": 4, "hidden": 4, "layers": 1, "length": 5, "epochs": 2, "prior": "transitions"}

    @pytest.fixture
    def walks(self, split: Split) -> Split:
        events = split.dataset.interactions
        in_order = replace(events, time=np.arange(len(events), dtype=np.int64))
        dataset = replace(split.dataset, interactions=in_order)
        return sealed(make_split(dataset, SplitConfig(kind="leave-last-two-out")))

    def test_it_is_asked_with_what_selects(
        self, walks: Split, quiet: TrainConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[Any] = []

        def spy(scorer: Any, holdout: Holdout, *how: str) -> float:
            asked.append((holdout.name, *how))
            return 4.0

        monkeypatch.setattr(import_module("modalmix.train.fit"), "fit_prior", spy)
        how = quiet.replace(metric="ndcg@7", mask="train", pool="warm")
        fitted = fit("sasrec", walks, find_model("sasrec").config.parse(self.SMALL), how)
        assert asked == [("valid", "ndcg@7", "train", "warm")]
        assert fitted.result.prior_factor == 4.0

    def test_cold_items_are_calibrated_beside_the_prior_as_it_is_then(self, cold: Split, quiet: TrainConfig) -> None:
        fitted = fit("sasrec", cold, find_model("sasrec").config.parse(self.SMALL), quiet)
        scorer, holdout, result = fitted.model.scorer(cold.dataset.catalog), cold.validation(), fitted.result
        assert isinstance(scorer, SequentialScorer)
        assert result.prior_factor == fit_prior(scorer, holdout, quiet.metric, quiet.mask, "cold")
        trusted = fit_calibration(scorer.trusting(result.prior_factor), holdout, "offset", mask=quiet.mask)
        assert result.cold_offset == trusted.offset != fit_calibration(scorer.trusting(0.0), holdout, "offset").offset

    def test_it_is_fitted_on_validation(self, walks: Split, quiet: TrainConfig) -> None:
        how = quiet.replace(metric="ndcg@10", mask="none")
        fitted = fit("sasrec", walks, find_model("sasrec").config.parse(self.SMALL), how)
        scorer, holdout = fitted.model.scorer(walks.dataset.catalog), walks.validation()
        assert isinstance(scorer, SequentialScorer)
        factor = fitted.result.prior_factor
        assert factor == fit_prior(scorer, holdout, "ndcg@10", "none") != 1.0
        torch.testing.assert_close(all_scores(fitted), scorer.trusting(factor)(Query(users=torch.arange(30))))
        assert fitted.result.best_score == validation_score(scorer, holdout, "ndcg@10", "none")

    def test_there_is_none_to_fit(self, walks: Split, quiet: TrainConfig) -> None:
        config = find_model("sasrec").config
        assert fit("sasrec", walks, config.parse(self.SMALL | {"prior": "none"}), quiet).result.prior_factor == 1.0
        left = fit("sasrec", walks, config.parse(self.SMALL), quiet.replace(calibration="none"))
        assert left.result.prior_factor == 1.0
        assert fit("transitions", walks, None, quiet).result.prior_factor == 1.0

    def test_a_finished_run_keeps_it(self, tmp_path: Path, walks: Split, quiet: TrainConfig) -> None:
        config = find_model("sasrec").config.parse(self.SMALL)
        fitted = fit("sasrec", walks, config, quiet, tmp_path / "run")
        again = fit("sasrec", walks, config, quiet, tmp_path / "run")
        assert again.result.prior_factor == fitted.result.prior_factor != 1.0
        assert torch.equal(all_scores(again), all_scores(fitted))

    def test_a_run_of_before_there_were_priors_has_none(self, tmp_path: Path, walks: Split, quiet: TrainConfig) -> None:
        small = {"dim": 4, "hidden": 4, "layers": 1, "length": 5, "epochs": 2, "whiten": 2, "prior": "none"}
        config = find_model("cammsr").config.parse(small | {"category_weighting": "none"})
        fitted = fit("cammsr", walks, config, quiet, tmp_path / "run")
        run = RunFolder.open(tmp_path / "run")
        record = run.record
        for name in ("prior", "trust", "transitions"):
            del record["model"]["config"][name]
        del record["result"]["prior_factor"]
        write_json(run.path / "run.json", record)
        again = load_model(run, walks.train_data())
        assert (again.config.prior, recorded(run).prior_factor) == ("none", 1.0)
        asked = Query(users=torch.arange(30))
        assert torch.equal(again.scorer(walks.dataset.catalog)(asked), all_scores(fitted))
