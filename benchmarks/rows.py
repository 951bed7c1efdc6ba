"""A results file that grows row by row: kill it, start it again: missing rows run, a torn one from its checkpoint."""

import argparse
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

import modalmix
from benchmarks.data import REAL
from benchmarks.paired import values_file
from modalmix.files import sha256_values

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Task:
    """One row to measure: what identifies it, and the function that measures it."""

    key: Mapping[str, Any]
    """model, data, split, seed, settings, ...: everything that the result depends on."""
    measure: Callable[[], Mapping[str, Any]]

    @property
    def id(self) -> str:
        """Short content hash of the key."""
        return sha256_values(dict(self.key))[:12]


def training_folder(id: str, results: Path = RESULTS) -> Path:
    """Where the training of a row is kept until the row is there: a killed one goes on at its last checkpoint.

    Its name has a hash of the package's code: no row is trained half by one version and half by another.
    """
    return results / "runs" / f"{id}-{_code()}"


@cache
def _code() -> str:
    sources = sorted(Path(modalmix.__file__).parent.rglob("*.py"))
    return sha256_values([source.read_text(encoding="utf-8") for source in sources])[:12]


def read(path: Path) -> dict[str, dict[str, Any]]:
    """Row id -> row, the last of each id. A last line torn by a kill is ignored; its row runs again."""
    rows: dict[str, dict[str, Any]] = {}
    if path.exists():
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            rows[row["id"]] = row
    return rows


def by_data(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Data set -> its rows."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in read(path).values():
        found.setdefault(row["data"], []).append(row)
    return found


def run(
    tasks: Iterable[Task],
    path: Path,
    report: Callable[[dict[str, Any]], None] = print,
    whole: Callable[[str], bool] = lambda id: True,
) -> None:
    """Measure the tasks that have no row yet, or one that is not `whole`, appending each row as soon as it is known.

    What a task leaves in its `training_folder` stays there until it has its row. Two processes may share a file: a row
    is one write of one line, and a task that another process has begun is marked by a claim file that dies with that
    process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for task in tasks:
        if (task.id in read(path) and whole(task.id)) or not _claim(path, task.id):
            continue
        row = {"id": task.id, **task.key, **task.measure()}
        _append(path, json.dumps(row))
        for trained in training_folder(task.id, path.parent).parent.glob(f"{task.id}-*"):
            shutil.rmtree(trained)
        _claim_file(path, task.id).unlink(missing_ok=True)
        report(row)


def command_line(
    about: str | None, tasks: Callable[[], Iterable[Task]], path: Path, report: Callable[[dict[str, Any]], None]
) -> None:
    """Run the missing rows that the flags choose, on one thread; none with --table, or where the real data are not."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--only", nargs="*", default=[], help="run only rows whose key contains all these texts")
    parser.add_argument("--skip", nargs="*", default=[], help="leave out rows whose key contains one of these texts")
    parser.add_argument(
        "--values", action="store_true", help="run rows again whose per-user values are missing; the new row counts"
    )
    parser.add_argument("--table", action="store_true", help="only write the table")
    options = parser.parse_args()
    if options.table:
        return
    if not REAL.is_dir():
        print(f"skipped: the real data sets are not in {REAL.name}/; set MODALMIX_DATA to the folder that has them")
        return
    torch.set_num_threads(1)
    keys = [(task, str(dict(task.key))) for task in tasks()]
    chosen = [task for task, key in keys if all(text in key for text in options.only)]
    chosen = [one for one in chosen if not any(text in str(dict(one.key)) for text in options.skip)]
    run(chosen, path, report, lambda id: not options.values or values_file(path.parent, id).exists())


def _append(path: Path, line: str) -> None:
    """Add a line in one write, on a line of its own also after one that a kill has torn."""
    torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    with open(path, "a", encoding="utf-8") as file:
        file.write(("\n" if torn else "") + line + "\n")
        file.flush()
        os.fsync(file.fileno())


def _claim_file(path: Path, id: str) -> Path:
    return path.parent / f".{path.stem}-{id}.claim"


def _claim(path: Path, id: str) -> bool:
    """Whether this process may run the row: no living process has claimed it."""
    claim = _claim_file(path, id)
    if claim.exists():
        owner = claim.read_text(encoding="utf-8").strip()
        if owner.isdigit() and owner != str(os.getpid()) and Path(f"/proc/{owner}").exists():
            return False
    claim.write_text(str(os.getpid()), encoding="utf-8")
    return True
