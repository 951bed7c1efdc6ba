"""A small shop whose users follow content, for the tests of content models; who met what, for those of the others."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest

from modalmix.data.catalog import Catalog
from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.data.modality import Modality
from modalmix.data.split import TrainData

# So that a failed assert in these says what it compared, as one in a test file does.
pytest.register_assert_rewrite("tests.models.sequences", "tests.models.training")

Shop = Callable[..., TrainData]


@pytest.fixture(scope="session")
def content_shop() -> Shop:
    """content_shop(dims, users, items, cold, absent): features and events follow the same two-dimensional tastes.

    `cold`: the last so many items have no event. `absent`: modality -> rows without it.
    """

    def build(
        dims: Mapping[str, int] | None = None,
        *,
        users: int = 40,
        items: int = 30,
        cold: int = 6,
        absent: Mapping[str, Sequence[int]] | None = None,
        seed: int = 0,
    ) -> TrainData:
        rng = np.random.default_rng(seed)
        kind, taste = rng.standard_normal((items, 2)), rng.standard_normal((users, 2))
        modalities = {}
        for name, dim in (dims or {"image": 12, "text": 8}).items():
            x = kind @ rng.standard_normal((2, dim)) + 0.1 * rng.standard_normal((items, dim)) + 3.0
            x[list((absent or {}).get(name, ()))] = np.nan
            modalities[name] = Modality.from_matrix(name, x.astype(np.float32))
        liked = np.argsort(-(taste @ kind[: items - cold].T), axis=1)[:, :5].astype(np.int32)
        user = np.repeat(np.arange(users, dtype=np.int32), 5)
        missed = np.setdiff1d(np.arange(items - cold, dtype=np.int32), liked)  # so that exactly the last are cold
        owner = np.arange(len(missed), dtype=np.int32) % users
        events = Interactions(np.append(user, owner), np.append(liked.ravel(), missed), users, items)
        return TrainData(IdMap(np.arange(users), "user"), Catalog(IdMap(np.arange(items)), modalities), events)

    return build


Correlation = Callable[[TrainData, np.ndarray], float]


@pytest.fixture(scope="session")
def content_correlation() -> Correlation:
    """content_correlation(data, scores [users, cold items]): mean over users of the correlation between the scores and
    how near a cold item is to the mean of the user's items, by the first modality. The cold items are the last ones."""

    def correlate(data: TrainData, scores: np.ndarray) -> float:
        x, events = next(iter(data.catalog.modalities.values())).matrix(), data.interactions
        profile = np.stack([x[events.item[events.user == u]].mean(axis=0) for u in range(len(scores))])
        distance = ((profile[:, None] - x[None, -scores.shape[1] :]) ** 2).sum(axis=2)
        return float(np.mean([np.corrcoef(scores[u], -distance[u])[0, 1] for u in range(len(scores))]))

    return correlate


@pytest.fixture
def met() -> np.ndarray:
    """Who met what: 30 users, 12 items. Item 5 is cold, every user has an event."""
    met = (np.random.default_rng(0).random((30, 12)) < 0.25).astype(np.float64)
    met[:, 5] = 0
    met[met.sum(axis=1) == 0, 0] = 1
    return met
