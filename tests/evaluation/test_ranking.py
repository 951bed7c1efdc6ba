"""Positions of positives: masks, pools, chunks, bad scores."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from modalmix.data.split import Holdout
from modalmix.errors import EvaluateError
from modalmix.evaluation.pools import make_pool
from modalmix.evaluation.ranking import rank, top_scores
from modalmix.evaluation.settings import EvaluateConfig
from modalmix.models.contract import DotScorer

HoldoutOf = Callable[..., Holdout]
World = Callable[..., tuple[Holdout, np.ndarray]]


def positions(scorer: Any, holdout: Holdout, **settings: Any) -> list[tuple[int, int, int, int]]:
    """(user, above, size, positives) of each group in the first pool."""
    config = EvaluateConfig.parse(settings)
    name = config.pools[0] if config.pools else "all"
    pool = make_pool(holdout, name, config.mask)
    groups = rank(scorer, holdout, {name: pool}, config)[name].groups
    columns = (pool.users[groups.user], groups.above, groups.size, groups.positives)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("k", [1, 3, 51])
def test_top_scores_are_those_of_a_full_sort(dtype: torch.dtype, k: int) -> None:
    scores = torch.randint(-9, 9, (7, 40)).to(dtype).float()
    scores[2, :30] = -torch.inf
    assert torch.equal(top_scores(scores, k), scores.sort(dim=1, descending=True).values[:, :k])


def test_masked_items_never_stand_above(holdout_of: HoldoutOf, table_scorer: Any) -> None:
    """Scores fall with the item row; item 4 is held out; 0 is train, 1 is validation."""
    holdout = holdout_of([(0, 4)], [(0, 0)], users=1, items=6, valid=[(0, 1)])
    scorer = table_scorer([[9.0, 8, 7, 6, 5, 4]])
    assert positions(scorer, holdout, mask="seen") == [(0, 2, 1, 1)]
    assert positions(scorer, holdout, mask="train") == [(0, 3, 1, 1)]
    assert positions(scorer, holdout, mask="none") == [(0, 4, 1, 1)]


def test_masked_items_never_tie(holdout_of: HoldoutOf, table_scorer: Any) -> None:
    holdout = holdout_of([(0, 3)], [(0, 0), (0, 1)], users=1, items=6)
    assert positions(table_scorer(torch.zeros(1, 6)), holdout) == [(0, 0, 4, 1)]


def test_the_lowest_finite_score_is_above_masked_items(holdout_of: HoldoutOf, table_scorer: Any) -> None:
    lowest = torch.finfo(torch.float32).min
    holdout = holdout_of([(0, 2)], [(0, 0), (0, 1)], users=1, items=3)
    assert positions(table_scorer([[1.0, 2.0, lowest]]), holdout) == [(0, 0, 1, 1)]


@pytest.mark.parametrize("ks", [(1,), (3,), (5, 2), (100,)])
@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_equals_counting(random_world: World, table_scorer: Any, ks: tuple[int, ...], levels: int) -> None:
    """Against a double loop, with few and many ties, at cut-offs inside and beyond the candidates."""
    holdout, _ = random_world(seed=levels)
    scores = np.random.default_rng(levels).integers(0, levels, (60, 40)).astype(np.float32)
    expected = []
    for user in range(60):
        masked = set(holdout.train.item[holdout.train.user == user].tolist())
        candidates = [item for item in range(40) if item not in masked]
        wanted = holdout.positives.item[holdout.positives.user == user].tolist()
        for value in sorted({scores[user, item] for item in wanted}, reverse=True):
            above = sum(scores[user, item] > value for item in candidates)
            size = sum(scores[user, item] == value for item in candidates)
            if above < max(ks):
                expected.append((user, int(above), int(size), sum(scores[user, item] == value for item in wanted)))
    assert positions(table_scorer(scores), holdout, ks=ks) == expected


@pytest.mark.parametrize("chunk", [1, 7, 59, 1000])
def test_chunks_do_not_matter(random_world: World, table_scorer: Any, chunk: int) -> None:
    holdout, scores = random_world()
    whole = positions(table_scorer(scores), holdout, chunk=60, ks=(4,))
    assert positions(table_scorer(scores), holdout, chunk=chunk, ks=(4,)) == whole


def test_only_users_with_a_positive_are_scored_and_once(random_world: World, table_scorer: Any) -> None:
    holdout, scores = random_world()
    scorer = table_scorer(scores)
    config = EvaluateConfig(pools=("all", "warm"), chunk=7)
    rank(scorer, holdout, {name: make_pool(holdout, name, "seen") for name in config.pools}, config)
    assert scorer.queries == sorted(set(holdout.positives.user.tolist()))


def test_pools_share_a_pass_and_equal_single_runs(random_world: World, table_scorer: Any) -> None:
    """Ranking within the pool only: a cold item competes with cold items. Some chunks hold no user of a pool."""
    holdout, scores = random_world(users=20, items=60)
    assert 0 < (~holdout.warm).sum() < 60
    names = ("all", "cold", "warm")
    config = EvaluateConfig(pools=names, chunk=2, ks=(3,))
    pools = {name: make_pool(holdout, name, "seen") for name in names}
    together = rank(table_scorer(scores), holdout, pools, config)
    for name in names:
        found = together[name].groups
        columns = zip(pools[name].users[found.user], found.above, found.size, found.positives, strict=True)
        assert [tuple(map(int, row)) for row in columns] == positions(
            table_scorer(scores), holdout, pools=(name,), ks=(3,)
        )


def test_a_cold_item_competes_with_cold_items_only(holdout_of: HoldoutOf, table_scorer: Any) -> None:
    """Items 0 and 1 are warm and score best; 3 is held out, cold item 2 above it."""
    holdout = holdout_of([(0, 3)], [(1, 0), (1, 1)], users=2, items=5)
    scorer = table_scorer([[9.0, 8, 7, 6, 5]] * 2)
    assert positions(scorer, holdout, pools=("all",)) == [(0, 3, 1, 1)]
    assert positions(scorer, holdout, pools=("cold",)) == [(0, 1, 1, 1)]


def test_a_dot_scorer_and_its_table_agree(random_world: World, table_scorer: Any) -> None:
    """The reused buffer gives what a table of the same scores gives; chunk of 8 leaves a smaller last one."""
    holdout, _ = random_world()
    generator = torch.Generator().manual_seed(1)
    users = torch.randint(-3, 4, (60, 5), generator=generator).float()  # integers: products are exact in any order
    items = torch.randint(-3, 4, (40, 5), generator=generator).float()
    bias = torch.randint(-3, 4, (40,), generator=generator).float()
    for scorer, table in (
        (DotScorer(users, items), users @ items.T),
        (DotScorer(users, items, bias), users @ items.T + bias),
        (DotScorer(users.double(), items.double()), users @ items.T),
        (DotScorer(users.bfloat16(), items.bfloat16()), users @ items.T),
    ):
        assert positions(scorer, holdout, chunk=8, ks=(6,)) == positions(table_scorer(table), holdout, ks=(6,))


def test_double_precision_keeps_small_differences(holdout_of: HoldoutOf, table_scorer: Any) -> None:
    scores = torch.tensor([[1.0, 1.0 + 1e-12]], dtype=torch.float64)
    holdout = holdout_of([(0, 0)], [], users=1, items=2)
    assert positions(table_scorer(scores), holdout) == [(0, 1, 1, 1)]
    assert positions(table_scorer(scores.float()), holdout) == [(0, 0, 2, 1)]


def test_the_scorers_own_table_is_not_changed(random_world: World) -> None:
    holdout, scores = random_world()
    table = torch.from_numpy(scores.copy())
    rank(lambda query: table[: len(query)], holdout, {"all": make_pool(holdout, "all", "seen")}, EvaluateConfig())
    assert torch.equal(table, torch.from_numpy(scores))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("chunk", [1, 2, 10])
def test_a_score_that_is_not_finite_names_user_and_item(
    holdout_of: HoldoutOf, table_scorer: Any, bad: float, chunk: int
) -> None:
    scores = torch.zeros(4, 5)
    scores[2, 3] = bad
    holdout = holdout_of([(0, 1), (2, 1), (3, 0)], [(2, 3)], users=4, items=5)  # also where the item is masked
    with pytest.raises(EvaluateError, match=r"score of item 'i3' for user 'u2'.*(nan|inf).*expected a finite number"):
        positions(table_scorer(scores), holdout, chunk=chunk)


def test_infinities_that_cancel_are_found(holdout_of: HoldoutOf, table_scorer: Any) -> None:
    scores = torch.tensor([[torch.inf, 0.0, -torch.inf]])
    with pytest.raises(EvaluateError, match="item 'i0' for user 'u0'"):
        positions(table_scorer(scores), holdout_of([(0, 1)], [], users=1, items=3))


def test_huge_finite_scores_are_fine(holdout_of: HoldoutOf, table_scorer: Any) -> None:
    """Their sum overflows, they do not."""
    holdout = holdout_of([(0, 1)], [], users=1, items=3)
    assert positions(table_scorer([[3e38, 2e38, 3e38]]), holdout) == [(0, 2, 1, 1)]


def test_a_diverged_dot_scorer(holdout_of: HoldoutOf) -> None:
    items = torch.ones(3, 2)
    items[1, 0] = torch.nan
    with pytest.raises(EvaluateError, match="item 'i1' for user 'u0'"):
        positions(DotScorer(torch.ones(1, 2), items), holdout_of([(0, 0)], [], users=1, items=3))


@pytest.mark.parametrize("scores", [torch.zeros(2, 4), torch.zeros(2, 3, dtype=torch.int64), torch.zeros(2)])
def test_scores_of_another_shape_or_type(holdout_of: HoldoutOf, table_scorer: Any, scores: torch.Tensor) -> None:
    with pytest.raises(EvaluateError, match=r"scores: got .*expected floating point of shape \(2, 3\)"):
        positions(table_scorer(scores), holdout_of([(0, 0), (1, 2)], [], users=2, items=3))


def test_a_dot_scorer_of_another_catalog(holdout_of: HoldoutOf) -> None:
    scorer = DotScorer(torch.zeros(1, 2), torch.zeros(5, 2))
    with pytest.raises(EvaluateError, match=r"shape \(1, 5\), expected floating point of shape \(1, 3\)"):
        positions(scorer, holdout_of([(0, 0)], [], users=1, items=3))


def test_a_model_without_a_scorer(holdout_of: HoldoutOf) -> None:
    with pytest.raises(EvaluateError, match="scorer: got NoneType, expected a callable"):
        positions(None, holdout_of([(0, 0)], [], users=1, items=3))


def test_ties_at_the_cut_off(holdout_of: HoldoutOf, table_scorer: Any) -> None:
    """K = 2. u0: ranks 2 and 3 tie. u1: ranks 1 and 2 tie, not the cut. u2: only two candidates, nothing is cut."""
    scores = [[5.0, 3, 3, 1], [5, 5, 3, 1], [7, 7, 7, 7]]
    holdout = holdout_of([(0, 0), (1, 0), (2, 0)], [(2, 2), (2, 3)], users=3, items=4)
    pool = make_pool(holdout, "all", "seen")
    ranking = rank(table_scorer(scores), holdout, {"all": pool}, EvaluateConfig(ks=(2,)))["all"]
    assert ranking.tied.tolist() == [True, False, False]


def test_naive_ties_go_by_item_row(holdout_of: HoldoutOf, table_scorer: Any) -> None:
    holdout = holdout_of([(0, 1), (0, 4), (1, 5)], [(0, 0)], users=2, items=6)
    scorer = table_scorer(torch.zeros(2, 6))
    assert positions(scorer, holdout, ties="naive", ks=(5,)) == [(0, 0, 1, 1), (0, 3, 1, 1)]
    assert positions(scorer, holdout, ties="expected", ks=(5,)) == [(0, 0, 5, 2), (1, 0, 6, 1)]
