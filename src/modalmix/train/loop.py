"""The training loop: one, for every model, on every device."""

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch

from modalmix.data.split import TrainData
from modalmix.errors import TrainError
from modalmix.models.contract import Calibration, GradientConfig, GradientRecommender, Recommender
from modalmix.train.checkpoint import Checkpoints, TrainState
from modalmix.train.device import Clock, deterministic, open_fabric, peak_memory, seed_epoch
from modalmix.train.log import Log
from modalmix.train.losses import EpochLosses
from modalmix.train.run import RunFolder
from modalmix.train.settings import TrainConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CHECK_EVERY = 64  # steps between looks at the losses: a look makes a GPU wait
Validate = Callable[[Recommender[Any]], float]
Batch = TypeVar("Batch")


@dataclass(frozen=True)
class TrainResult:
    """What training gave. `history` has one row an epoch, as in metrics.jsonl; times add up over resumed sessions."""

    best_epoch: int
    best_score: float | None
    epochs: int
    stopped: str
    seconds: float
    cpu_seconds: float
    peak_memory: int
    history: tuple[dict[str, Any], ...] = ()
    cold_scale: float = 1.0
    cold_offset: float = 0.0
    prior_factor: float = 1.0

    @property
    def calibration(self) -> Calibration:
        """What was fitted on validation after training: how cold items are calibrated, how far a prior is trusted."""
        return Calibration(self.cold_scale, self.cold_offset, self.prior_factor)


def train(
    model: GradientRecommender[Any],
    data: TrainData,
    config: TrainConfig,
    validate: Validate | None = None,
    run: RunFolder | None = None,
    fabric: "Fabric | None" = None,
) -> TrainResult:
    """Train until `epochs`, or until `patience` epochs brought no better validation score; keep the best weights.

    With a run folder that holds a checkpoint, goes on after it: the final weights have the same bits as those of an
    uninterrupted run, because all randomness of an epoch is drawn from (seed, epoch). Without `validate` the last epoch
    counts as the best. The model ends on the CPU, in evaluation mode, with the best weights.

    Raises NonFiniteLossError and TrainError; RunError when the run folder cannot be read or written; KeyboardInterrupt
    that says how to go on.
    """
    fabric = fabric or open_fabric(config)
    settings: GradientConfig = model.config
    preparing = Clock()
    model.prepare(data)
    seconds, cpu_seconds = preparing.seconds, preparing.cpu_seconds
    wrapped, optimizer = fabric.setup(model, model.optimizer())
    wrapped.mark_forward_method("loss")  # under DDP its gradients are averaged over the processes
    checkpoints = Checkpoints(run, model, optimizer.optimizer, fabric.strategy.precision, fabric.is_global_zero)
    state = checkpoints.resume()
    state.seconds += seconds
    state.cpu_seconds += cpu_seconds
    log = Log(run if fabric.is_global_zero else None, config, settings.epochs, state, fabric.is_global_zero)
    try:
        with log:
            while state.stopped is None:
                clock, epoch = Clock(), state.epoch + 1
                losses = train_epoch(epoch, model, wrapped.loss, optimizer, data, config, fabric, log)
                report = {name: float(value) for name, value in model.report().items()}
                due = epoch % settings.eval_every == 0 or epoch == settings.epochs
                score = validation(model, validate, fabric) if validate and due else None
                if select(state, epoch, score, model):
                    checkpoints.keep_best(epoch, score)
                lr = optimizer.param_groups[0]["lr"]
                memory = peak_memory(fabric.device)
                state.add(epoch, losses, report, score, lr, clock.seconds, clock.cpu_seconds, memory)
                log.epoch(state)
                if epoch % config.checkpoint_every == 0 or state.stopped:
                    checkpoints.save(state)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(checkpoints.how_to_go_on(state.epoch + 1)) from None
    fabric.barrier()
    checkpoints.restore_best()
    model.cpu().eval()
    return TrainResult(
        state.best_epoch,
        state.best_score,
        state.epoch,
        state.stopped,
        state.seconds,
        state.cpu_seconds,
        max(row["peak_memory"] for row in state.history),
        tuple(state.history),
    )


