"""Contents -> a finished cache entry: batch by batch, shard by shard, resumable at any moment."""

import datetime
import platform
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from modalmix.encode.content import Content
from modalmix.encode.encoder import Decoded, Encoder, EncoderConfig, UnreadableError
from modalmix.encode.entry import Encoded, Entry, Place
from modalmix.errors import EncodeError

SHARD_ROWS = 512  # what a kill can cost
DECODE_THREADS = 4
NAMED_UNREADABLE = 10
LIBRARIES = ("modalmix", "torch", "transformers", "sentence-transformers", "pillow", "soundfile")


def encode_contents(contents: Sequence[Content], encoder: Encoder[Any], config: EncoderConfig) -> Encoded:
    """The features of the contents, from the cache or encoded now. Equal contents are encoded once.

    Interrupted at any moment, also by kill -9, the next call goes on after the last finished shard, to the same bits.
    Raises EncodeError for an encoder that cannot be loaded, a full disk, or vectors that are not finite.
    """
    identity = {**encoder.identity, "precision": config.precision, "dtype": config.dtype}
    entry = Entry.of(encoder.modality, identity, contents)
    done = entry.read()
    if done is None:
        with entry.locked():
            done = entry.read()  # somebody else may have finished it while we waited
            if done is None:
                _fill(entry, contents, encoder, config, identity)
                done = entry.read(from_cache=False)
    if done is None:
        raise EncodeError(f"features just written to {entry.folder} cannot be read", fix="Check the disk.")
    _warn(done)
    return done


def _fill(
    entry: Entry, contents: Sequence[Content], encoder: Encoder[Any], config: EncoderConfig, identity: Mapping[str, Any]
) -> None:
    """Encode what no entry has yet, and write this one."""
    unique = {content.digest: content for content in contents if content.digest}
    places = entry.known(set(unique))
    missing = [content for digest, content in unique.items() if digest not in places]
    shards = [missing[start : start + SHARD_ROWS] for start in range(0, len(missing), SHARD_ROWS)]
    reasons: dict[str, str] = {}
    loaded = False
    with _progress(f"{encoder.modality} by {config.encoder}", len(missing)) as advance:
        for shard in shards:
            kept = entry.read_shard(shard)
            if kept is None:
                if not loaded:
                    encoder.load()
                    loaded = True
                kept = _encode_shard(shard, encoder, config, advance)
                entry.write_shard(shard, *kept)
            else:
                advance(len(shard))
            values, why = kept
            reasons |= why
            places |= {c.digest: (values, row) for row, c in enumerate(shard) if c.digest.hex() not in why}
    dim = _dim(places, encoder, loaded)
    entry.write(contents, places, dim, config.dtype, _provenance(contents, reasons, encoder, config, identity))


def _encode_shard(
    shard: Sequence[Content], encoder: Encoder[Decoded], config: EncoderConfig, advance: Callable[[int], None]
) -> tuple[Float[np.ndarray, "rows dim"], dict[str, str]]:
    """The vectors of a shard, NaN where a content is unreadable, and why. Batches hold contents of like size."""
    order = sorted(range(len(shard)), key=lambda row: shard[row].size)  # short texts need little padding together
    batches = [order[start : start + config.batch_size] for start in range(0, len(order), config.batch_size)]
    reasons: dict[str, str] = {}
    parts: list[tuple[list[int], Float[np.ndarray, "rows dim"]]] = []
    for rows, decoded in _decoded(shard, batches, encoder):
        good = [(row, one) for row, one in zip(rows, decoded, strict=True) if not isinstance(one, UnreadableError)]
        reasons |= {
            shard[row].digest.hex(): str(one)
            for row, one in zip(rows, decoded, strict=True)
            if isinstance(one, UnreadableError)
        }
        if good:
            places = [row for row, _ in good]
            vectors = _stored(encoder.vectors([one for _, one in good]), config.dtype)
            _check(vectors, [shard[row] for row in places], config)
            parts.append((places, vectors))
        advance(len(rows))
    values = np.full((len(shard), parts[0][1].shape[1] if parts else 0), np.nan, dtype=config.dtype)
    for places, vectors in parts:
        values[places] = vectors
    return values, reasons


