"""The contents to encode: texts and files, each known by the hash of its bytes, absent ones with the reason."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from modalmix.errors import EncodeError
from modalmix.files import sha256_file

HASH_THREADS = 4
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Content:
    """One content. `digest` is the SHA-256 of its bytes, empty where it is absent; `reason` says what is wrong."""

    source: str | Path | None
    digest: bytes = b""
    size: int = 0
    reason: str | None = None

    def read(self) -> bytes:
        """The bytes. Raises EncodeError when the file is no longer what was hashed."""
        if isinstance(self.source, str):
            return _utf8(self.source)
        try:
            content = Path(self.source or "").read_bytes()
        except OSError as error:
            raise EncodeError(f"{self.source} cannot be read any more", got=error, fix="Run again.") from error
        if hashlib.sha256(content).digest() != self.digest:
            raise EncodeError(f"{self.source} changed while it was being encoded", fix="Run again.")
        return content


def from_texts(texts: Sequence[str | None]) -> list[Content]:
    """Contents of texts; None, empty and blank ones are absent. Raises EncodeError for anything but text."""
    return [_from_text(row, text) for row, text in enumerate(texts)]


def from_paths(paths: Sequence[Path | str | None]) -> list[Content]:
    """Contents of files, hashed by a few threads; None is absent, a missing or empty file is absent with a reason."""
    chunks = [paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)]
    with ThreadPoolExecutor(HASH_THREADS) as pool:
        return [content for chunk in pool.map(_from_chunk, chunks) for content in chunk]


def _from_text(row: int, text: str | None) -> Content:
    if text is None:
        return Content(None)
    if not isinstance(text, str):
        raise EncodeError(f"the text of row {row}", got=type(text).__name__, expected="a string or None")
    content = _utf8(text)
    return Content(text, hashlib.sha256(content).digest(), len(content)) if text.strip() else Content(None)


def _from_chunk(paths: Sequence[Path | str | None]) -> list[Content]:
    return [Content(None) if path is None else _from_file(Path(path)) for path in paths]


def _from_file(path: Path) -> Content:
    try:
        size = path.stat().st_size
        if size == 0:
            return Content(path, reason="the file is empty")
        return Content(path, bytes.fromhex(sha256_file(path)), size)
    except OSError as error:
        return Content(path, reason=error.strerror or str(error))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", errors="replace")  # a lone surrogate is not worth losing the text
