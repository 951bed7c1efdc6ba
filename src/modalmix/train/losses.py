"""The named loss terms of one epoch: their sum, their means, and the first that is not finite."""

import math
from collections.abc import Mapping
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from modalmix.errors import NonFiniteLossError, TrainError


@final
class EpochLosses:
    """Sums of each term over the steps of one epoch.

    Terms stay on the device until `check` fetches all that are new at once: a GPU is not stopped at every step.
    """

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.steps = 0  # steps checked
        self._sums: dict[str, float] = {}
        self._pending: list[Float[Tensor, " terms"]] = []

    def add(self, terms: Mapping[str, Tensor]) -> Float[Tensor, ""]:
        """Remember one step's terms; returns their sum, to be minimised. Raises TrainError for terms of another shape
        than scalar or other names than in the epoch's first step."""
        if not self._sums:
            self._sums = dict.fromkeys(terms, 0.0)
        if terms.keys() != self._sums.keys() or not terms:
            raise TrainError(
                f"loss terms at epoch {self.epoch}, step {self.steps + len(self._pending) + 1}",
                got=", ".join(terms) or "none",
                expected=", ".join(self._sums) or "at least one term",
                fix="Return the same terms at every step of an epoch; a term that is off is zero.",
            )
        stacked = torch.stack([terms[name] for name in self._sums])
        if stacked.dim() != 1:
            raise TrainError("loss terms", got=f"shape {tuple(stacked.shape[1:])}", expected="scalars")
        self._pending.append(stacked.detach())
        return stacked.sum()

    def check(self) -> None:
        """Add up the new steps. Raises NonFiniteLossError naming the first term that is NaN or infinite."""
        if not self._pending:
            return
        rows = torch.stack(self._pending).cpu().double()
        self._pending.clear()
        if not torch.isfinite(rows).all():
            self._explain(rows)
        for name, total in zip(self._sums, rows.sum(dim=0).tolist(), strict=True):
            self._sums[name] += total
        self.steps += len(rows)

    def means(self) -> dict[str, float]:
        """Mean of each term over the steps checked so far; empty before the first check."""
        return {name: total / self.steps for name, total in self._sums.items()} if self.steps else {}

    def _explain(self, rows: Float[Tensor, "steps terms"]) -> None:
        step, term = (~torch.isfinite(rows)).nonzero()[0].tolist()
        value = float(rows[step, term])
        raise NonFiniteLossError(
            f"loss term '{list(self._sums)[term]}' at epoch {self.epoch}, step {self.steps + step + 1}",
            got="NaN" if math.isnan(value) else value,
            expected="a finite value",
            fix="Lower lr, or look at that term and at the features it reads.",
        )
