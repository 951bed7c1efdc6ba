import errno
import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modalmix.encode import batches
from modalmix.encode.batches import encode_contents
from modalmix.encode.content import from_paths, from_texts
from modalmix.encode.encoder import Encoder, EncoderConfig, UnreadableError
from modalmix.encode.entry import Encoded
from modalmix.errors import EncodeError

CONFIG = EncoderConfig(encoder="hash", batch_size=4)


class HashEncoder(Encoder[bytes]):
    """The vector of a content is drawn from its hash; b'bad...' is unreadable. Counts what it is asked to do."""

    modality = "text"

    def __init__(self, dim: int = 3, weights: str = "w") -> None:
        self.dim, self.weights, self.loads, self.seen = dim, weights, 0, 0

    @property
    def identity(self) -> dict[str, Any]:
        return {"weights": self.weights, "normalisation": "none"}

    def load(self) -> None:
        self.loads += 1

    def decode(self, content: bytes) -> bytes:
        if content.startswith(b"bad"):
            raise UnreadableError("it is bad")
        return content

    def blank(self) -> bytes:
        return b""

    def vectors(self, batch: Sequence[bytes]) -> np.ndarray:
        self.seen += len(batch)
        return np.stack([self.vector(content) for content in batch])

    def vector(self, content: bytes) -> np.ndarray:
        seed = int.from_bytes(hashlib.sha256(content).digest()[:4], "little")
        return np.random.default_rng(seed).normal(size=self.dim).astype(np.float32)


@pytest.fixture
def hash_encoder() -> HashEncoder:
    return HashEncoder()


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "SHARD_ROWS", 8)


def encode(texts: list[str | None], encoder: HashEncoder, config: EncoderConfig = CONFIG) -> Encoded:
    return encode_contents(from_texts(texts), encoder, config)


def temporary_files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file() and path.name.startswith(".") and path.name != ".lock"]


def test_every_row_is_the_vector_of_its_own_content(hash_encoder: HashEncoder) -> None:
    texts = [None if k % 7 == 3 else f"text {'x' * (k % 5)} {k % 20}" for k in range(50)]
    encoded = encode(texts, hash_encoder)
    assert isinstance(encoded.features, np.memmap)
    assert encoded.features.shape == (50, 3)
    for text, row, present in zip(texts, encoded.features, encoded.present, strict=True):
        assert present == (text is not None)
        expected = np.full(3, np.nan) if text is None else hash_encoder.vector(text.encode())
        np.testing.assert_array_equal(row, expected)
    assert hash_encoder.seen == len({text for text in texts if text})  # equal contents are encoded once
    assert encoded.provenance["absent"] == sum(text is None for text in texts)
    assert encoded.provenance["unreadable"] == 0
    assert sorted(path.name for path in encoded.path.iterdir()) == [
        ".lock",
        "contents.npy",
        "features.npy",
        "provenance.json",
    ]


def test_the_second_time_nothing_is_loaded(hash_encoder: HashEncoder) -> None:
    first = encode(["a", "b", None], hash_encoder)
    again = HashEncoder()
    second = encode(["a", "b", None], again)
    assert (first.from_cache, second.from_cache) == (False, True)
    assert again.loads == again.seen == 0
    assert second.provenance == first.provenance
    np.testing.assert_array_equal(second.features, first.features)
    np.testing.assert_array_equal(second.present, [True, True, False])


def test_another_content_order_weight_or_setting_is_another_entry(hash_encoder: HashEncoder) -> None:
    paths = {
        encode(["a", "b"], hash_encoder).path,
        encode(["a", "c"], hash_encoder).path,
        encode(["b", "a"], hash_encoder).path,
        encode(["a", "b", None], hash_encoder).path,
        encode(["a", "b"], HashEncoder(weights="other")).path,
        encode(["a", "b"], hash_encoder, CONFIG.replace(dtype="float16")).path,
        encode(["a", "b"], hash_encoder, CONFIG.replace(precision="bfloat16")).path,
    }
    assert len(paths) == 7
    assert encode(["a", "b"], hash_encoder, CONFIG.replace(batch_size=1)).from_cache  # not a matter of content


def test_new_items_cost_only_themselves(hash_encoder: HashEncoder) -> None:
    old = encode([f"t{k}" for k in range(20)], hash_encoder)
    later = HashEncoder()
    both = encode([f"t{k}" for k in range(23)], later)
    assert later.seen == 3
    np.testing.assert_array_equal(both.features[:20], old.features)
    np.testing.assert_array_equal(both.features[22], later.vector(b"t22"))
    only_old = HashEncoder()
    encode(["t3", "t1"], only_old)
    assert only_old.loads == 0