def _decoded(
    shard: Sequence[Content], batches: Sequence[Sequence[int]], encoder: Encoder[Decoded]
) -> Iterator[tuple[Sequence[int], list[Decoded | UnreadableError]]]:
    """Batches of decoded contents; while one is being encoded, a few threads decode the next."""

    def decode(content: Content) -> Decoded | UnreadableError:
        try:
            return encoder.decode(content.read())
        except UnreadableError as error:
            return error

    with ThreadPoolExecutor(DECODE_THREADS) as pool:
        ahead: list[Future[Decoded | UnreadableError]] = []
        for position, rows in enumerate(batches):
            current = ahead or [pool.submit(decode, shard[row]) for row in rows]
            following = batches[position + 1] if position + 1 < len(batches) else []
            ahead = [pool.submit(decode, shard[row]) for row in following]
            yield rows, [future.result() for future in current]


def _stored(vectors: Float[np.ndarray, "rows dim"], dtype: str) -> Float[np.ndarray, "rows dim"]:
    with np.errstate(over="ignore"):  # _check reports it
        return vectors.astype(dtype)


def _check(vectors: Float[np.ndarray, "rows dim"], contents: Sequence[Content], config: EncoderConfig) -> None:
    """A readable content must have a finite vector."""
    broken = ~np.isfinite(vectors).all(axis=1)
    if broken.any():
        raise EncodeError(
            f"{config.encoder} gave NaN or Inf for {_name(contents[int(broken.argmax())])}",
            fix="Use precision=float32 and dtype=float32, or another encoder.",
        )


def _dim(places: Mapping[bytes, Place], encoder: Encoder[Any], loaded: bool) -> int:
    """Length of a vector; where there is none, that of an empty content."""
    for values, _ in places.values():
        return int(values.shape[1])
    if not loaded:
        encoder.load()
    return int(encoder.vectors([encoder.blank()]).shape[1])


def _provenance(
    contents: Sequence[Content],
    reasons: Mapping[str, str],
    encoder: Encoder[Any],
    config: EncoderConfig,
    identity: Mapping[str, Any],
) -> dict[str, Any]:
    """Where the features come from, and what could not be read."""
    unreadable = [(c, c.reason or reasons.get(c.digest.hex())) for c in contents]
    named = [{"content": _name(c), "reason": reason} for c, reason in unreadable if reason]
    absent = sum(not c.digest or c.digest.hex() in reasons for c in contents)
    return {
        "encoder": config.encoder,
        "modality": encoder.modality,
        **identity,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **_versions()},
        "absent": absent,
        "unreadable": len(named),
        "unreadable_first": named[:NAMED_UNREADABLE],
    }


def _versions() -> dict[str, str]:
    found = {}
    for library in LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def _name(content: Content) -> str:
    if isinstance(content.source, Path):
        return str(content.source)
    return repr((content.source or "")[:60])


def _warn(encoded: Encoded) -> None:
    """Say what is missing: a silent hole in the data would look like a weak model."""
    facts = encoded.provenance
    if facts["rows"] and facts["absent"] == facts["rows"]:
        warnings.warn(f"no item has any {facts['modality']}: all {facts['rows']:,} rows are absent", stacklevel=4)
    if facts["unreadable"]:
        first = facts["unreadable_first"][0]
        warnings.warn(
            f"{facts['unreadable']:,} of {facts['rows']:,} {facts['modality']} contents are unreadable and count as "
            f"absent. First: {first['content']} ({first['reason']})",
            stacklevel=4,
        )


@contextmanager
def _progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar with the time left, where somebody is looking."""
    if not sys.stderr.isatty() or total == 0:
        yield lambda rows: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total)
        yield lambda rows: progress.advance(task, rows)
