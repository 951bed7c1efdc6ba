"""The gates of MAGNET find what each user goes by, in a world where that is known."""

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
from modalmix.train import TrainConfig, fit

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
    parts = (events(slice(*ends)) for ends in pairwise(bounds))
    return World(Split(dataset, *parts, kind="given"), group)


def trained(planted: World, **changes: Any) -> Magnet:
    config = MagnetConfig.parse({**SETTINGS, **changes})
    model = fit("magnet", planted.split, config, TrainConfig(device="cpu", progress=False)).model
    assert isinstance(model, Magnet)
    assert model.schedule.specialising
    return model


def dominant_gates(model: Magnet, planted: World, held_out: bool) -> Float[np.ndarray, "groups experts"]:
    """The mean gate of each dominant expert, of each group: over the pairs held out for testing, or over all items."""
    names = [role.name(model.signals) for role in model.roles]
    places = [names.index(f"dominant {signal}") for signal in SIGNALS]
    users = torch.arange(len(planted.group))
    gates = model.routing(Query(users=users), torch.arange(ITEMS))["experts"][:, :, places].numpy()
    test = planted.split.test
    of_user = np.zeros((len(users), 3)) if held_out else gates.mean(axis=1)
    if held_out:
        of_user[test.user] = gates[test.user, test.item]  # one each
    return np.stack([of_user[planted.group == kind].mean(axis=0) for kind in range(3)])


@pytest.mark.parametrize("seed", [0, 1])
def test_the_own_dominant_expert_of_each_group_has_its_largest_gate(seed: int) -> None:
    """Of pairs that training has not seen."""
    planted = world(seed)
    gates = dominant_gates(trained(planted, seed=seed), planted, held_out=True)
    assert gates.argmax(axis=1).tolist() == [0, 1, 2]
    rest = np.where(np.eye(3, dtype=bool), 0.0, gates)
    assert (gates.diagonal() > rest.max(axis=1) + 0.1).all(), "among the dominant ones of the group"
    assert (gates.diagonal() > rest.max(axis=0) + 0.1).all(), "and among the groups"


def test_a_router_of_users_knows_it_whatever_the_item() -> None:
    planted = world(0)
    gates = dominant_gates(trained(planted, router="user", cues="signals", seed=0), planted, held_out=False)
    assert gates.argmax(axis=1).tolist() == [0, 1, 2]


def test_it_is_the_content_that_they_find() -> None:
    """Images dealt out anew say nothing: the image expert loses the group that went by them, the text expert keeps its
    own."""
    planted, shuffled = world(0), world(0, shuffled="image")
    before, after = (dominant_gates(trained(one, seed=0), one, held_out=True) for one in (planted, shuffled))
    assert before[1, 1] > after[1, 1] + 0.2
    assert after[1].argmax() != 1
    assert after[2].argmax() == 2
