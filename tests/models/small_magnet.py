"""A small MAGNET over a shop with gaps, every setting named: what the tests of its equations start from."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from modalmix.data.split import TrainData
from modalmix.models.magnet import Magnet, MagnetConfig

TRIALS: dict[str, Any] = {  # every setting that the formulas know: a test never leans on a default
    "dim": 6,
    "layers": 2,
    "dropout": 0.0,
    "dual_view": True,
    "edges": {"agree": 1, "user_edges": 2, "item_edges": 2, "tail": 0.4, "rho": 9.0, "augment": "ui"},
    "edge_weight": 0.5,
    "graph_weights": {"image": 0.3, "text": 0.7},
    "neighbors": 4,
    "both_ways": False,
    "purify": False,
    "cue": "leave-out",
    "base": "fused",
    "prior": "none",
    "filter": {"exponents": (0.35, 0.5, 0.15), "hops": (1.5, 0.5), "both_ways": False, "entries": 1000},
    "experts": "roles",
    "expert_hidden": 0,
    "router": "bilinear",
    "cues": "signals",
    "mixture_gradient": "all",
    "top_k": 2,
    "noise": 0.0,
    "cover": 0.1,
    "specialise": 0.05,
    "trigger": "coverage",
    "trigger_latest": 30,
    "ramp": 10,
    "contrast": 0.02,
    "temperature": 0.3,
    "reg": 0.01,
}


def shop_with_gaps(content_shop: Callable[..., TrainData]) -> TrainData:
    """Item 9 has nothing at all; 25 is cold and lacks its image; user 0 met one item, user 1 two, user 2 none."""
    shop = content_shop(absent={"image": [3, 9, 25], "text": [9, 12]})
    events, kept = shop.interactions, np.ones(len(shop.interactions), dtype=bool)
    for user, most in ((0, 1), (1, 2), (2, 0)):
        kept[np.flatnonzero(events.user == user)[most:]] = False
    return replace(shop, interactions=events.take(kept))


def model(data: TrainData, moved: bool = True, **settings: Any) -> Magnet:
    """A model whose every weight has moved from where it starts."""
    torch.manual_seed(0)
    built = Magnet(MagnetConfig.parse({**TRIALS, **settings}), data)
    for weight in built.parameters() if moved else ():
        torch.nn.init.normal_(weight, std=0.4)
    return built
