"""Import, validate, describe or split a data set, or draw a planted shop."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from modalmix.cli.options import parse
from modalmix.cli.show import console, facts_table, notice, print_json, show_examination
from modalmix.config import Config
from modalmix.data import (
    ReadConfig,
    SplitConfig,
    describe,
    description_table,
    examine,
    leak_report,
    make_split,
    read_dataset,
    write_folder,
    write_split,
)
from modalmix.data.shop import ShopConfig, plant, write_shop
from modalmix.errors import ConfigError, nearest
from modalmix.train.source import examine_raw

SHORT = {f"--{name}": f"--reader.{name}" for name in ("min-rating", "k-core", "duplicates", "modalities")}
Json = Annotated[bool, tyro.conf.arg(name="json")]


class Source(Config):
    """What reads a data set."""

    source: tyro.conf.Positional[Path]
    """A data folder, an MMRec or RecBole folder, or a file of interactions."""
    reader: ReadConfig = ReadConfig()
    """Columns, filters and duplicates."""
    json_: Json = False
    """Print JSON instead of a table."""


class ImportOptions(Source):
    """What `data import` takes."""

    out: tyro.conf.Positional[Path]
    """The data folder to write."""
    overwrite: bool = False
    """Replace a data set that is there."""


class SplitOptions(Source):
    """What `data split` takes."""

    out: tyro.conf.Positional[Path]
    """The Parquet file to write: user, item, split."""
    split: SplitConfig = SplitConfig()
    """Kind, shares and seed."""


class ShopOptions(Config):
    """What `data synth` takes."""

    out: tyro.conf.Positional[Path]
    """The data folder to write."""
    shop: Annotated[ShopConfig, tyro.conf.arg(name="")] = ShopConfig()
    """Sizes, shares and seed."""


def main(arguments: Sequence[str]) -> int:
    """`modalmix data import|validate|describe|split|synth ...`."""
    verbs: dict[str, Callable[[Sequence[str]], int]] = {
        "import": _import,
        "validate": _validate,
        "describe": _describe,
        "split": _split,
        "synth": _synth,
    }
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: modalmix data COMMAND [OPTIONS]\n\ncommands:")
        print("\n".join(f"  {verb:9} {(function.__doc__ or '').rstrip('.')}" for verb, function in verbs.items()))
        return 0
    if arguments[0] not in verbs:
        raise ConfigError(f"there is no command 'data {arguments[0]}'", fix=nearest(arguments[0], verbs))
    return verbs[arguments[0]](arguments[1:])


def _import(arguments: Sequence[str]) -> int:
    """Read any supported format and write a data folder."""
    options = parse(ImportOptions, arguments, "data import", _import.__doc__ or "", SHORT)
    dataset = read_dataset(options.source, options.reader)
    write_folder(dataset, options.out, overwrite=options.overwrite)
    if options.json_:
        print_json(dataset.summary())
    else:
        console.print(facts_table(dataset.summary(), f"wrote {options.out}"))
    return 0


def _validate(arguments: Sequence[str]) -> int:
    """Look for what would spoil training or numbers; exit status 1 when there are problems."""
    options = parse(Source, arguments, "data validate", _validate.__doc__ or "", SHORT)
    dataset = read_dataset(options.source, options.reader)
    report = examine(dataset)
    report.warnings.extend(examine_raw(dataset))
    if options.json_:
        print_json(report.to_dict())
    else:
        show_examination(report)
    return 1 if report.problems else 0


def _describe(arguments: Sequence[str]) -> int:
    """Sizes, sparsity, long tail, modalities, time range."""
    options = parse(Source, arguments, "data describe", _describe.__doc__ or "", SHORT)
    facts = describe(read_dataset(options.source, options.reader))
    if options.json_:
        print_json(facts)
    else:
        console.print(description_table(facts))
    return 0


def _split(arguments: Sequence[str]) -> int:
    """Split the interactions, report leaks, write user, item, split."""
    short = SHORT | {"--kind": "--split.kind", "--seed": "--split.seed"}
    options = parse(SplitOptions, arguments, "data split", _split.__doc__ or "", short)
    split = make_split(read_dataset(options.source, options.reader), options.split)
    report = leak_report(split)
    write_split(split, options.out)
    sizes = {"train": len(split.train), "valid": len(split.valid), "test": len(split.test)}
    facts = {"kind": split.kind, **sizes, "sha256": split.sha256, "leaks": report.to_dict()}
    if options.json_:
        print_json(facts)
    else:
        console.print(facts_table(facts, f"wrote {options.out}"))
    for problem in report.problems:
        notice(f"leak: {problem}")
    for note in report.notes:
        notice(f"note: {note}")
    return 0


def _synth(arguments: Sequence[str]) -> int:
    """Draw a planted shop: pictures, titles and users whose taste is known."""
    options = parse(ShopOptions, arguments, "data synth", _synth.__doc__ or "")
    write_shop(plant(options.shop), options.out)
    print(f"wrote {options.out}", file=sys.stderr)
    return 0
