"""The teacher's choice by recall on held-out train events; folds by id; recall by hand."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.models.contract import TeacherConfig, teach
from modalmix.models.contract.teacher import best_teacher, choose_teacher, draw_folds, popularity_bias, recall

CONFIG = TeacherConfig(dim=4, iterations=5)


def groups(users: int = 60, items: int = 120, events: int = 12) -> Interactions:
    """Users of one parity meet items of that parity, all alike; no item is popular."""
    rng = np.random.default_rng(0)
    met = np.stack([rng.permutation(np.arange(user % 2, items, 2))[:events] for user in range(users)])
    user = np.repeat(np.arange(users, dtype=np.int32), events)
    return Interactions(user, met.astype(np.int32).ravel(), users, items)


def crowd(users: int = 60, items: int = 120, events: int = 12) -> Interactions:
    """Everybody meets what is popular."""
    rng, share = np.random.default_rng(0), (1.0 + np.arange(items)) ** -1.2
    met = np.stack([rng.choice(items, events, replace=False, p=share / share.sum()) for _ in range(users)])
    return Interactions(np.repeat(np.arange(users, dtype=np.int32), events), met.astype(np.int32).ravel(), users, items)


def test_the_choice_is_one_of_those_offered_and_repeats() -> None:
    regs, weights = (1.0, 30.0), (0.0, 1.0)
    first, again = (choose_teacher(groups(), CONFIG, regs, weights, seed=0) for _ in range(2))
    assert first == again
    assert first.config.reg in regs
    assert first.popularity in weights
    assert first.config == CONFIG.replace(reg=first.config.reg)


def test_a_strength_that_leaves_nothing_is_not_chosen() -> None:
    """1e9 makes all factors zeros: recall of chance."""
    assert choose_teacher(groups(), CONFIG, (1e9, 3.0), (0.0,), seed=0).config.reg == 3.0


def test_popularity_is_chosen_where_it_is_all_there_is() -> None:
    assert choose_teacher(crowd(), CONFIG.replace(dim=16), (0.01,), (0.0, 100.0), seed=0).popularity == 100.0
    assert choose_teacher(groups(), CONFIG, (3.0,), (0.0, 100.0), seed=0).popularity == 0.0


def test_with_few_events_nothing_is_held_out_and_the_settings_stay() -> None:
    events = Interactions(np.arange(20, dtype=np.int32) % 5, np.arange(20, dtype=np.int32), 5, 20)  # four a user
    assert choose_teacher(events, CONFIG, (1.0, 2.0), (0.5,), seed=0) == (CONFIG, 0.0)
    none = Interactions(np.zeros(0, np.int32), np.zeros(0, np.int32), 5, 20)
    assert choose_teacher(none, CONFIG, (1.0, 2.0), (0.5,), seed=0) == (CONFIG, 0.0)


def test_the_bias_by_hand() -> None:
    """Item 0 has three events, item 1 one, item 2 none: its scores do not count."""
    events = Interactions(np.array([0, 1, 2, 0], np.int32), np.array([0, 0, 0, 1], np.int32), 3, 3)
    scores = torch.tensor([[1.0, 3.0, 99.0], [5.0, 7.0, -99.0]])
    spread = np.std([1.0, 3.0, 5.0, 7.0], ddof=0)
    expected = torch.tensor([0.5 * spread * np.log(4.0), 0.5 * spread * np.log(2.0), 0.0], dtype=torch.float32)
    torch.testing.assert_close(popularity_bias(events, scores, 0.5), expected)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_the_bias_of_one_score_is_no_nan(weight: float) -> None:
    events = Interactions(np.array([0], np.int32), np.array([0], np.int32), 1, 2)
    assert bool(popularity_bias(events, torch.ones(1, 2), weight).isfinite().all())


def test_recall_by_hand() -> None:
    """Lists of 20 of 90 items. User 0 finds one of two, user 1 its only one: (1/2 + 1) / 2."""
    scores = -torch.arange(90.0).repeat(2, 1)  # item 0 is the best
    positives = sp.csr_matrix(([1.0, 1.0, 1.0], ([0, 0, 1], [19, 20, 0])), shape=(2, 90))
    assert recall(scores.clone(), positives) == pytest.approx(0.75)
    seen = sp.csr_matrix(([1.0], ([0], [3])), shape=(2, 90))
    assert recall(scores.clone(), positives, seen) == pytest.approx(1.0), "item 20 moves up"


def test_lists_of_few_items_are_the_best_third_so_that_they_still_choose() -> None:
    of_last = sp.csr_matrix(([1.0], ([0], [9])), shape=(1, 12))
    ranks = torch.arange(12.0).unsqueeze(0)
    assert recall(ranks.clone(), of_last) == 1.0, "items 8 to 11 are listed"
    assert recall(-ranks, of_last) == 0.0
    assert recall(torch.tensor([[3.0, 2.0, 1.0]]), sp.csr_matrix(([1.0], ([0], [0])), shape=(1, 3))) == 1.0


def test_folds_go_by_id() -> None:
    ids = [f"item-{k}" for k in range(50)]
    order = np.random.default_rng(0).permutation(50)
    fold = draw_folds(IdMap(ids), 5, seed=3)
    assert torch.equal(draw_folds(IdMap([ids[k] for k in order]), 5, seed=3), fold[torch.from_numpy(order)])
    assert set(fold.tolist()) == set(range(5))
    assert not torch.equal(fold, draw_folds(IdMap(ids), 5, seed=4))
    assert draw_folds(IdMap([7]), 5, seed=0).shape == (1,)
    assert draw_folds(IdMap(np.arange(50)), 5, seed=3).shape == (50,)


@pytest.mark.parametrize("regs", [(), (1.0, 30.0)])
def test_the_best_teacher_is_the_one_chosen_fitted_on_everything(regs: tuple[float, ...]) -> None:
    events = crowd()
    found = best_teacher(events, CONFIG, regs, seed=2)
    choice = choose_teacher(events, CONFIG, regs, (0.0, 0.1, 0.3, 1.0), seed=2) if regs else None
    assert found.config == (choice.config if choice else CONFIG)
    users, items = teach(events, found.config, 2)
    assert torch.equal(found.users, users)
    assert torch.equal(found.items, items)
    weight = choice.popularity if choice else 0.0
    assert bool(weight) == bool(regs), "popularity is all there is"
    expected = popularity_bias(events, users @ items.T, weight) if weight else torch.zeros(120)
    torch.testing.assert_close(found.popularity, expected)
