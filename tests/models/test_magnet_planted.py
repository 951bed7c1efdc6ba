"""The gates of MAGNET find what each user goes by, in a world where that is known."""

from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from jaxtyping import Float, Int

from modalmix.data.catalog import Catalog
from modalmix.data.dataset import Dataset
from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.data.modality import Modality
from modalmix.data.split import Split
from modalmix.models.contract import Query
from modalmix.models.magnet import Magnet, MagnetConfig
from modalmix.train import Fitted, TrainConfig, fit

SIGNALS = ("behaviour", "image", "text")
USERS, CLUSTER, ITEMS = (240, 120, 120), (30, 10, 10), 300
TRAIN, HELD_OUT = 5, 1
SETTINGS: dict[str, Any] = {
    "dim": 16,
    "layers": 2,
    "dropout": 0.5,
    "dual_view": False,
    "neighbors": 10,
    "purify": False,
    "cue": "leave-out",
    "base": "behaviour",
    "prior": "none",
    "experts": "roles",
    "expert_hidden": 0,
    "router": "bilinear",
    "cues": "evidence",
    "mixture_gradient": "all",
    "top_k": 2,
    "noise": 0.5,
    "cover": 0.1,
    "specialise": 0.02,
    "trigger": "epoch:10",
    "ramp": 5,
    "contrast": 0.0,
    "reg": 1e-3,
    "lr": 0.02,
    "batch_size": 1024,
    "epochs": 40,
    "patience": 40,
    "eval_every": 10,
}


class World(NamedTuple):
    """Three groups of users: each stays in one cluster of items, by hidden label, by image or by text. The labels are
    drawn independently; images and texts show theirs, nothing shows the hidden one."""

    split: Split
    group: Int[np.ndarray, " users"]


