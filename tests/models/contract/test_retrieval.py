"""Two steps against all items, by hand and against brute force."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from modalmix.errors import QueryError
from modalmix.models.contract import DotScorer, Query
from modalmix.models.contract import retrieval as module
from modalmix.models.contract.retrieval import Best, FullRanking, InnerProducts, PairScorer, TwoStep, largest

USERS, ITEMS, WIDE = 9, 30, 4


class Approximated:
    """Score = inner product + prior + what neither of the two knows (`rest`)."""

    def __init__(self, rest: float = 0.0, prior: bool = True) -> None:
        torch.manual_seed(0)
        self.users, self._items = torch.randn(USERS, WIDE), torch.randn(ITEMS, WIDE)
        self.added = 3.0 * torch.rand(USERS, ITEMS) * (torch.rand(USERS, ITEMS) < 0.2)
        self.rest = rest * torch.randn(USERS, ITEMS)
        self.prior: Callable[[Query], Tensor] | None = (lambda query: self.added[query.users]) if prior else None
        self.scored = 0

    @property
    def item_vectors(self) -> Tensor:
        return self._items

    def vectors(self, query: Query) -> Tensor:
        return self.users[query.users]

    def __call__(self, query: Query) -> Tensor:
        known = self.added[query.users] if self.prior is not None else 0.0
        return self.vectors(query) @ self._items.T + known + self.rest[query.users]

    def pairs(self, query: Query, candidates: Tensor) -> Tensor:
        self.scored = max(self.scored, candidates.shape[1])
        return self(query).gather(1, candidates)


EVERYBODY = Query(users=torch.arange(USERS))


def by_hand(scores: Tensor, k: int, exclude: Tensor | None = None, pool: Tensor | None = None) -> list[list[int]]:
    """The best k of each user, by sorting Python lists."""
    lists = []
    for user, row in enumerate(scores.tolist()):
        hidden = set() if exclude is None else set(exclude[user].tolist())
        left = [item for item in range(len(row)) if item not in hidden and (pool is None or bool(pool[item]))]
        lists.append(sorted(left, key=lambda item: (-row[item], item))[:k])
    return lists


def listed(best: Best) -> list[list[int]]:
    """Items of each list that are there."""
    return [row[score > -torch.inf].tolist() for row, score in zip(*best, strict=True)]


SEEN = torch.tensor([[-1, -1, -1]] * 3 + [[4, 29, 0]] * 3 + [[7, -1, -1]] * 3)
EVEN = torch.arange(ITEMS) % 2 == 0


@pytest.mark.parametrize("exclude", [None, SEEN, torch.empty(USERS, 0, dtype=torch.int64)])
@pytest.mark.parametrize("pool", [None, EVEN])
class TestAgainstBruteForce:
    @pytest.mark.parametrize("candidates", [ITEMS, 1000])
    def test_two_steps_equal_the_full_ranking(
        self, exclude: Tensor | None, pool: Tensor | None, candidates: int
    ) -> None:
        scorer = Approximated(rest=2.0)
        expected = by_hand(scorer(EVERYBODY), 7, exclude, pool)
        assert listed(FullRanking(scorer).top(EVERYBODY, 7, exclude, pool)) == expected
        found = TwoStep(scorer, candidates).top(EVERYBODY, 7, exclude, pool)
        assert listed(found) == expected
        torch.testing.assert_close(found.scores, scorer(EVERYBODY).gather(1, found.rows))

    def test_what_is_retrieved_are_the_best_of_both_without_the_excluded(
        self, exclude: Tensor | None, pool: Tensor | None
    ) -> None:
        scorer = Approximated()
        rows = TwoStep(scorer, 4).retrieve(EVERYBODY, exclude, pool)
        near = by_hand(scorer.users @ scorer.item_vectors.T, 4, exclude, pool)
        known = by_hand(scorer.added, 4, exclude, pool)
        for user, row in enumerate(rows.tolist()):
            kept = [item for item in row if item >= 0]
            assert kept == sorted(set(kept)), "ascending, each once"
            assert set(near[user]) <= set(kept)
            certain = {item for item in known[user] if scorer.added[user, item] > 0}  # zeros tie: any of them
            assert certain <= set(kept)
            hidden = set() if exclude is None else set(exclude[user].tolist())
            assert not hidden & set(kept)
            assert pool is None or bool(pool[kept].all())


def test_without_a_prior_the_index_alone_names_items() -> None:
    scorer = Approximated(prior=False)
    two = TwoStep(scorer, 6)
    assert listed(two.top(EVERYBODY, 6, SEEN)) == by_hand(scorer(EVERYBODY), 6, SEEN)
    assert scorer.scored == 6


def test_the_prior_finds_what_inner_products_miss() -> None:
    scorer = Approximated()
    worst = (scorer.users @ scorer.item_vectors.T).argmin(dim=1)
    scorer.added[torch.arange(USERS), worst] = 100.0
    assert TwoStep(scorer, 3).top(EVERYBODY, 1).rows[:, 0].tolist() == worst.tolist()
    scorer.prior = None
    assert not (TwoStep(scorer, 3).retrieve(EVERYBODY) == worst.unsqueeze(1)).any()


def test_an_index_can_take_the_place_of_the_first_step() -> None:
    scorer = Approximated(prior=False)
    asked = []

    def first_rows(vectors: Tensor, n: int, pool: Tensor | None = None) -> Tensor:
        asked.append((tuple(vectors.shape), n))
        return torch.arange(n).expand(len(vectors), -1)

    best = TwoStep(scorer, 5, first_rows).top(EVERYBODY, 5, SEEN)
    assert asked == [((USERS, WIDE), 8)], "three may be excluded, and five are to be left"
    scores = scorer(EVERYBODY).tolist()
    for user, (found, seen) in enumerate(zip(listed(best), SEEN.tolist(), strict=True)):
        named = [item for item in range(8) if item not in seen][:5]
        assert found == sorted(named, key=lambda item: -scores[user][item])


def test_a_pool_smaller_than_k_leaves_places_empty() -> None:
    scorer, pool = Approximated(), torch.arange(ITEMS) < 2
    for ranker in (FullRanking(scorer), TwoStep(scorer, 5)):
        best = ranker.top(EVERYBODY, 4, None, pool)
        assert [sorted(one) for one in listed(best)] == [[0, 1]] * USERS
        assert bool((best.scores[:, 2:] == -torch.inf).all())


def test_ties_go_by_item_row() -> None:
    scorer = DotScorer(torch.ones(1, 1), torch.ones(5, 1))
    assert FullRanking(scorer).top(Query(users=torch.tensor([0])), 3).rows.tolist() == [[0, 1, 2]]
    tied = Approximated(prior=False)
    tied._items = torch.ones(ITEMS, WIDE)
    best = TwoStep(tied, ITEMS).top(EVERYBODY, 3)
    assert best.rows.tolist() == [[0, 1, 2]] * USERS


def test_nothing_of_the_scorer_is_changed() -> None:
    scorer, table = Approximated(), torch.randn(USERS, ITEMS)
    scorer.prior = lambda query: table
    before = table.clone()
    TwoStep(scorer, 4).top(EVERYBODY, 2, SEEN)
    assert torch.equal(table, before)
    FullRanking(lambda query: table).top(EVERYBODY, 2, SEEN)
    assert torch.equal(table, before)


def test_inner_products_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, items = torch.randn(7, 3), torch.randn(ITEMS, 3)
    whole = InnerProducts(items)(vectors, 5)
    assert whole.tolist() == by_hand(vectors @ items.T, 5)
    monkeypatch.setattr(module, "_BLOCK", 2 * ITEMS)
    assert torch.equal(InnerProducts(items)(vectors, 5), whole)
    assert InnerProducts(items)(vectors[:0], 5).shape == (0, 5)


def test_largest_by_hand() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0], [-torch.inf, 0.0, -torch.inf]])
    assert largest(scores, 2).tolist() == [[1, 2], [1, -1]]
    assert largest(scores, 4).tolist() == [[1, 2, 0, -1], [1, -1, -1, -1]]


def test_nobody_asks() -> None:
    nobody = Query(users=torch.empty(0, dtype=torch.int64))
    for ranker in (FullRanking(Approximated()), TwoStep(Approximated(), 4)):
        assert ranker.top(nobody, 2).rows.shape[0] == 0


@pytest.mark.parametrize("candidates", [0, -3])
def test_no_candidates_are_refused(candidates: int) -> None:
    with pytest.raises(QueryError, match="candidates to retrieve"):
        TwoStep(Approximated(), candidates)


def test_a_list_longer_than_the_candidates_is_refused() -> None:
    with pytest.raises(QueryError, match=r"k.*got 5.*at most the 4 candidates"):
        TwoStep(Approximated(), 4).top(EVERYBODY, 5)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_scores_that_are_not_finite_are_refused(bad: float) -> None:
    scorer = Approximated()
    scorer.rest[2, :] = bad
    for ranker in (FullRanking(scorer), TwoStep(scorer, 4)):
        with pytest.raises(QueryError, match="NaN or infinite"):
            ranker.top(EVERYBODY, 2)


def test_who_can_be_served_in_two_steps() -> None:
    assert isinstance(Approximated(), PairScorer)
    assert not isinstance(DotScorer(torch.ones(1, 1), torch.ones(1, 1)), PairScorer)
