"""A collaborative teacher: factors of warm users and items that content models learn to imitate."""

from typing import NamedTuple

import numpy as np
import polars as pl
import scipy.sparse as sp
import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from modalmix.config import Config
from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.nn.als import als_factors

_HELD_OUT, _LEAST_EVENTS = 0.1, 5
_USERS, _LIST = 1_000, 20  # users that decide, and the length of their lists, at most a third of the candidates
_POPULARITIES = (0.0, 0.1, 0.3, 1.0)  # weights to choose from
_SCALED_BY = 2_000  # users whose scores say how much a weight of popularity is


class TeacherConfig(Config):
    """Settings of implicit-feedback ALS (nn/als.py)."""

    dim: int = Field(64, ge=1)
    """Length of user and item factors."""
    reg: float = Field(30.0, ge=0)
    """Weight of the squared length of the factors."""
    alpha: float = Field(10.0, gt=0)
    """Confidence in an interaction; that in its absence is 1."""
    iterations: int = Field(15, ge=1)
    """Alternations between users and items."""


def teach(
    interactions: Interactions, config: TeacherConfig, seed: int
) -> tuple[Float[Tensor, "users dim"], Float[Tensor, "items dim"]]:
    """Factors of users and items; rows without a train event are zeros."""
    return als_factors(interactions.csr, config.dim, config.reg, config.alpha, config.iterations, seed)


def draw_folds(items: IdMap, folds: int, seed: int) -> Int[Tensor, " items"]:
    """A random fold of each item. It goes by the item's id, so that the order of the items does not matter."""
    place = items.series.cast(pl.String).rank("ordinal").to_numpy().astype(np.int64) - 1
    return torch.from_numpy(np.random.default_rng(seed).integers(folds, size=len(items))[place])


class Choice(NamedTuple):
    """What `choose_teacher` found best."""

    config: TeacherConfig
    popularity: float
    """Weight of log(1 + train events) beside the factors, in standard deviations of their scores."""


def choose_teacher(
    interactions: Interactions,
    config: TeacherConfig,
    regs: tuple[float, ...],
    popularities: tuple[float, ...],
    seed: int,
) -> Choice:
    """The strength of regularisation, and the weight of popularity, with the best recall@20 on held-out train events.

    A tenth of the train events is held out for this, of users with five or more; no validation or test row is used.
    """
    rng = np.random.default_rng(seed)
    away = (rng.random(len(interactions)) < _HELD_OUT) & (interactions.user_degree[interactions.user] >= _LEAST_EVENTS)
    if not away.any():
        return Choice(config, 0.0)
    kept, held_out = interactions.take(np.flatnonzero(~away)), interactions.take(np.flatnonzero(away))
    users = np.unique(held_out.user)
    users = rng.permutation(users)[:_USERS]
    found = {}
    for reg in regs:
        one = config.replace(reg=reg)
        user_factors, items = teach(kept, one, seed)
        scores = user_factors[users] @ items.T
        for weight in popularities:
            with_bias = scores + popularity_bias(kept, scores, weight)
            found[reg, weight] = recall(with_bias, held_out.csr[users], kept.csr[users])
    reg, weight = max(found, key=lambda key: found[key])
    return Choice(config.replace(reg=reg), weight)


class Teacher(NamedTuple):
    """What `best_teacher` says of users and items; zeros for those without a train event."""

    users: Float[Tensor, "users dim"]
    items: Float[Tensor, "items dim"]
    popularity: Float[Tensor, " items"]
    """What is added to the scores of an item; zeros where popularity does not help."""
    config: TeacherConfig


def best_teacher(interactions: Interactions, config: TeacherConfig, regs: tuple[float, ...], seed: int) -> Teacher:
    """The teacher of the strength, and the weight of popularity, that `choose_teacher` finds best.

    Without `regs` it is that of `config`, and popularity adds nothing.
    """
    chosen = Choice(config, 0.0)
    if regs:
        chosen = choose_teacher(interactions, config, regs, _POPULARITIES, seed)
    users, items = teach(interactions, chosen.config, seed)
    popularity = torch.zeros(len(items))
    if chosen.popularity:
        popularity = popularity_bias(interactions, users[:_SCALED_BY] @ items.T, chosen.popularity)
    return Teacher(users, items, popularity, chosen.config)


def popularity_bias(
    interactions: Interactions, scores: Float[Tensor, "users items"], weight: float
) -> Float[Tensor, " items"]:
    """weight x sd(scores of warm items) x log(1 + train events), zero for cold items."""
    events = torch.from_numpy(interactions.item_degree.astype(np.float32))
    return weight * scores[:, events > 0].std(correction=0) * events.log1p()


def recall(scores: Float[Tensor, "users items"], positives: sp.csr_matrix, seen: sp.csr_matrix | None = None) -> float:
    """Share of the positives among each user's 20 best unseen items, mean over users. Changes `scores`.

    Of fewer than 60 items the best third: a list of all of them would say nothing.
    """
    if seen is not None:
        row, column = seen.nonzero()
        scores[torch.from_numpy(row.astype(np.int64)), torch.from_numpy(column.astype(np.int64))] = -torch.inf
    best = (
        scores.topk(max(1, min(_LIST, scores.shape[1] // 3)), dim=1).indices.numpy().copy()
    )  # SciPy indexes with its own memory
    hits = np.asarray(positives[np.arange(len(best))[:, None], best].sum(axis=1)).ravel()
    return float((hits / positives.getnnz(axis=1)).mean())
