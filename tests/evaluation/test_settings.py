"""Settings of an evaluation."""

from typing import Any

import pytest

from modalmix.errors import ConfigError
from modalmix.evaluation import EvaluateConfig


def test_every_setting_has_help() -> None:
    assert all(field.description for field in EvaluateConfig.model_fields.values())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"metrics": ["recal"]}, "metrics.*recal"),
        ({"metrics": []}, "metrics"),
        ({"ks": [0]}, "ks"),
        ({"ks": []}, "ks"),
        ({"pools": ["lukewarm"]}, "pools.*lukewarm"),
        ({"mask": "valid"}, "mask.*valid"),
        ({"ties": "random"}, "ties"),
        ({"chunk": 0}, "chunk"),
        ({"sampled": 0}, "sampled"),
        ({"confidence": 1.0}, "confidence"),
        ({"top_k": 5}, "top_k"),
    ],
)
def test_bad_settings(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        EvaluateConfig.parse(settings)


def test_yaml_round_trip(tmp_path: Any) -> None:
    config = EvaluateConfig(metrics=("map",), ks=(3, 7), pools=("all", "cold"), sampled=100)
    config.write(tmp_path / "evaluate.yaml")
    assert EvaluateConfig.read(tmp_path / "evaluate.yaml") == config
