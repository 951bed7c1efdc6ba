"""Encode the pictures, texts and sounds of a data set into feature files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from modalmix.cli.options import parse
from modalmix.cli.show import console, facts_table, print_json
from modalmix.config import Config
from modalmix.train.source import DataConfig, encode_to, open_dataset

TITLE = "Encode raw content once; results are cached by content, and a killed job goes on where it stopped."
SHORT = {"--modalities": "--data.modalities"}


class Options(Config):
    """What `encode` takes."""

    folder: tyro.conf.Positional[Path]
    """The data set."""
    out: Path | None = None
    """Folder for NAME.npy and NAME.json; only the cache is filled without it."""
    overwrite: bool = False
    """Replace feature files that exist."""
    data: DataConfig = DataConfig(features="raw")
    """Which modalities, and how."""
    json_: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print JSON instead of a table."""


def main(arguments: Sequence[str]) -> int:
    """`modalmix encode DATA [--modalities image text] [--out FOLDER]`."""
    options = parse(Options, arguments, "encode", TITLE, SHORT)
    dataset = open_dataset(options.folder, options.data)
    if options.out is not None:
        encode_to(dataset, options.out, options.overwrite)
    facts = {
        name: {"dim": m.dim, "present": int(m.present.sum()), "absent": int((~m.present).sum()), **m.provenance}
        for name, m in dataset.catalog.modalities.items()
    }
    if options.json_:
        print_json(facts)
    else:
        for name, values in facts.items():
            console.print(facts_table(values, name))
    return 0