def train_epoch(
    epoch: int,
    model: GradientRecommender[Any],
    loss: Callable[[Any], Any],
    optimizer: Any,
    data: TrainData,
    config: TrainConfig,
    fabric: "Fabric",
    log: Log,
) -> dict[str, float]:
    """One pass over the training examples; the mean of each loss term. `loss` is the model's, wrapped by Fabric."""
    settings: GradientConfig = model.config
    rng = seed_epoch(settings.seed, epoch, fabric.global_rank)
    model.train()
    model.start_epoch(epoch)
    set_learning_rates(optimizer, model.lr_scale(epoch))
    losses = EpochLosses(epoch)
    n_batches = max(1, model.n_batches(data, settings.batch_size))
    batches = model.batches(data, settings.batch_size, rng)
    with deterministic(config.deterministic):
        for step, batch in enumerate(share(batches, fabric.global_rank, fabric.world_size), start=1):
            if fabric.device.type != "cpu":
                batch = fabric.to_device(batch)
            optimizer.zero_grad()
            with fabric.autocast():
                terms = loss(batch)
            fabric.backward(losses.add(terms))
            optimizer.step()
            if step % CHECK_EVERY == 0:
                losses.check()
                log.step(step * fabric.world_size / n_batches, losses.means())
    losses.check()
    if losses.steps == 0:
        raise TrainError(f"epoch {epoch} has no batch", expected=f"at least {fabric.world_size}, one a process")
    means = average(losses.means(), fabric)
    monitored = {name: float(value) for name, value in model.monitored().items()}
    model.end_epoch(epoch, means | average(monitored, fabric))
    return means


def set_learning_rates(optimizer: Any, scale: float) -> None:
    """The learning rate of each group is `scale` times its first one, which the group keeps: it is in checkpoints."""
    for group in optimizer.param_groups:
        group["lr"] = group.setdefault("initial_lr", group["lr"]) * scale


def validation(model: GradientRecommender[Any], validate: Validate, fabric: "Fabric") -> float:
    """The validation score of the model as it is now, the same in every process. Raises TrainError when it is NaN."""
    score = 0.0
    if fabric.is_global_zero:
        model.eval()
        with torch.no_grad():
            score = float(validate(model))
    score = fabric.broadcast(score)
    if not math.isfinite(score):
        raise TrainError(
            "the validation score", got=score, expected="a finite number", fix="Is there a validation part?"
        )
    return score


def select(state: TrainState, epoch: int, score: float | None, model: GradientRecommender[Any]) -> bool:
    """Whether this epoch is the best so far. Counts patience while the model is settled, and says when to stop."""
    settings: GradientConfig = model.config
    last = epoch >= settings.epochs
    if score is None:  # not validated: then only the end can count
        better = last
    else:
        better = state.best_score is None or score > state.best_score
        if better:
            state.waited = 0
        elif model.settled:
            state.waited += settings.eval_every
    if better:
        state.best_epoch, state.best_score = epoch, score
    if state.waited >= settings.patience:
        state.stopped = "patience"
    elif last:
        state.stopped = "epochs"
    return better


def share(batches: Iterator[Batch], rank: int, world: int) -> Iterator[Batch]:
    """Every world-th batch from `rank`, as many for every process: an incomplete last round is left out."""
    while len(batch_of := list(itertools.islice(batches, world))) == world:
        yield batch_of[rank]


def average(means: dict[str, float], fabric: "Fabric") -> dict[str, float]:
    """The mean over processes; each has seen as many steps."""
    if fabric.world_size == 1 or not means:
        return means
    values = torch.tensor(list(means.values()), device=fabric.device)
    values = cast(torch.Tensor, fabric.all_reduce(values, reduce_op="mean"))
    return dict(zip(means, values.tolist(), strict=True))
