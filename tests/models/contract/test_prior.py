"""The graph filter as a prior, against dense products, and against a world from which the event is really gone."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from modalmix.errors import ConfigError, QueryError
from modalmix.models.contract import Query, Triples
from modalmix.models.contract import prior as module
from modalmix.models.contract.prior import FilterConfig, FilterPrior, PriorScores

USERS, ITEMS, ADDED = 12, 9, 3
WEIGHTS = (0.3, 0.7)
EXPONENTS, HOPS = (0.35, 0.6, 0.15), (1.5, 0.5)
EVERYBODY = Query(users=torch.arange(USERS))


def interactions() -> sp.csr_matrix:
    """User 0 met nothing, user 1 one item; item 8 was met by nobody, item 7 by one user."""
    rng = np.random.default_rng(4)
    met = (rng.random((USERS, ITEMS)) < 0.4).astype(np.float32)
    met[0], met[1], met[:, 7:] = 0, 0, 0
    met[1, 2] = met[5, 7] = 1
    return sp.csr_matrix(met)


def graphs(added: int = 0) -> list[sp.csr_matrix]:
    """Two neighbour graphs with weights, self loops and an item (6) without neighbours; added items list old ones."""
    rng, found = np.random.default_rng(5), []
    for density in (0.3, 0.5):
        graph = rng.random((ITEMS + ADDED, ITEMS)) * (rng.random((ITEMS + ADDED, ITEMS)) < density)
        graph[6], graph[:, 6] = 0, 0
        found.append(sp.csr_matrix(graph[: ITEMS + added], dtype=np.float32))
    return found


def prior(added: int = 0, met: sp.csr_matrix | None = None, **settings: object) -> FilterPrior:
    config = FilterConfig.parse({"exponents": EXPONENTS, "hops": HOPS, "entries": 100, **settings})
    return FilterPrior(interactions() if met is None else met, graphs(added), WEIGHTS, config)


def rows_to_one(a: np.ndarray) -> np.ndarray:
    total = a.sum(axis=1, keepdims=True)
    return np.divide(a, total, where=total > 0, out=np.zeros_like(a))


def power(degree: np.ndarray, exponent: float) -> np.ndarray:
    return np.array([one**-exponent if one else 0.0 for one in degree])


def similarity(added: int = 0, both_ways: bool = False) -> np.ndarray:
    """S, dense."""
    total = np.zeros((ITEMS + added, ITEMS))
    for weight, graph in zip(WEIGHTS, graphs(added), strict=True):
        near = graph.toarray().astype(float)
        near[:ITEMS] += near[:ITEMS].T if both_ways else 0.0
        total += weight * rows_to_one(near)
    return total


def dense_filter(
    met: np.ndarray, of: np.ndarray, added: int = 0, hops: tuple[float, ...] = HOPS, both_ways: bool = False
) -> np.ndarray:
    """W from the events `met`, with the degrees of the events `of`."""
    a, b, c = EXPONENTS
    to_users, to_items = of.sum(axis=1), of.sum(axis=0)
    k = np.diag(power(to_items, a)) @ met.T @ np.diag(power(to_users, b)) @ met @ np.diag(power(to_items, c))
    s = similarity(added, both_ways)
    reach, step = np.eye(ITEMS + added, ITEMS), s
    for place, hop in enumerate(hops):
        step = step if place == 0 else step @ s[:ITEMS]
        reach = reach + hop * step
    return reach @ k


def events() -> list[tuple[int, int]]:
    return [(int(u), int(i)) for u, i in zip(*interactions().nonzero(), strict=True)]


@pytest.mark.parametrize("hops", [(), (2.0,), (1.5, 0.5), (1.0, 0.0, 0.3)])
@pytest.mark.parametrize("both_ways", [True, False])
def test_scores_are_the_dense_product(hops: tuple[float, ...], both_ways: bool) -> None:
    met = interactions().toarray().astype(float)
    expected = met @ dense_filter(met, met, hops=hops, both_ways=both_ways)
    np.testing.assert_allclose(
        prior(hops=hops, both_ways=both_ways).rows(EVERYBODY).numpy(), expected, rtol=1e-5, atol=1e-6
    )
    assert not expected[0].any()
    assert np.unique(expected.round(6)).size > 50


def test_a_history_scores_as_a_user_who_met_it() -> None:
    found = prior()
    met = interactions()
    longest = int(met.getnnz(axis=1).max()) + 2
    lists = [met[user].indices for user in range(1, USERS)]
    padded = torch.tensor([[*row, *[-1] * (longest - len(row))] for row in lists])
    torch.testing.assert_close(found.rows(Query(history=padded)), found.rows(EVERYBODY)[1:])
    twice = found.rows(Query(history=torch.tensor([[2, 2, 5], [5, 2, -1]])))
    torch.testing.assert_close(twice[0], twice[1])
    with pytest.raises(QueryError, match="a history is empty"):
        found.rows(Query(history=torch.tensor([[2], [-1]])))


@pytest.mark.parametrize("hops", [(), (2.0,), (1.5, 0.5), (1.0, 0.7, 0.3)])
def test_without_its_event_a_pair_scores_as_if_it_never_was(hops: tuple[float, ...]) -> None:
    """For every event: R without it in the history and in K, the degrees those of the whole R."""
    whole = interactions().toarray().astype(float)
    found = prior(hops=hops).without_event
    assert found.shape == whole.shape
    checked = 0
    for user, item in events():
        rest = whole.copy()
        rest[user, item] = 0
        expected = rest[user] @ dense_filter(rest, whole, hops=hops)[:, item]
        assert found[user, item] == pytest.approx(expected, rel=1e-4, abs=1e-6)
        checked += expected > 0
    assert checked > 20


def test_the_event_in_k_matters() -> None:
    """Left in K alone, the event would still raise the score of its pair: the difference is what training would see."""
    whole, found = interactions().toarray().astype(float), prior().without_event
    w = dense_filter(whole, whole)
    for user, item in [(u, i) for u, i in events() if whole[u].sum() > 1]:
        rest = whole[user].copy()
        rest[item] = 0
        assert rest @ w[:, item] > found[user, item] + 0.05


def test_what_only_the_event_knew_scores_zero() -> None:
    found = prior().without_event
    assert found[1, 2] == 0.0, "the only item of its user"
    assert found[5, 7] == pytest.approx(0.0, abs=1e-6), "the only user of its item: without the event nobody met it"


def test_in_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = prior().without_event, prior().scale
    monkeypatch.setattr(module, "_EVENTS", 5)
    monkeypatch.setattr(module, "_USERS", 4)
    found = prior()
    np.testing.assert_allclose(found.without_event.toarray(), expected[0].toarray(), rtol=1e-6)
    assert found.scale == pytest.approx(expected[1])


def test_positives_and_negatives_of_a_batch() -> None:
    """Negatives: the positive out of the history, K whole."""
    found, whole = prior(), interactions().toarray().astype(float)
    some = events()[::4]
    missed = [int(np.flatnonzero(whole[user] == 0)[k % 3]) for k, (user, _) in enumerate(some)]
    batch = Triples(*(torch.tensor(column) for column in (*zip(*some, strict=True), missed)))
    w = dense_filter(whole, whole)
    for k, (user, item) in enumerate(some):
        rest = whole[user].copy()
        rest[item] = 0
        assert float(found.negatives(batch)[k]) == pytest.approx(rest @ w[:, missed[k]], rel=1e-4, abs=1e-6)
        assert float(found.positives(batch)[k]) == pytest.approx(found.without_event[user, item], rel=1e-6)
    assert found.positives(batch).dtype == found.negatives(batch).dtype == torch.float32


def test_the_scale_is_the_deviation_of_all_scores() -> None:
    whole = interactions().toarray().astype(float)
    assert prior().scale == pytest.approx((whole @ dense_filter(whole, whole)).std(), rel=1e-4)
    nothing = prior(met=sp.csr_matrix((USERS, ITEMS), dtype=np.float32))
    assert nothing.scale > 0
    assert not nothing.rows(EVERYBODY).any()


def test_added_items_score_zero_and_the_others_keep_theirs() -> None:
    before, after = prior().rows(EVERYBODY), prior(ADDED).rows(EVERYBODY)
    assert after.shape == (USERS, ITEMS + ADDED)
    torch.testing.assert_close(after[:, :ITEMS], before)
    assert not after[:, ITEMS:].any()
    assert prior(ADDED).scale == pytest.approx(prior().scale)
    torch.testing.assert_close(
        torch.from_numpy(prior(ADDED).without_event.toarray()), torch.from_numpy(prior().without_event.toarray())
    )


def test_a_history_of_added_items_reaches_through_their_neighbours() -> None:
    whole = interactions().toarray().astype(float)
    found = prior(ADDED).rows(Query(history=torch.tensor([[ITEMS + 1, 3], [ITEMS + 2, -1]])))
    w = dense_filter(whole, whole, ADDED)
    expected = np.stack([w[ITEMS + 1] + w[3], w[ITEMS + 2]])
    np.testing.assert_allclose(found[:, :ITEMS].numpy(), expected, rtol=1e-5, atol=1e-6)
    assert not found[:, ITEMS:].any()


def test_rows_may_be_cut_to_their_largest_entries() -> None:
    whole = interactions().toarray().astype(float)
    found = prior(hops=(), entries=2)
    assert found.filter.weights.getnnz(axis=1).max() == 2
    k = dense_filter(whole, whole, hops=())
    kept = np.where(k >= np.sort(k, axis=1)[:, -2:-1], k, 0)
    np.testing.assert_allclose(found.rows(EVERYBODY).numpy(), whole @ kept, rtol=1e-5, atol=1e-6)
    assert found.without_event.min() >= 0.0, "what was cut may be more than is left: never below nothing"


def test_bad_settings() -> None:
    for settings in ({"entries": 0}, {"exponents": (0.5, 0.5)}, {"hops": "far"}):
        with pytest.raises(ConfigError):
            FilterConfig.parse(settings)


def test_scores_are_trusted_item_by_item() -> None:
    phi, trust = prior(added=2), torch.arange(ITEMS + 2).float()
    query = Query(history=torch.tensor([[1, 2, -1], [5, 0, 3]]))
    torch.testing.assert_close(PriorScores(phi, trust)(query), phi.rows(query) * trust)
    with pytest.raises(QueryError):
        PriorScores(phi, trust)(Query(history=torch.tensor([[-1]])))
