"""Two-stage entropy weighting of routing: first cover all experts, then let each pair decide.

MAGNET (arXiv 2602.20723) publishes the two regimes, an entropy threshold and a trigger window; the rule is ours
(docs/models/magnet.md).
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn


def entropy(p: Float[Tensor, "*rows parts"]) -> Float[Tensor, "*rows"]:
    """-sum p log p over the last dimension, divided by log(parts): 1 for uniform, 0 for a single part.

    The gradient is finite where p is 0, as it is for an expert that is masked: there -log p is cut off.
    """
    surprise = -p.clamp(min=torch.finfo(p.dtype).tiny).log()
    return (p * surprise).sum(dim=-1) / math.log(p.shape[-1])


def utilisation(gates: Float[Tensor, "pairs experts"]) -> Float[Tensor, ""]:
    """H_use: entropy of the mean gate. 1 when all experts are used alike."""
    return entropy(gates.mean(dim=0))


def hesitation(gates: Float[Tensor, "pairs experts"]) -> Float[Tensor, ""]:
    """H_route: mean entropy of the gates. 0 when every pair is sure. H_use - H_route is the mutual information of pair
    and expert, over log(experts)."""
    return entropy(gates).mean()


@final
class EpochRouting:
    """How an epoch routes: the mean gate and the mean entropy of the gates over all pairs, gathered batch by batch."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, gates: Float[Tensor, "pairs experts"]) -> None:
        """A batch."""
        seen = {"gate": gates.sum(dim=0), "route": entropy(gates).sum(), "pairs": gates.new_tensor(len(gates))}
        self._sums = {name: value + self._sums.get(name, 0.0) for name, value in seen.items()}

    def means(self) -> Mapping[str, Tensor]:
        """{"gate/0": mean gate of the first expert, ..., "H_route": mean entropy}; empty without a pair."""
        if not self._sums or not float(self._sums["pairs"]):
            return {}
        pairs = self._sums["pairs"]
        gates = {f"gate/{k}": value for k, value in enumerate(self._sums["gate"] / pairs)}
        return gates | {"H_route": self._sums["route"] / pairs}


@dataclass(frozen=True)
class Trigger:
    """When coverage gives way to specialisation. `rule`:

    coverage: from epoch `first`, when over the last `window` epochs H_use was never below `threshold` and H_route
    moved by at most `still`; entropy_below: when H_route was below `threshold` over the window; plateau: when H_route
    moved by at most `still`, whatever H_use is; epoch:n: at the end of epoch n; never. Forced at the end of epoch
    `latest`, but for never and epoch:n.
    """

    rule: str = "coverage"
    first: int = 5
    window: int = 3
    threshold: float = 0.90
    still: float = 0.02
    latest: int = 30

    def __post_init__(self) -> None:
        """Raises ValueError for an unknown rule."""
        named = self.rule in ("coverage", "entropy_below", "plateau", "never")
        if not named and not (self.rule.startswith("epoch:") and self.rule[6:].isdecimal()):
            raise ValueError(f"trigger '{self.rule}'; expected coverage, entropy_below, plateau, epoch:n or never")

    def fires(self, epoch: int, use: Tensor, route: Tensor) -> bool:
        """Whether it fires at the end of this epoch. `use`, `route`: the last `window` epochs, oldest first, fewer at
        the start."""
        if self.rule == "never":
            return False
        if self.rule.startswith("epoch:"):
            return epoch >= int(self.rule[6:])
        if epoch < self.first or len(route) < self.window:
            return False
        steady = bool(route.max() - route.min() <= self.still)
        if self.rule == "entropy_below":
            return bool((route < self.threshold).all())
        return steady and (self.rule == "plateau" or bool((use >= self.threshold).all()))

    def forced(self, epoch: int) -> bool:
        """Whether the time for it to fire by itself is over."""
        return epoch >= self.latest and self.rule != "never" and not self.rule.startswith("epoch:")


