"""A data set small enough to check by eye."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from modalmix.data import Catalog, Dataset, IdMap, Interactions

EVENTS = pl.DataFrame(
    {
        "user": ["u2", "u1", "u1", "u2", "u1", "u3"],
        "item": ["a", "b", "a", "c", "c", "a"],
        "timestamp": [1_000_000_005, 1_000_000_001, 1_000_000_002, 1_000_000_003, 1_000_000_004, 1_000_000_000],
        "rating": [5.0, 1.0, 4.0, 3.0, 5.0, 2.0],
    }
)
ITEMS = pl.DataFrame(
    {
        "item": ["c", "a", "b", "d"],
        "title": ["Chair", "Apple", None, "Drum"],
        "categories": [["x"], ["y", "x"], [], ["z"]],
        "has_image": [True, True, False, True],
    }
)
IMAGE = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [np.nan, np.nan]], dtype=np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Our folder format: 3 users, 4 items (d is cold), 6 events, an image for c and a."""
    path = tmp_path / "small"
    path.mkdir()
    EVENTS.write_parquet(path / "interactions.parquet")
    ITEMS.write_parquet(path / "items.parquet")
    np.save(path / "image.npy", IMAGE)
    return path


@pytest.fixture
def dataset_of() -> Callable[..., Dataset]:
    """A data set from user rows and item rows; ids are u0, u1, ... and i0, i1, ..."""

    def make(
        user: Sequence[int],
        item: Sequence[int],
        time: Sequence[int] | None = None,
        labels: Sequence[str] | None = None,
        n_items: int | None = None,
    ) -> Dataset:
        users = IdMap([f"u{row:03}" for row in range(max(user) + 1)], "user")
        items = IdMap([f"i{row:03}" for row in range(n_items or max(item) + 1)])
        events = Interactions(
            np.array(user, dtype=np.int32),
            np.array(item, dtype=np.int32),
            len(users),
            len(items),
            None if time is None else np.array(time, dtype=np.int64),
        )
        return Dataset("drawn", users, Catalog(items), events, None if labels is None else np.array(labels))

    return make


@pytest.fixture
def disk_of() -> Callable[[int], object]:
    """disk_of(bytes): inside it, no file can grow beyond that size: the operating system makes the write fail."""
    resource = pytest.importorskip("resource")

    @contextmanager
    def limit(size: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit
