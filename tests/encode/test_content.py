import hashlib
import os
from pathlib import Path

import pytest

from modalmix.encode.content import from_paths, from_texts
from modalmix.errors import EncodeError


def test_texts_are_known_by_their_bytes_and_blank_ones_are_absent() -> None:
    contents = from_texts(["né", None, "", " \n\t", "a\ud800"])
    assert contents[0].digest == hashlib.sha256("né".encode()).digest()
    assert contents[0].read() == "né".encode()
    assert [bool(content.digest) for content in contents] == [True, False, False, False, True]
    assert contents[4].read() == b"a?"


def test_a_text_that_is_a_number_is_an_error() -> None:
    with pytest.raises(EncodeError, match=r"row 1: got int, expected a string or None"):
        from_texts(["a", 3])  # type: ignore[list-item]


def test_files_are_hashed_in_order_and_bad_ones_have_a_reason(tmp_path: Path) -> None:
    paths = [tmp_path / f"{k}.bin" for k in range(600)]
    for k, path in enumerate(paths):
        path.write_bytes(f"content {k}".encode())
    (tmp_path / "empty").touch()
    contents = from_paths([*paths, None, tmp_path / "empty", tmp_path / "missing", tmp_path])
    assert [c.digest for c in contents[:600]] == [hashlib.sha256(p.read_bytes()).digest() for p in paths]
    assert contents[600].reason is None
    assert contents[601].reason == "the file is empty"
    assert contents[602].reason == os.strerror(2)
    assert contents[603].reason == os.strerror(21)
    assert not any(content.digest for content in contents[600:])


def test_a_file_that_changes_or_goes_while_encoding_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"before")
    (content,) = from_paths([path])
    path.write_bytes(b"after")
    with pytest.raises(EncodeError, match="changed while it was being encoded"):
        content.read()
    path.unlink()
    with pytest.raises(EncodeError, match="cannot be read any more"):
        content.read()