def test_unreadable_contents_are_absent_named_and_warned_of(hash_encoder: HashEncoder, tmp_path: Path) -> None:
    contents = {"a": b"good", "b": b"bad one", "c": b"", "d": b"good 2"}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    paths = [tmp_path / name for name in "abcde"] + [None]
    with pytest.warns(UserWarning, match=r"3 of 6 text contents are unreadable .*/b \(it is bad\)"):
        encoded = encode_contents(from_paths(paths), hash_encoder, CONFIG)
    assert encoded.present.tolist() == [True, False, False, True, False, False]
    assert np.isnan(encoded.features[1]).all()
    assert encoded.provenance["absent"] == 4
    assert [one["reason"] for one in encoded.provenance["unreadable_first"]] == [
        "it is bad",
        "the file is empty",
        os.strerror(2),
    ]


@pytest.mark.filterwarnings("ignore:1 of 2")
@pytest.mark.parametrize("texts", [[None, " "], ["bad", None]])
def test_all_absent_still_has_a_dim(texts: list[str | None], hash_encoder: HashEncoder) -> None:
    with pytest.warns(UserWarning, match="no item has any text: all 2 rows are absent"):
        encoded = encode(texts, hash_encoder)
    assert encoded.features.shape == (2, 3)
    assert not encoded.present.any()


def test_nothing_to_encode_is_an_empty_matrix(hash_encoder: HashEncoder) -> None:
    assert encode([], hash_encoder).features.shape == (0, 3)


def test_half_precision_is_the_same_rounded(hash_encoder: HashEncoder) -> None:
    encoded = encode(["a"], hash_encoder, CONFIG.replace(dtype="float16"))
    assert encoded.features.dtype == np.float16
    np.testing.assert_array_equal(encoded.features[0], hash_encoder.vector(b"a").astype(np.float16))


@pytest.mark.parametrize(("value", "dtype"), [(np.nan, "float32"), (1e6, "float16")])
def test_a_vector_that_is_not_finite_is_an_error(
    value: float, dtype: str, hash_encoder: HashEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hash_encoder, "vector", lambda content: np.full(3, value, dtype=np.float32))
    with pytest.raises(EncodeError, match="hash gave NaN or Inf for 'a'"):
        encode(["a"], hash_encoder, CONFIG.replace(dtype=dtype))


@pytest.mark.parametrize("write", range(1, 12))
def test_a_full_disk_is_an_error_that_tears_nothing_and_resumes(
    write: int, hash_encoder: HashEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full at the write-th atomic rename: in a shard's reasons, a shard, the matrix, the provenance."""
    texts = [f"t{k}" for k in range(30)]  # 4 shards of two files, then 3 files
    rename, count = os.replace, 0

    def full(source: str, target: str) -> None:
        nonlocal count
        count += 1
        if count == write:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(EncodeError, match=r"cannot be written .* No space left .*MODALMIX_CACHE"):
        encode(texts, hash_encoder)
    monkeypatch.setattr(os, "replace", rename)
    again = HashEncoder()
    encoded = encode(texts, again)
    assert again.seen == 30 - min(8 * ((write - 1) // 2), 30)
    np.testing.assert_array_equal(encoded.features, np.stack([again.vector(text.encode()) for text in texts]))
    assert temporary_files(encoded.path) == []


def test_a_damaged_entry_is_made_again(hash_encoder: HashEncoder) -> None:
    encoded = encode(["a", "b"], hash_encoder)
    for name, content in (("provenance.json", b"{"), ("features.npy", b""), ("contents.npy", b"x")):
        (encoded.path / name).write_bytes(content)
        repaired = encode(["a", "b"], HashEncoder())
        assert not repaired.from_cache
        np.testing.assert_array_equal(repaired.features[1], hash_encoder.vector(b"b"))
    shutil.rmtree(encoded.path)
    assert not encode(["a", "b"], HashEncoder()).from_cache


def test_an_unwritable_cache_is_an_error(
    hash_encoder: HashEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MODALMIX_CACHE", str(tmp_path / "file"))
    with pytest.raises(EncodeError, match="MODALMIX_CACHE"):
        encode(["a"], hash_encoder)


def test_provenance_says_where_features_come_from(hash_encoder: HashEncoder) -> None:
    encoded = encode(["a"], hash_encoder)
    facts = json.loads((encoded.path / "provenance.json").read_text())
    assert facts == encoded.provenance
    assert {"encoder", "weights", "modality", "dim", "rows", "dtype", "normalisation", "date", "sha256"} <= set(facts)
    assert "torch" in facts["versions"]


def test_two_at_once_encode_once() -> None:
    texts: list[str | None] = [f"t{k}" for k in range(40)]
    encoders = [HashEncoder(), HashEncoder()]
    with ThreadPoolExecutor(2) as pool:
        both = list(pool.map(lambda encoder: encode(texts, encoder), encoders))
    assert sum(encoder.seen for encoder in encoders) == 40
    assert sorted(one.from_cache for one in both) == [False, True]


def test_a_bar_counts_contents_where_somebody_looks(
    hash_encoder: HashEncoder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    encode(["a"], hash_encoder)
    assert capsys.readouterr().err == ""
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    encode([f"t{k}" for k in range(30)], hash_encoder)
    assert "text by hash" in terminal.getvalue()
    assert "30/30" in terminal.getvalue()
