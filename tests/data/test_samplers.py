import numpy as np
import pytest
from scipy.stats import chisquare

from modalmix.data.interactions import Interactions
from modalmix.data.samplers import inclusion_probabilities, negatives, systematic_sample, triples
from modalmix.errors import DataError


def events(user, item, n_users, n_items) -> Interactions:
    return Interactions(np.array(user, dtype=np.int32), np.array(item, dtype=np.int32), n_users, n_items)


def test_an_epoch_has_every_positive_once():
    rng = np.random.default_rng(0)
    pairs = np.unique(rng.integers(0, [20, 30], (100, 2)), axis=0)
    one = events(pairs[:, 0], pairs[:, 1], 20, 30)
    batches = list(triples(one, 32, rng, np.ones(30, dtype=bool)))
    assert [len(user) for user, _, _ in batches][:-1] == [32] * (len(batches) - 1)
    user, positive, negative = (np.concatenate(column) for column in zip(*batches, strict=True))
    assert sorted(zip(user, positive, strict=True)) == sorted(map(tuple, pairs))
    assert not one.contains(user, negative).any()


def test_negatives_are_uniform_over_the_pool():
    one = events([0, 0], [0, 1], 1, 8)
    pool = np.array([1, 1, 1, 1, 1, 1, 0, 0], dtype=bool)
    drawn = negatives(one, np.zeros(20_000, dtype=np.int32), np.random.default_rng(1), pool)
    counts = np.bincount(drawn, minlength=8)
    assert counts[[0, 1, 6, 7]].sum() == 0
    assert chisquare(counts[2:6]).pvalue > 1e-3


def test_the_same_seed_gives_the_same_epoch():
    one = events([0, 1], [0, 1], 2, 9)
    epochs = [list(triples(one, 8, np.random.default_rng(5), np.ones(9, dtype=bool))) for _ in range(2)]
    assert all((a == b).all() for a, b in zip(epochs[0][0], epochs[1][0], strict=True))


def test_a_user_with_all_but_one_item_gets_that_one():
    one = events([0] * 999, range(999), 1, 1000)
    assert (
        negatives(one, np.zeros(3, dtype=np.int32), np.random.default_rng(0), np.ones(1000, bool)).tolist() == [999] * 3
    )


def test_events_of_a_user_with_all_of_the_pool_are_left_out():
    """Item 3 may not be drawn: user 0 has all that may, user 1 all but item 2."""
    one = events([0, 0, 0, 1, 1, 1, 1], [0, 1, 2, 0, 1, 1, 3], 2, 4)
    pool = np.array([1, 1, 1, 0], dtype=bool)
    ((user, positive, negative),) = triples(one, 8, np.random.default_rng(0), pool)
    assert user.tolist() == [1] * 4
    assert sorted(positive.tolist()) == [0, 1, 1, 3]
    assert negative.tolist() == [2] * 4


def test_impossible_draws():
    one = events([0, 0], [0, 1], 1, 2)
    with pytest.raises(DataError, match="every user has met every item"):
        next(triples(one, 4, np.random.default_rng(0), np.ones(2, dtype=bool)))
    with pytest.raises(DataError, match="has all 2 items"):
        negatives(one, one.user, np.random.default_rng(0), np.ones(2, dtype=bool))
    with pytest.raises(DataError, match="pool of negatives is empty"):
        negatives(one, one.user, np.random.default_rng(0), np.zeros(2, dtype=bool))
    with pytest.raises(DataError, match="no interactions"):
        next(triples(events([], [], 1, 2), 4, np.random.default_rng(0), np.ones(2, dtype=bool)))


def test_chances_are_proportional_to_weights_but_at_most_1():
    found = inclusion_probabilities(np.array([10.0, 1.0, 2.0, 1.0]), 2)  # 20/14 is too much: 1, and 1 left for 1:2:1
    np.testing.assert_allclose(found, [1, 0.25, 0.5, 0.25])
    np.testing.assert_allclose(inclusion_probabilities(np.array([1.0, 3.0]), 1), [0.25, 0.75])
    # the second is too much only once the first is certain
    np.testing.assert_allclose(
        inclusion_probabilities(np.array([100.0, 6.0, 4.0, 1.0, 1.0]), 3), [1, 1, 4 / 6, 1 / 6, 1 / 6]
    )
    assert inclusion_probabilities(np.array([9.0, 1.0]), 2).tolist() == [1, 1]
    assert inclusion_probabilities(np.array([9.0, 1.0]), 7).tolist() == [1, 1]
    assert inclusion_probabilities(np.array([]), 7).tolist() == []


def test_a_systematic_sample_has_distinct_rows_each_with_its_chance():
    rng = np.random.default_rng(0)
    chance = inclusion_probabilities(rng.pareto(1, 30) + 0.2, 6)
    count, draws = np.zeros(30), 4000
    for _ in range(draws):
        rows = systematic_sample(chance, rng)
        assert len(rows) == len(set(rows)) == 6
        count[rows] += 1
    certain = chance == 1
    assert certain.any()
    assert (count[certain] == draws).all()
    error = (count - draws * chance)[~certain] / np.sqrt(draws * chance * (1 - chance))[~certain]
    assert np.abs(error).max() < 4.5
    assert (error**2).mean() < 2


def test_rows_are_sampled_together_in_all_combinations():
    rng = np.random.default_rng(0)
    seen = {tuple(sorted(systematic_sample(np.full(5, 0.4), rng))) for _ in range(400)}
    assert len(seen) == 10


def test_a_sample_of_everything():
    assert sorted(systematic_sample(np.ones(9), np.random.default_rng(0))) == list(range(9))
