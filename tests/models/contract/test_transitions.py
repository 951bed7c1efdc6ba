"""The prior of counted transitions: its scale, what it adds to a trained model, and where it knows nothing."""

from typing import Any

import numpy as np
import pytest
import torch

from modalmix.data.catalog import Catalog
from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.data.sequences import Sequences
from modalmix.data.split import TrainData
from modalmix.errors import ConfigError
from modalmix.models.contract import Query, find_model
from modalmix.models.contract.sequential import Steps
from modalmix.models.contract.transitions import TransitionConfig, transition_filter, transition_prior
from tests.models.sequences import HISTORY, TARGETS, ring

LENGTH, TRUST = 4, 0.3


def some_histories(users: int = 30, items: int = 11) -> Sequences:
    rng = np.random.default_rng(1)
    user = np.repeat(np.arange(users), rng.integers(0, 8, users)).astype(np.int32)
    item = rng.integers(0, items - 1, len(user)).astype(np.int32)  # nobody has met the last one
    return Sequences.of(Interactions(user, item, users, items))


def dense(config: TransitionConfig, histories: Sequences, n_items: int) -> np.ndarray:
    return transition_filter(histories, n_items, config).weights.toarray()


def test_a_deviation_of_its_scores_is_worth_the_trust() -> None:
    histories, config = some_histories(), TransitionConfig()
    prior = transition_prior(histories, 11, LENGTH, TRUST, config)
    users = np.flatnonzero(histories.lengths)
    scores = prior.of(torch.from_numpy(histories.last(users, LENGTH)))
    assert scores.std(correction=0).item() == pytest.approx(TRUST, rel=1e-5)
    plain = np.zeros((len(users), 11))
    for row, user in enumerate(users):
        for age, item in enumerate(histories.last(np.array([user]), LENGTH)[0][::-1]):
            plain[row] += config.recency**age * dense(config, histories, 11)[item]
    np.testing.assert_allclose(scores, TRUST / plain.std() * plain, rtol=1e-4, atol=1e-6)


def test_exponents_divide_by_events() -> None:
    histories = some_histories()
    events = np.maximum(np.bincount(histories.items, minlength=11), 1)
    counted = dense(TransitionConfig(exponents=(0, 0)), histories, 11)
    found = dense(TransitionConfig(exponents=(1.0, 0.5)), histories, 11)
    np.testing.assert_allclose(found, counted / events[:, None] / np.sqrt(events)[None, :], rtol=1e-5)


def test_nothing_came_after_anything() -> None:
    lonely = Sequences.of(Interactions(np.array([0, 1], np.int32), np.array([0, 2], np.int32), 3, 4))
    prior = transition_prior(lonely, 4, LENGTH, TRUST, TransitionConfig())
    for factor in (1.0, 8.0):
        assert torch.equal(prior.scaled(factor).of(torch.tensor([[0, 2]])), torch.zeros(1, 4))


def test_what_leads_nowhere_from_where_histories_end_is_not_trusted_at_all() -> None:
    """Only last items are heard, and nothing came after those of the train histories: their scores do not deviate."""
    user, item = np.array([0, 0, 1, 1], np.int32), np.array([0, 1, 2, 3], np.int32)
    histories = Sequences.of(Interactions(user, item, 2, 4))
    prior = transition_prior(histories, 4, LENGTH, 10.0, TransitionConfig(recency=0.0))
    assert prior.phi.weights.nnz
    assert torch.equal(prior.of(torch.tensor([[0, 2]])), torch.zeros(1, 4))


def test_added_items_are_not_known_to_follow() -> None:
    prior = transition_prior(some_histories(), 11, LENGTH, TRUST, TransitionConfig())
    history = torch.tensor([[3, 12, 4]])
    scores = prior.extended(13).of(history)
    assert scores.shape == (1, 13)
    assert not scores[:, 11:].any()
    torch.testing.assert_close(scores[:, :11], prior.of(history))


@pytest.mark.parametrize("changes", [{"steps": 0}, {"decay": 1.5}, {"recency": -0.1}, {"backward": 2.0}])
def test_settings_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TransitionConfig.parse(changes)


def with_prior(data: TrainData, **settings: Any) -> Any:
    torch.manual_seed(0)
    found = find_model("sasrec")
    small = {"dim": 8, "length": LENGTH, "layers": 1, "hidden": 8, "dropout": 0.0}
    return found.recommender(found.config.parse({**small, **settings}), data).eval()


def test_it_is_added_to_the_scores_and_has_no_part_in_training() -> None:
    data = ring()
    plain, both = with_prior(data), with_prior(data, prior="transitions", trust=TRUST)
    asked = Query(history=HISTORY.clamp(max=7))
    added = both.scorer(data.catalog)(asked) - plain.scorer(data.catalog)(asked)
    torch.testing.assert_close(added, both.counted.of(HISTORY.clamp(max=7)), atol=1e-5, rtol=1e-5)
    assert added.any()
    steps = Steps(HISTORY.clamp(max=7), TARGETS.clamp(max=7))
    assert torch.equal(both.loss(steps)["softmax"], plain.loss(steps)["softmax"])
    assert dict(both.named_parameters()).keys() == dict(plain.named_parameters()).keys()
    assert not both.scorer(data.catalog)(asked).requires_grad


def test_a_model_s_settings_say_how_it_counts() -> None:
    data, config = ring(), TransitionConfig(steps=1, backward=0.5, recency=0.9)
    built = with_prior(data, prior="transitions", trust=TRUST, transitions=config.model_dump())
    expected, history = transition_prior(data.sequences, 8, LENGTH, TRUST, config), torch.tensor([[2, 3, 4]])
    torch.testing.assert_close(built.counted.of(history), expected.of(history), atol=0, rtol=1e-6)
    for other in (
        transition_prior(data.sequences, 8, 50, TRUST, config),
        with_prior(data, prior="transitions").counted,
    ):
        assert not torch.allclose(other.of(history), expected.of(history))


def test_a_ring_is_walked_on_without_training() -> None:
    """Everybody walks round a ring: the prior alone names the next item, whatever the untrained model says."""
    data = ring()
    scorer = with_prior(data, prior="transitions", trust=100.0).scorer(data.catalog)
    assert scorer(Query(history=torch.tensor([[2, 3], [7, -1]]))).argmax(dim=1).tolist() == [4, 0]


def test_an_extended_catalogue_has_it_for_known_items() -> None:
    data = ring()
    built = with_prior(data, prior="transitions", trust=TRUST)
    more = Catalog(IdMap(list(range(9))))
    asked = Query(history=torch.tensor([[2, 3]]))
    known, extended = built.scorer(data.catalog)(asked), built.scorer(more)(asked)
    assert extended.shape == (1, 9)
    torch.testing.assert_close(extended[:, :8], known)
