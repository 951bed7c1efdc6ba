"""Recommend items to known users, or to anyone with a history."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro
from pydantic import Field, PositiveInt

from modalmix.cli.options import parse
from modalmix.cli.show import console, frame_table, print_json
from modalmix.config import Config
from modalmix.errors import QueryError
from modalmix.files import atomic
from modalmix.pipeline import load_run
from modalmix.serve.recommender import POOLS, Run

TITLE = "Recommend from a run folder: external ids in, ids, titles and scores out."


class Options(Config):
    """What `recommend` takes."""

    run: tyro.conf.Positional[Path]
    """A run folder."""
    users: tuple[str, ...] = ()
    """User ids."""
    history: tuple[str, ...] | None = None
    """Item ids, oldest first, of somebody the model has never seen; none after it: of somebody who has met nothing."""
    k: int = 10
    """Length of each list."""
    candidates: tuple[str, ...] = ("all",)
    """all, warm, cold, new (added items), or item ids."""
    filter_seen: bool = True
    """Leave out items the user is known to have met."""
    retrieve: PositiveInt | None = None
    """Score exactly only so many items, retrieved by inner products, and as many that the model's prior names: for a
    model that scores pair by pair, such as magnet. All items without it."""
    add: Path | None = None
    """Table (CSV, Parquet, JSON lines) of new items to add first: item, and title, ... as the data set has them."""
    add_images: Path | None = None
    """Folder with pictures of the new items, named by item."""
    add_audio: Path | None = None
    """Folder with sounds of the new items, named by item."""
    add_features: dict[str, Path] = Field(default_factory=dict)
    """Feature files of the new items instead: modality and file (.npy, .safetensors), rows as in the table."""
    data: Path | None = None
    """Where the data set is now, when it moved."""
    json_: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print JSON instead of a table."""
    csv: Path | None = None
    """Also write the list to this CSV file."""


def main(arguments: Sequence[str]) -> int:
    """`modalmix recommend RUN --users ID ... [--k 10] [--add items.csv [--add-images FOLDER]]`."""
    options = parse(Options, arguments, "recommend", TITLE)
    one_word = len(options.candidates) == 1 and options.candidates[0] in POOLS
    candidates: Any = options.candidates[0] if one_word else list(options.candidates)
    frame = _run(options).recommend(
        users=list(options.users) or None,
        history=None if options.history is None else list(options.history),
        k=options.k,
        candidates=candidates,
        filter_seen=options.filter_seen,
        retrieve=options.retrieve,
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


def _run(options: Options) -> Run:
    """The run, with the items to add. Raises QueryError for content of items without their table."""
    given = (options.add_images, options.add_audio, options.add_features)
    if options.add is None:
        if any(given):
            raise QueryError("content of new items without their table", fix="Give the table with --add.")
        return load_run(options.run, options.data)
    images, audio, features = given
    return load_run(options.run, options.data).add_items(options.add, images=images, audio=audio, features=features)
