"""The teacher of a model that learns from one."""

from collections.abc import Mapping
from typing import final

import numpy as np
import polars as pl
import pytest
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from modalmix.errors import ConfigError
from modalmix.models.contract import Triples, teach
from modalmix.models.contract.content import Content
from modalmix.models.contract.taught import TaughtConfig, TaughtRecommender
from tests.models.conftest import Shop


@final
class Taught(TaughtRecommender[TaughtConfig]):
    def item_vectors(
        self, content: Content, rows: Int[Tensor, " rows"] | None
    ) -> tuple[Float[Tensor, "rows dim"], Bool[Tensor, " rows"]]:
        raise NotImplementedError

    def loss(self, batch: Triples) -> Mapping[str, Tensor]:
        raise NotImplementedError


def test_prepare_fills_the_buffers_with_the_teachers_factors(content_shop: Shop) -> None:
    data = content_shop()
    config = TaughtConfig.parse({"teacher": {"dim": 5}, "seed": 3})
    model = Taught(config, data)
    buffers = model.teacher_users, model.teacher_items
    assert not any(buffer.any() for buffer in buffers), "no work in the constructor"
    model.prepare(data)
    users, items = teach(data.interactions, config.teacher, 3)
    torch.testing.assert_close(buffers[0], users)  # filled in place
    torch.testing.assert_close(buffers[1], items)
    assert not buffers[1][24:].any(), "cold items have no factor"
    assert {"teacher_users", "teacher_items"} <= model.state_dict().keys()
    assert not list(model.parameters()), "nothing of the teacher is trained"


def test_the_teacher_knows_nothing_of_new_items(content_shop: Shop) -> None:
    data = content_shop()
    model = Taught(TaughtConfig.parse({"teacher": {"dim": 5}}), data)
    model.prepare(data)
    features = {name: m.matrix(np.array([0, 1])) for name, m in data.catalog.modalities.items()}
    vectors, warm = model.teacher_of(data.catalog.extend(pl.DataFrame({"item": [1000, 1001]}), features))
    torch.testing.assert_close(vectors[:30], model.teacher_items)
    assert not vectors[24:].any()
    assert warm.tolist() == [True] * 24 + [False] * 8


def test_an_impossible_teacher_is_an_error() -> None:
    with pytest.raises(ConfigError, match="dim"):
        TaughtConfig.parse({"teacher": {"dim": 0}})
