"""Models are found by name or by path."""

from pathlib import Path

import numpy as np
import pytest
import torch

from modalmix.data.catalog import Catalog
from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.data.split import TrainData
from modalmix.errors import ModelError
from modalmix.models import describe, names
from modalmix.models.contract import ModelConfig, Query, Recommender, find_model

OUTSIDE = '''"""Every item scores its row number."""

import torch

from modalmix.models.contract import ClosedFormRecommender, ModelConfig


class Settings(ModelConfig):
    step: float = 2.0
    """Difference between two rows."""


class Rows(ClosedFormRecommender[Settings]):
    def fit(self, data):
        self.register_buffer("row", self.config.step * torch.arange(float(data.n_items)))

    def scorer(self, catalog):
        return lambda query: self.row.repeat(len(query), 1)
'''


def test_every_name_is_found() -> None:
    assert names() == sorted(names())
    for name in names():
        found = find_model(name)
        assert found.name == name
        assert issubclass(found.recommender, Recommender)
        assert issubclass(found.config, ModelConfig)
        assert describe()[name]


def test_a_model_outside_the_package_works_by_path(tmp_path: Path) -> None:
    path = tmp_path / "rows.py"
    path.write_text(OUTSIDE)
    found = find_model(str(path))
    assert (found.name, found.config.__name__) == (str(path), "Settings")
    events = Interactions(np.zeros(1, np.int32), np.zeros(1, np.int32), 1, 3)
    data = TrainData(IdMap([0], "user"), Catalog(IdMap([0, 1, 2])), events)
    model = found.recommender(found.config.preset("default", step=3.0), data)
    model.fit(data)  # type: ignore[attr-defined]
    assert model.scorer(data.catalog)(Query(users=torch.tensor([0]))).tolist() == [[0, 3, 6]]


def test_an_unknown_name_says_the_nearest() -> None:
    with pytest.raises(ModelError, match="Did you mean 'lightgcn'"):
        find_model("lightgnc")


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        find_model(str(tmp_path / "nothing.py"))


@pytest.mark.parametrize(
    ("text", "got"),
    [("x = 1\n", "0 models"), (OUTSIDE + "\n\nclass More(Rows):\n    pass\n", "2 models")],
)
def test_a_file_holds_exactly_one_model(tmp_path: Path, text: str, got: str) -> None:
    path = tmp_path / "wrong.py"
    path.write_text(text)
    with pytest.raises(ModelError, match=got):
        find_model(str(path))


def test_a_model_names_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "bare.py"
    path.write_text(OUTSIDE.replace("ClosedFormRecommender[Settings]", "ClosedFormRecommender"))
    with pytest.raises(ModelError, match="names no settings"):
        find_model(str(path))
