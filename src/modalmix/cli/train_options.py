"""Options of the verbs that train: `run`, `train` and `demo`. The model's own settings become flags."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pydantic
import tyro

from modalmix.cli.options import parse, take_flag
from modalmix.config import Config, read_settings
from modalmix.data import SplitConfig
from modalmix.evaluation import EvaluateConfig
from modalmix.models.contract import ModelConfig, find_model
from modalmix.pipeline import RunConfig
from modalmix.train import TrainConfig
from modalmix.train.source import DataConfig

SHORT = {
    "--split": "--split.kind",
    "--features": "--data.features",
    "--modalities": "--data.modalities",
    "--min-rating": "--data.reader.min-rating",
    "--k-core": "--data.reader.k-core",
    "--device": "--train.device",
    "--mask": "--evaluate.mask",
    "--ks": "--evaluate.ks",
    "--pools": "--evaluate.pools",
}


class TrainOptions(Config):
    """What a training verb takes."""

    folder: tyro.conf.Positional[Path]
    """The data set: a folder, or a file of interactions."""
    model: str = "mamex"
    """A name of `modalmix models`, or the path of a file with a model."""
    preset: str = "default"
    """Named settings of the model; its flags win over them."""
    run: Path | None = None
    """The run folder to leave behind; runs/DATA-MODEL-SPLIT without it."""
    json_: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print JSON instead of tables."""
    data: DataConfig = DataConfig()
    """Reading and features."""
    split: SplitConfig = SplitConfig()
    """Train, validation, test."""
    train: TrainConfig = TrainConfig()
    """Device, validation metric, checkpoints."""
    evaluate: EvaluateConfig = EvaluateConfig()
    """Metrics, cut-offs, masks, pools."""
    settings: Annotated[ModelConfig, tyro.conf.arg(name="")] = ModelConfig()
    """Settings of the model."""

    @property
    def run_folder(self) -> Path:
        """Where the run goes."""
        model = Path(self.model).stem
        return self.run or Path("runs") / f"{self.folder.resolve().stem}-{model}-{self.split.kind}"

    def to_run_config(self) -> RunConfig:
        """The part that decides the numbers."""
        names = ("data", "split", "model", "preset", "settings", "train", "evaluate")
        return RunConfig(**{name: getattr(self, name) for name in names})


def parse_training(
    arguments: Sequence[str], verb: str, title: str, base: type[TrainOptions] = TrainOptions, **defaults: Any
) -> TrainOptions:
    """Options of a training verb; `defaults` are the verb's own. Raises ConfigError, ModelError."""
    _, file = take_flag(list(arguments), "--config")
    chosen = read_settings(file) if file else {}
    name = take_flag(list(arguments), "--model")[1] or chosen.get("model") or base.model_fields["model"].default
    preset = take_flag(list(arguments), "--preset")[1] or chosen.get("preset") or "default"
    config = find_model(name).config
    annotated: Any = Annotated[config, tyro.conf.arg(name="")]
    fields: dict[str, Any] = {"settings": (annotated, config.preset(preset))}
    fields |= {key: (base.model_fields[key].annotation, value) for key, value in defaults.items()}
    options = pydantic.create_model(base.__name__, __base__=base, __doc__=base.__doc__, **fields)
    return parse(options, arguments, verb, title, SHORT)