def world(seed: int, shuffled: str = "") -> World:
    """`shuffled`: the modality whose rows are dealt out anew, so that it says nothing."""
    rng = np.random.default_rng(seed)
    labels = [rng.permutation(ITEMS) // size for size in CLUSTER]
    modalities = {}
    for name, label, size in zip(SIGNALS[1:], labels[1:], CLUSTER[1:], strict=True):
        x = rng.standard_normal((ITEMS // size, 24))[label] + 0.3 * rng.standard_normal((ITEMS, 24))
        x = x[np.random.default_rng(99).permutation(ITEMS)] if name == shuffled else x
        modalities[name] = Modality.from_matrix(name, x.astype(np.float32))
    group = np.repeat(np.arange(3), USERS)
    met = np.empty((len(group), TRAIN + 2 * HELD_OUT), dtype=np.int32)
    for user, kind in enumerate(group):
        cluster = rng.integers(ITEMS // CLUSTER[kind])
        met[user] = rng.permutation(np.flatnonzero(labels[kind] == cluster))[: met.shape[1]]

    def events(columns: slice) -> Interactions:
        item = met[:, columns]
        user = np.repeat(np.arange(len(group), dtype=np.int32), item.shape[1])
        return Interactions(user, item.ravel(), len(group), ITEMS)

    catalog = Catalog(IdMap(list(range(ITEMS))), modalities)
    dataset = Dataset("three groups", IdMap(list(range(len(group))), "user"), catalog, events(slice(None)))
    bounds = (0, TRAIN, TRAIN + HELD_OUT, TRAIN + 2 * HELD_OUT)
    train, valid, test = (events(slice(*ends)) for ends in pairwise(bounds))
    return World(Split(dataset, train, valid, test, kind="given"), group)


@cache
def fitted(seed: int, shuffled: str, **changes: Any) -> Fitted:
    config = MagnetConfig.parse({**SETTINGS, **changes, "seed": seed})
    return fit("magnet", world(seed, shuffled).split, config, TrainConfig(device="cpu", progress=False))


def mean_gates(
    seed: int, shuffled: str = "", held_out: bool = True, **changes: Any
) -> Float[np.ndarray, "groups experts"]:
    """The mean gate of each expert, of each group: over the pairs held out for testing, or over all items."""
    planted, model = world(seed, shuffled), fitted(seed, shuffled, **changes).model
    return gates_of_held_out(model, planted, held_out)


def gates_of_held_out(model: Any, planted: World, held_out: bool = True) -> Float[np.ndarray, "groups experts"]:
    assert isinstance(model, Magnet)
    assert model.schedule.specialising
    assert [role.name(model.signals) for role in model.roles[:3]] == [f"dominant {signal}" for signal in SIGNALS]
    routing = model.routing(Query(users=torch.arange(len(planted.group))), torch.arange(ITEMS))
    assert routing is not None
    gates = routing["experts"].numpy()
    of_user, test = gates.mean(axis=1), planted.split.test
    if held_out:
        of_user[test.user] = gates[test.user, test.item]  # one each
    return np.stack([of_user[planted.group == kind].mean(axis=0) for kind in range(3)])


@pytest.mark.parametrize(("seed", "changes"), [(0, {}), (1, {}), (1, {"trigger": "coverage"})])
def test_the_own_dominant_expert_of_each_group_has_its_largest_gate(seed: int, changes: dict[str, Any]) -> None:
    """Of all nine, on pairs that training has not seen."""
    gates = mean_gates(seed, **changes)
    own = np.eye(3, 9, dtype=bool)
    assert (gates[own] > np.where(own, 0.0, gates).max(axis=1) + 0.1).all(), "among the experts of the group"
    assert (gates[own] > np.where(own, 0.0, gates)[:, :3].max(axis=0) + 0.1).all(), "and among the groups"


@pytest.mark.parametrize("seed", [0, 1])
def test_so_it_is_without_the_filter_as_shipped(seed: int) -> None:
    """Preset `no-prior`: its base hears content and the experts move no embedding, and yet."""
    changes = {"seed": seed, "batch_size": 256, "epochs": 40, "eval_every": 10, "patience": 40}
    config = MagnetConfig.preset("no-prior", **changes)
    planted = world(seed)
    model = fit("magnet", planted.split, config, TrainConfig(device="cpu", progress=False)).model
    gates = gates_of_held_out(model, planted)
    assert gates.argmax(axis=1).tolist() == [0, 1, 2]
    assert gates[:, :3].argmax(axis=0).tolist() == [0, 1, 2]


def test_stage_2_begins_where_the_rule_says() -> None:
    """`coverage` by itself, restated on what was recorded."""
    history = fitted(1, "", trigger="coverage").result.history
    use, route, stage = (np.array([row["report"][name] for row in history]) for name in ("H_use", "H_route", "stage"))
    holds = [e for e in range(5, 30) if use[e - 3 : e].min() >= 0.9 and np.ptp(route[e - 3 : e]) <= 0.02]
    assert stage.tolist() == [1.0] * holds[0] + [2.0] * (40 - holds[0])
    assert not any(row["report"]["forced"] for row in history)


def test_in_the_default_form_it_is_largest_in_its_own_group() -> None:
    """Among the groups, not among the experts: behaviour leads everywhere. The base hears content already, and what the
    experts say does not move the embeddings."""
    planted = world(0)
    config = MagnetConfig.parse({"seed": 0, "batch_size": 1024, "epochs": 30, "eval_every": 10})
    model = fit("magnet", planted.split, config, TrainConfig(device="cpu", progress=False)).model
    gates = gates_of_held_out(model, planted)
    assert gates[:, :3].argmax(axis=0).tolist() == [0, 1, 2]
    assert gates[1, 1] > gates[[0, 2], 1].max() + 0.05
    assert gates[2, 2] > gates[[0, 1], 2].max() + 0.05
    assert gates.argmax(axis=1).tolist() == [0, 0, 0]


def test_stage_2_begins_once() -> None:
    history = fitted(0, "").result.history
    assert [row["report"]["stage"] for row in history] == [1.0] * 10 + [2.0] * 30
    assert [row["report"]["w_spec"] == 0.02 for row in history] == [False] * 14 + [True] * 26, "the ramp ends in 15"


def test_a_router_of_users_knows_it_whatever_the_item() -> None:
    """Among the dominant experts."""
    gates = mean_gates(0, held_out=False, router="user", cues="signals")
    assert gates[:, :3].argmax(axis=1).tolist() == [0, 1, 2]


def test_it_is_the_content_that_they_find() -> None:
    """Images dealt out anew say nothing: the image expert loses the group that went by them, the text expert keeps its
    own."""
    before, after = mean_gates(0), mean_gates(0, shuffled="image")
    assert before[1, 1] > after[1, 1] + 0.2
    assert after[1].argmax() != 1
    assert after[2].argmax() == 2
