"""Recommend items to known users, or to anyone with a history."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from modalmix.cli.options import parse
from modalmix.cli.show import console, frame_table, print_json
from modalmix.config import Config
from modalmix.errors import QueryError
from modalmix.files import atomic
from modalmix.pipeline import load_run

TITLE = "Recommend from a run folder: external ids in, ids, titles and scores out."


class Options(Config):
    """What `recommend` takes."""

    run: tyro.conf.Positional[Path]
    """A run folder."""
    users: tuple[str, ...] = ()
    """User ids."""
    history: tuple[str, ...] = ()
    """Item ids, oldest first, of somebody the model has never seen."""
    k: int = 10
    """Length of each list."""
    candidates: tuple[str, ...] = ("all",)
    """all, warm, cold, or item ids."""
    filter_seen: bool = True
    """Leave out items the user is known to have met."""
    data: Path | None = None
    """Where the data set is now, when it moved."""
    json_: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print JSON instead of a table."""
    csv: Path | None = None
    """Also write the list to this CSV file."""


def main(arguments: Sequence[str]) -> int:
    """`modalmix recommend RUN --users ID ... [--k 10]`."""
    options = parse(Options, arguments, "recommend", TITLE)
    one_word = len(options.candidates) == 1 and options.candidates[0] in ("all", "warm", "cold")
    candidates: Any = options.candidates[0] if one_word else list(options.candidates)
    frame = load_run(options.run, options.data).recommend(
        users=list(options.users) or None,
        history=list(options.history) or None,
        k=options.k,
        candidates=candidates,
        filter_seen=options.filter_seen,
    )
    if options.csv is not None:
        if options.csv.exists():
            raise QueryError(f"{options.csv} exists", fix="Choose another name.")
        with atomic(options.csv) as temporary:
            frame.write_csv(temporary)
    if options.json_:
        print_json(frame.to_dicts())
    else:
        console.print(frame_table(frame))
    return 0
