"""The loop: what it keeps, when it stops, that seeds decide, that an interruption changes no bit."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from modalmix.errors import DataError, NonFiniteLossError, TrainError
from modalmix.models.contract import ModelType, Recommender, find_model
from modalmix.train import loop
from modalmix.train.checkpoint import TrainState
from modalmix.train.loop import select, share, train
from modalmix.train.run import RunFolder
from modalmix.train.settings import TrainConfig
from modalmix.train.tensors import read_tensors

Train = Callable[..., tuple[Recommender[Any], Any]]


def scripted(*scores: float) -> Callable[[Recommender[Any]], float]:
    """A validation that gives these scores, then the last one for ever."""
    left = list(scores)
    return lambda model: left.pop(0) if len(left) > 1 else left[0]


class TestStopping:
    def test_patience(self, train_tiny: Train) -> None:
        _, result = train_tiny(None, scripted(0.1, 0.3, 0.2, 0.2, 0.3, 0.9), epochs=50, patience=3)
        assert (result.best_epoch, result.best_score, result.epochs, result.stopped) == (2, 0.3, 5, "patience")

    def test_a_better_score_starts_the_count_again(self, train_tiny: Train) -> None:
        _, result = train_tiny(None, scripted(0.3, 0.2, 0.4, 0.1, 0.1), epochs=50, patience=2)
        assert (result.best_epoch, result.epochs) == (3, 5)

    def test_patience_is_in_epochs_whatever_eval_every(self, train_tiny: Train) -> None:
        _, result = train_tiny(None, scripted(0.3, 0.2), epochs=50, patience=4, eval_every=2)
        assert (result.best_epoch, result.epochs) == (2, 6)
        assert [row["score"] for row in result.history] == [None, 0.3, None, 0.2, None, 0.2]

    def test_waits_until_the_model_is_settled(self, train_tiny: Train) -> None:
        """The latch closes at the end of epoch 5: epochs 5, 6 and 7 count."""
        _, result = train_tiny(None, scripted(0.3, 0.2), epochs=50, patience=3, settle_at=5)
        assert (result.best_epoch, result.epochs, result.stopped) == (1, 7, "patience")

    def test_epochs_are_the_limit_and_the_last_is_validated(self, train_tiny: Train) -> None:
        _, result = train_tiny(None, scripted(0.3, 0.4), epochs=5, eval_every=3)
        assert (result.epochs, result.stopped, result.best_epoch) == (5, "epochs", 5)
        assert [row["score"] for row in result.history] == [None, None, 0.3, None, 0.4]

    def test_scores_are_not_rounded(self, tiny: ModelType, split: Any) -> None:
        model = tiny.recommender(tiny.config(), split.train_data())
        state = TrainState(epoch=1, best_epoch=1, best_score=0.1)
        assert select(state, 2, 0.1 + 1e-12, model)
        assert not select(state, 3, 0.1 + 1e-12, model)

    def test_nan_score(self, train_tiny: Train) -> None:
        with pytest.raises(TrainError, match="the validation score: got nan"):
            train_tiny(None, scripted(float("nan")))


class TestBest:
    def test_the_model_ends_with_the_best_weights(self, train_tiny: Train, same_bits: Callable[..., bool]) -> None:
        best, _ = train_tiny(None, epochs=3)
        model, result = train_tiny(None, scripted(0.1, 0.2, 0.3, 0.0), epochs=8)
        assert result.best_epoch == 3
        assert same_bits(model, best)
        assert not model.training

    def test_without_validation_the_last_epoch_is_the_best(self, train_tiny: Train) -> None:
        _, result = train_tiny(None, epochs=4, patience=1)
        assert (result.best_epoch, result.best_score, result.epochs, result.stopped) == (4, None, 4, "epochs")

    def test_it_learns(self, train_tiny: Train) -> None:
        _, result = train_tiny(None, epochs=30)
        assert result.history[-1]["loss"]["bpr"] < 0.5 * result.history[0]["loss"]["bpr"]
        assert result.seconds > 0
        assert 1e7 < result.peak_memory < 1e11  # bytes: this process has torch in it


class TestSeeds:
    def test_the_same_seed_gives_the_same_bits(self, train_tiny: Train, same_bits: Callable[..., bool]) -> None:
        first, _ = train_tiny()
        torch.rand(17)
        second, _ = train_tiny()
        assert same_bits(first, second)

    def test_another_seed_gives_others(self, train_tiny: Train, same_bits: Callable[..., bool]) -> None:
        assert not same_bits(train_tiny()[0], train_tiny(seed=3)[0])

    def test_validation_draws_change_nothing(self, train_tiny: Train, same_bits: Callable[..., bool]) -> None:
        def draws(model: Recommender[Any]) -> float:
            np.random.default_rng().random()
            return float(torch.rand(1)) * 0 + draws.calls.pop()

        draws.calls = [6.0, 5.0, 4.0, 3.0, 2.0, 1.0]  # type: ignore[attr-defined]
        assert same_bits(train_tiny()[0], train_tiny(None, draws)[0])

    def test_every_epoch_draws_anew(self, train_tiny: Train, tiny: ModelType, split: Any) -> None:
        data = split.train_data()
        model = tiny.recommender(tiny.config(), data)
        batches = [list(model.batches(data, 64, loop.seed_epoch(1, epoch, 0))) for epoch in (1, 2, 1)]
        assert torch.equal(batches[0][0].negative, batches[2][0].negative)
        assert not torch.equal(batches[0][0].negative, batches[1][0].negative)

    def test_the_determinism_switch_is_put_back(self, train_tiny: Train) -> None:
        assert not torch.are_deterministic_algorithms_enabled()
        train_tiny()
        assert not torch.are_deterministic_algorithms_enabled()
        assert torch.utils.deterministic.fill_uninitialized_memory


class TestReport:
    """What a model monitors in an epoch is given to `end_epoch`; what it reports after that is in the epoch's row."""

    def rows(self, folder: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]

    def test_the_epoch_ends_with_losses_and_what_is_monitored(self, tmp_path: Path, train_tiny: Train) -> None:
        model, result = train_tiny(tmp_path / "run", epochs=3)
        assert [row["report"] for row in self.rows(tmp_path / "run")] == [row["report"] for row in result.history]
        for row in result.history:
            assert list(row["loss"]) == ["bpr", "reg"], "what is monitored is no loss"
            assert row["report"].keys() == {"latch", "negative", "bpr", "reg"}
            assert {name: row["report"][name] for name in row["loss"]} == row["loss"]
        assert result.history[-1]["report"]["negative"] == float(model.monitored()["negative"])  # type: ignore[operator]
        assert len({row["report"]["negative"] for row in result.history}) == 3, "of this epoch alone"

    def test_it_is_asked_for_before_validation(
        self, train_tiny: Train, tiny: ModelType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        order: list[str] = []
        kind = tiny.recommender
        for name, whole in {"monitored": kind.monitored, "end_epoch": kind.end_epoch, "report": kind.report}.items():

            def told(self: Any, *given: Any, name: str = name, whole: Any = whole) -> Any:
                order.append(name)
                return whole(self, *given)

            monkeypatch.setattr(kind, name, told)
        train_tiny(None, lambda model: order.append("validation") or 0.1, epochs=2)
        assert order == ["monitored", "end_epoch", "report", "validation"] * 2

    def test_numbers_of_any_kind_become_json(
        self, tmp_path: Path, train_tiny: Train, tiny: ModelType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        found = {"tensor": torch.tensor(0.5), "numpy": np.float32(0.25), "integer": 2, "truth": True}
        monkeypatch.setattr(tiny.recommender, "report", lambda self: found)
        train_tiny(tmp_path / "run", epochs=1)
        assert self.rows(tmp_path / "run")[0]["report"] == {"tensor": 0.5, "numpy": 0.25, "integer": 2.0, "truth": 1.0}

    def test_a_model_that_has_nothing_to_tell(self, split: Any, quiet: TrainConfig) -> None:
        prepared = find_model(str(Path(__file__).parent / "prepared_model.py"))
        data = split.train_data()
        result = train(prepared.recommender(prepared.config(), data), data, quiet)
        assert [row["report"] for row in result.history] == [{}] * 5


class TestPrepare:
    """Buffers that a model fills before it trains (prepared_model.py)."""

    @pytest.fixture
    def prepared(self) -> ModelType:
        return find_model(str(Path(__file__).parent / "prepared_model.py"))

    @pytest.fixture
    def run(self, prepared: ModelType, split: Any, quiet: TrainConfig) -> Callable[..., Recommender[Any]]:
        def run(folder: Path | None = None) -> Recommender[Any]:
            torch.manual_seed(7)
            data = split.train_data()
            model = prepared.recommender(prepared.config(), data)
            if folder is not None:
                folder.mkdir(exist_ok=True)
            train(model, data, quiet, None, None if folder is None else RunFolder(folder, "run-1"))
            return model

        return run

    @pytest.fixture
    def interrupted(
        self, tmp_path: Path, prepared: ModelType, run: Callable[..., Recommender[Any]], monkeypatch: pytest.MonkeyPatch
    ) -> Path:
        """The folder of a run that was stopped in its fourth epoch."""

        def interrupt(self: Any, epoch: int) -> None:
            if epoch == 4:
                raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(prepared.recommender, "start_epoch", interrupt)
            with pytest.raises(KeyboardInterrupt):
                run(tmp_path / "run")
        return tmp_path / "run"

    def test_its_time_counts(
        self, split: Any, prepared: ModelType, quiet: TrainConfig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(prepared.recommender, "prepare", lambda self, data: time.sleep(0.3))
        data = split.train_data()
        result = train(prepared.recommender(prepared.config(), data), data, quiet)
        assert result.seconds >= 0.3 + sum(row["seconds"] for row in result.history)

    def test_the_first_batch_finds_the_buffers_filled(
        self, run: Callable[..., Recommender[Any]], split: Any, prepared: ModelType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole, found = prepared.recommender.loss, []

        def loss(self: Any, batch: Any) -> Any:
            found.append((self.weight.item(), self.popularity.tolist()))
            return whole(self, batch)

        monkeypatch.setattr(prepared.recommender, "loss", loss)
        run()
        assert found[0] == (1.0, split.train.item_degree.tolist())

    def test_what_is_not_saved_is_prepared_again_and_no_bit_changes(
        self, run: Callable[..., Recommender[Any]], interrupted: Path, same_bits: Callable[..., bool], tmp_path: Path
    ) -> None:
        saved = read_tensors(interrupted / "last.safetensors")[0]
        assert not any("popularity" in name for name in saved)
        resumed, whole, without_a_folder = run(interrupted), run(tmp_path / "whole"), run()
        assert same_bits(resumed, whole)
        assert same_bits(resumed, without_a_folder)
        assert torch.equal(resumed.get_buffer("popularity"), whole.get_buffer("popularity"))

    def test_what_is_saved_wins_over_what_is_prepared(
        self, run: Callable[..., Recommender[Any]], interrupted: Path
    ) -> None:
        """The weight doubles every epoch. Were it prepared after the checkpoint is read, it would end at 4, not 32."""
        assert read_tensors(interrupted / "last.safetensors")[0]["model/weight"] == 8.0
        assert run(interrupted).get_buffer("weight") == 32.0


class TestBadModels:
    def test_nan_term_is_named(self, train_tiny: Train, tiny: ModelType, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = tiny.recommender.loss
        steps = iter(range(1, 100))

        def loss(self: Any, batch: Any) -> Any:
            return whole(self, batch) | {"reg": torch.tensor(float("nan") if next(steps) == 6 else 0.0)}

        monkeypatch.setattr(tiny.recommender, "loss", loss)  # 240 events, 64 a batch: 4 steps an epoch
        with pytest.raises(NonFiniteLossError, match=r"'reg' at epoch 2, step 2"):
            train_tiny()

    def test_a_nan_weight_is_not_saved(
        self, tmp_path: Path, train_tiny: Train, tiny: ModelType, monkeypatch: Any
    ) -> None:
        """A loss can be fine while its last gradient was not: the next loss would show it, a checkpoint too late."""

        def end_epoch(self: Any, epoch: int, means: Any) -> None:
            if epoch == 3:
                self.items.weight.data[2, 1] = float("nan")

        monkeypatch.setattr(tiny.recommender, "end_epoch", end_epoch)
        with pytest.raises(TrainError, match=r"weight 'items.weight' is NaN or infinite after epoch 3"):
            train_tiny(tmp_path / "run", scripted(0.2, 0.1))
        assert read_tensors(tmp_path / "run" / "last.safetensors")[1]["state"]["epoch"] == 2

    def test_no_batch(self, train_tiny: Train, tiny: ModelType, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tiny.recommender, "batches", lambda *_: iter(()))
        with pytest.raises(TrainError, match="epoch 1 has no batch"):
            train_tiny()

    def test_no_train_events(self, split: Any, tiny: ModelType, quiet: TrainConfig) -> None:
        from dataclasses import replace

        data = replace(split.train_data(), interactions=split.train.take(np.zeros(len(split.train), dtype=bool)))
        with pytest.raises(DataError, match="no interactions"):
            train(tiny.recommender(tiny.config(), data), data, quiet)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_batches_evenly(world: int) -> None:
    shares = [list(share(iter(range(8)), rank, world)) for rank in range(world)]
    assert (
        shares
        == {
            1: [[0, 1, 2, 3, 4, 5, 6, 7]],
            2: [[0, 2, 4, 6], [1, 3, 5, 7]],
            3: [[0, 3], [1, 4], [2, 5]],  # 6 and 7 would leave one process without a batch
        }[world]
    )


class TestLearningRate:
    """Each epoch's rate is the first one times `lr_scale(epoch)`."""

    @pytest.fixture
    def falling(self, tiny: ModelType, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        scales = [1.0, 0.8, 0.5, 0.25, 0.1, 0.0]
        monkeypatch.setattr(tiny.recommender, "lr_scale", lambda self, epoch: scales[epoch - 1])
        return [0.05 * scale for scale in scales]

    def test_it_falls_as_the_model_says_and_is_recorded(self, train_tiny: Train, falling: list[float]) -> None:
        _, result = train_tiny()
        assert [row["lr"] for row in result.history] == falling

    def test_a_rate_of_zero_changes_nothing(
        self, train_tiny: Train, falling: list[float], same_bits: Callable[..., bool]
    ) -> None:
        assert same_bits(train_tiny(None, epochs=5)[0], train_tiny(None, epochs=6)[0])

    def test_it_stays_without_a_schedule(self, train_tiny: Train) -> None:
        assert {row["lr"] for row in train_tiny()[1].history} == {0.05}

    def test_a_resumed_run_has_the_same_rates_and_bits(
        self,
        tmp_path: Path,
        train_tiny: Train,
        tiny: ModelType,
        falling: list[float],
        same_bits: Callable[..., bool],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        whole = tiny.recommender.start_epoch

        def interrupt(self: Any, epoch: int) -> None:
            if epoch == 4:
                raise KeyboardInterrupt
            whole(self, epoch)

        with monkeypatch.context() as patched:
            patched.setattr(tiny.recommender, "start_epoch", interrupt)
            with pytest.raises(KeyboardInterrupt):
                train_tiny(tmp_path / "run")
        resumed, result = train_tiny(tmp_path / "run")
        assert [row["lr"] for row in result.history] == falling
        assert same_bits(resumed, train_tiny()[0])
