"""What flows between models, trainer, evaluator and server."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from modalmix.errors import QueryError


class Triples(NamedTuple):
    """A batch of pairwise examples: row k says that user[k] met positive[k] and not negative[k]."""

    user: Int[Tensor, " batch"]
    positive: Int[Tensor, " batch"]
    negative: Int[Tensor, " batch"]


@dataclass(frozen=True)
class Query:
    """Whom to score for: known users by row, or histories of item rows (oldest first, padded right with -1).

    Exactly one of the two is given. `times` says when the events of a history happened, where that is known: seconds,
    in the shape of the history, any value at padding.
    """

    users: Int[Tensor, " batch"] | None = None
    history: Int[Tensor, "batch length"] | None = None
    times: Int[Tensor, "batch length"] | None = None

    def __post_init__(self) -> None:
        if (self.users is None) == (self.history is None):
            raise QueryError("a query", got="both or neither of users and history", expected="exactly one")
        if self.times is not None and (self.history is None or self.times.shape != self.history.shape):
            given = "users" if self.history is None else f"a history of shape {tuple(self.history.shape)}"
            raise QueryError(
                "the times of a query",
                got=f"shape {tuple(self.times.shape)} beside {given}",
                expected="a history, and a time for each of its items",
            )

    def __len__(self) -> int:
        return len(self.users) if self.users is not None else len(self.history)  # type: ignore[arg-type]


def distinct(history: Int[Tensor, "batch length"]) -> Int[Tensor, "batch length"]:
    """Histories as sets: a repeat becomes padding. For models that train on who met what, where it counts once."""
    rows, order = history.sort(dim=1, stable=True)
    again = torch.zeros_like(rows, dtype=torch.bool)
    again[:, 1:] = rows[:, 1:] == rows[:, :-1]
    return history.masked_fill(torch.zeros_like(again).scatter(1, order, again), -1)


@runtime_checkable
class Scorer(Protocol):
    """A frozen model over one catalogue: encode once, score many. Higher is better, every score finite."""

    def __call__(self, query: Query) -> Float[Tensor, "batch items"]: ...
