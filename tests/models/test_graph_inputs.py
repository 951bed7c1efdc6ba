"""What data may be like: every model over graphs trains on it, and gives every user and item a score."""

from typing import Any

import numpy as np
import pytest
import torch

from modalmix.data.catalog import Catalog
from modalmix.data.dataset import Dataset
from modalmix.data.modality import Modality
from modalmix.data.split import Split
from modalmix.models.contract import GradientConfig, Query, find_model
from modalmix.train import TrainConfig, fit
from tests.models.conftest import Shop

MODELS = ("lightgcn", "vbpr", "bm3", "freedom", "lattice", "mgcn", "smore", "magnet", "ease", "graphfilter")
FORMS = [(name, preset) for name in MODELS for preset in ("default", *find_model(name).config.presets)]


@pytest.fixture
def split(content_shop: Shop) -> Split:
    """All images are alike. Items 5, 11 and 27 have neither image nor text; 24 to 29 are in no event. User 3 has met
    one item, user 7 none."""
    nothing = [5, 11, 27]
    shop, alike = content_shop(absent={"text": nothing}), np.ones((30, 4), dtype=np.float32)
    alike[nothing] = np.nan
    image, text = Modality.from_matrix("image", alike), shop.catalog.modality("text")
    events = shop.interactions
    kept = events.user != 7
    kept[np.flatnonzero(events.user == 3)[1:]] = False
    train, none = events.take(kept), events.take(np.zeros(len(events), dtype=bool))
    assert train.user_degree[[3, 7]].tolist() == [1, 0]
    assert train.item_degree[[5, 11, 27]].astype(bool).tolist() == [True, True, False]
    catalog = Catalog(shop.catalog.items, {"image": image, "text": text})
    return Split(Dataset("shop", shop.users, catalog, train), train, none, none, kind="given")


@pytest.mark.parametrize(("name", "preset"), FORMS)
def test_losses_and_scores_are_finite(split: Split, name: str, preset: str) -> None:
    model, small = find_model(name), {"dim": 8, "epochs": 3, "batch_size": 64, "neighbors": 5, "trigger": "epoch:1"}
    settings: dict[str, Any] = {key: value for key, value in small.items() if key in model.config.model_fields}
    fitted = fit(model, split, model.config.preset(preset, **settings), TrainConfig(device="cpu", progress=False))
    assert len(fitted.result.history) == (3 if issubclass(model.config, GradientConfig) else 0)
    for row in fitted.result.history:
        assert np.isfinite([*row["loss"].values(), *row["report"].values()]).all()
    scores = fitted.scorer()(Query(users=torch.arange(40)))
    assert scores.shape == (40, 30)
    assert scores.isfinite().all()
    assert (scores[[0, 3], :24].std(dim=1) > 0).all()
