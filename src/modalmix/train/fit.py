"""From a split to a fitted model. Only train and validation are opened here, never the test part."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from modalmix.data.catalog import Catalog
from modalmix.data.split import Split, TrainData
from modalmix.evaluation import PoolName, fit_calibration, fit_prior, parse_metric, validation_score
from modalmix.models.contract import (
    Calibration,
    ClosedFormRecommender,
    GradientRecommender,
    ModelConfig,
    ModelType,
    Recommender,
    Scorer,
    SequentialScorer,
    calibrate,
    find_model,
)
from modalmix.models.contract.sequential import SequentialRecommender
from modalmix.train.checkpoint import load_weights
from modalmix.train.device import Clock, open_fabric, peak_memory
from modalmix.train.loop import TrainResult, Validate, train
from modalmix.train.run import RunFolder
from modalmix.train.settings import TrainConfig
from modalmix.train.tensors import model_tensors, read_tensors, write_tensors


@dataclass(frozen=True, eq=False)
class Fitted:
    """A model with its best weights, what training gave, and the run folder it is in (None when nothing was saved)."""

    model: Recommender[Any]
    result: TrainResult
    data: TrainData
    run: RunFolder | None = None

    @property
    def catalog(self) -> Catalog:
        """The training catalogue."""
        return self.data.catalog

    @property
    def warm(self) -> Tensor:
        """Which of its items have a train event."""
        return torch.from_numpy(self.data.warm)

    def scorer(self) -> Scorer:
        """The frozen model over the training catalogue, cold items calibrated."""
        with torch.no_grad():
            return calibrate(self.model.eval().scorer(self.catalog), self.warm, self.result.calibration)


def fit(
    model: str | ModelType,
    split: Split,
    model_config: ModelConfig | None = None,
    train_config: TrainConfig | None = None,
    run_path: Path | str | None = None,
    record: Mapping[str, Any] | None = None,
) -> Fitted:
    """Fit a model on the train part and select by the validation part.

    Args:
        model: a name, the path of a model file, or what `find_model` gave.
        split: its test part is not opened.
        model_config: settings of that model, the defaults without it. Its seed decides all randomness.
        train_config: device, precision, selection.
        run_path: folder to keep the run in. A run of the same settings and data that is there goes on where it was or,
            when it is finished, is loaded.
        record: added to run.json, e.g. how the data set was read.

    Raises ModelError, ConfigError, DataError, TrainError, RunError; KeyboardInterrupt that says how to go on.
    """
    kind = find_model(model) if isinstance(model, str) else model
    settings = kind.config() if model_config is None else model_config
    if not isinstance(settings, kind.config):  # a model file that was loaded twice has two settings classes
        settings = kind.config.parse(settings.model_dump())
    config = train_config or TrainConfig()
    fitting = _fit_closed_form if issubclass(kind.recommender, ClosedFormRecommender) else _fit_by_gradient
    return fitting(kind, settings, split, config, run_path, record)


def _fit_closed_form(
    kind: ModelType,
    settings: ModelConfig,
    split: Split,
    config: TrainConfig,
    run_path: Path | str | None,
    record: Mapping[str, Any] | None,
) -> Fitted:
    data = split.train_data()
    run = None if run_path is None else RunFolder.create(run_path, kind, settings, config, split, record)
    if run is not None and run.is_finished:
        return Fitted(load_model(run, data), recorded(run), data, run)
    with run.locked() if run else nullcontext():
        clock = Clock()
        model = cast(ClosedFormRecommender[Any], kind.recommender(settings, data))
        model.fit(data)
        score = None
        validate = validation(split, config)
        if validate is not None:
            with torch.no_grad():
                score = validate(model.eval())
        memory = peak_memory(torch.device("cpu"))
        result = TrainResult(0, score, 0, "closed form", clock.seconds, clock.cpu_seconds, memory)
        result = _calibrated(model, split, config, result)
        if run is not None:
            write_tensors(run.best, model_tensors(model), {"epoch": 0, "score": score})
            _finish(run, result)
    return Fitted(model, result, data, run)


def _fit_by_gradient(
    kind: ModelType,
    settings: Any,
    split: Split,
    config: TrainConfig,
    run_path: Path | str | None,
    record: Mapping[str, Any] | None,
) -> Fitted:
    data = split.train_data()
    fabric = open_fabric(config)
    run = None
    if run_path is not None and fabric.is_global_zero:
        run = RunFolder.create(run_path, kind, settings, config, split, record)
    run = fabric.broadcast(run)
    if run is not None and run.is_finished:
        return Fitted(load_model(run, data), recorded(run), data, run)
    with run.locked() if run and fabric.is_global_zero else nullcontext():
        torch.manual_seed(settings.seed)
        model = cast(GradientRecommender[Any], kind.recommender(settings, data))
        result = train(model, data, config, validation(split, config), run, fabric)
        result = fabric.broadcast(_calibrated(model, split, config, result) if fabric.is_global_zero else result)
        if run is not None and fabric.is_global_zero:
            _finish(run, result)
    return Fitted(model, result, data, run)


def validation(split: Split, config: TrainConfig) -> Validate | None:
    """Model -> validation score, as `config` says. None when the split has no validation part.

    Raises ConfigError for an unknown metric: before training, not after its first epoch.
    """
    parse_metric(config.metric)
    if len(split.valid) == 0:
        return None
    holdout = split.validation()
    pool = selection_pool(split, config)
    return lambda model: validation_score(
        model.scorer(holdout.catalog), holdout, metric=config.metric, mask=config.mask, pool=pool
    )


def selection_pool(split: Split, config: TrainConfig) -> PoolName:
    """The candidates of validation."""
    if config.pool != "auto":
        return config.pool
    return "cold" if validates_cold(split) else "all"


def validates_cold(split: Split) -> bool:
    """Whether the split holds out whole items, and its validation part has some of them."""
    return split.cold_split and bool((split.train.item_degree == 0)[split.valid.item].any())


def load_model(run: RunFolder, data: TrainData) -> Recommender[Any]:
    """The fitted model of a finished run, in evaluation mode, on the CPU.

    Raises RunError when `data` is not what it was trained on, or the weights are torn or do not fit.
    """
    run.check_train_data(data)
    model = run.model_type.recommender(run.model_config, data)
    weights, _ = read_tensors(run.best)
    if isinstance(model, ClosedFormRecommender):
        model.restore(weights)
    else:
        load_weights(run.best, model, weights)
    return model.eval()


def _calibrated(model: Recommender[Any], split: Split, config: TrainConfig, result: TrainResult) -> TrainResult:
    """The result with what validation says of a prior, and of cold items where the split has any."""
    cold, counted = validates_cold(split), isinstance(model, SequentialRecommender) and model.config.prior != "none"
    if config.calibration == "none" or len(split.valid) == 0 or not (cold or counted):
        return result
    holdout = split.validation()
    with torch.no_grad():
        scorer = model.eval().scorer(holdout.catalog)
    factor = 1.0
    if counted and isinstance(scorer, SequentialScorer):
        factor = fit_prior(scorer, holdout, config.metric, config.mask, selection_pool(split, config))
        scorer = scorer.trusting(factor)
    found = fit_calibration(scorer, holdout, config.calibration, mask=config.mask) if cold else Calibration()
    return replace(result, cold_scale=found.scale, cold_offset=found.offset, prior_factor=factor)


def _finish(run: RunFolder, result: TrainResult) -> None:
    values = asdict(result)
    del values["history"]  # metrics.jsonl has it
    run.finish(values)


def recorded(run: RunFolder) -> TrainResult:
    """What training gave, from the folder of a finished run."""
    return TrainResult(**run.record["result"], history=run.history())