@final
class EntropySchedule(nn.Module):
    """Weights of the two routing terms by epoch, and the one-way latch between the stages, saved with the model.

    Stage 1: w_cov = `cover`, w_spec = 0. Stage 2, s epochs in, over `ramp` epochs by a cosine: w_cov falls to .3 of
    itself, w_spec rises to `specialise`. Collapse guard: H_use below `collapse` for a window in stage 2 puts w_cov back
    to full, once.
    """

    KEPT, COLLAPSE = 0.3, 0.5

    stage: Tensor
    triggered: Tensor
    was_forced: Tensor
    guarded: Tensor
    history: Tensor
    seen: Tensor

    def __init__(self, trigger: Trigger, cover: float, specialise: float, ramp: int) -> None:
        super().__init__()
        self.trigger, self.cover, self.specialise, self.ramp = trigger, cover, specialise, ramp
        for name, start in (("stage", 1), ("triggered", 0), ("was_forced", 0), ("guarded", 0), ("seen", 0)):
            self.register_buffer(name, torch.tensor(start))
        self.register_buffer("history", torch.zeros(2, trigger.window))
        self.epoch = 0

    @property
    def specialising(self) -> bool:
        """Whether stage 2 has begun."""
        return int(self.stage) == 2

    @property
    def settled(self) -> bool:
        """Whether the ramp is over, so that early stopping may count; at once where nothing can trigger."""
        if not self.specialising:
            return self.trigger.rule == "never"
        return self.epoch >= int(self.triggered) + self.ramp

    def start(self, epoch: int) -> None:
        """Epoch 1, 2, ... begins."""
        self.epoch = epoch

    def weights(self) -> tuple[float, float]:
        """(w_cov, w_spec) of the epoch that has begun."""
        if not self.specialising:
            return self.cover, 0.0
        share = min(1.0, (self.epoch - int(self.triggered)) / max(1, self.ramp))
        rise = 0.5 - 0.5 * math.cos(math.pi * share)
        kept = 1.0 if int(self.guarded) else 1.0 - (1.0 - self.KEPT) * rise
        return self.cover * kept, self.specialise * rise

    @torch.no_grad()
    def end(self, use: float, route: float) -> str | None:
        """The epoch has ended with these mean entropies. What there is to tell: "triggered", "forced", "collapse"."""
        self.history.copy_(torch.cat([self.history[:, 1:], self.history.new_tensor([[use], [route]])], dim=1))
        self.seen += 1
        known = min(int(self.seen), self.trigger.window)
        uses, routes = self.history[:, self.trigger.window - known :]
        if not self.specialising:
            fires = self.trigger.fires(self.epoch, uses, routes)
            if not fires and not self.trigger.forced(self.epoch):
                return None
            self.stage.fill_(2)
            self.triggered.fill_(self.epoch)
            self.was_forced.fill_(int(not fires))
            self.seen.zero_()  # the guard's window is one of stage 2
            return "triggered" if fires else "forced"
        if known == self.trigger.window and bool((uses < self.COLLAPSE).all()) and not int(self.guarded):
            self.guarded.fill_(1)
            return "collapse"
        return None

    def conclude(self, gate: Float[Tensor, " experts"], route: float, experts: Sequence[str]) -> Mapping[str, float]:
        """The epoch has ended with this mean gate and H_route: what the training record keeps of it.

        H_use, H_route, the stage and the weights that the epoch had, whether it forced stage 2, and the mean gate of
        each expert by name. Warns when experts collapse.
        """
        use, facts = float(entropy(gate)), self.facts()
        event = self.end(use, route)
        if event == "collapse":
            then = f"their balance is back to full weight ({self.cover:g})" if self.cover else "nothing balances them"
            warnings.warn(f"epoch {self.epoch}: few experts do all the work (H_use {use:.2f}); {then}", stacklevel=3)
        loads = {f"load/{name}": float(one) for name, one in zip(experts, gate, strict=True)}
        return {"H_use": use, "H_route": route, **facts, "forced": float(event == "forced"), **loads}

    def facts(self) -> Mapping[str, float]:
        """Stage, and the weights of the epoch that has begun."""
        cover, specialise = self.weights()
        return {"stage": int(self.stage), "w_cov": cover, "w_spec": specialise}
