"""Precisions, devices that are not there."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from modalmix.errors import ConfigError
from modalmix.models.contract import ModelType, Recommender
from modalmix.train.settings import TrainConfig

Train = Callable[..., tuple[Recommender[Any], Any]]


@pytest.mark.parametrize("precision", ["bf16-mixed", "64-true", "bf16-true"])
def test_precisions(train_tiny: Train, quiet: TrainConfig, precision: str) -> None:
    model, result = train_tiny(None, None, quiet.replace(precision=precision), epochs=20)
    assert result.history[-1]["loss"]["bpr"] < result.history[0]["loss"]["bpr"]
    kinds = {"bf16-mixed": torch.float32, "64-true": torch.float64, "bf16-true": torch.bfloat16}
    assert model.users.weight.dtype == kinds[precision]


def test_mixed_precision_reaches_the_loss(train_tiny: Train, tiny: ModelType, quiet: Any, monkeypatch: Any) -> None:
    seen = []
    whole = tiny.recommender.loss

    def loss(self: Any, batch: Any) -> Any:
        seen.append(nn.functional.linear(self.users.weight, self.items.weight).dtype)
        return whole(self, batch)

    monkeypatch.setattr(tiny.recommender, "loss", loss)
    train_tiny(None, None, quiet.replace(precision="bf16-mixed"), epochs=1)
    assert set(seen) == {torch.bfloat16}


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_a_device_that_is_not_there(train_tiny: Train) -> None:
    with pytest.raises(ConfigError, match=r"device=cuda.*Use device=auto or device=cpu"):
        train_tiny(None, None, TrainConfig(device="cuda"))


def test_an_unknown_strategy(train_tiny: Train) -> None:
    with pytest.raises(ConfigError, match="strategy=fastest"):
        train_tiny(None, None, TrainConfig(strategy="fastest", device="cpu"))
