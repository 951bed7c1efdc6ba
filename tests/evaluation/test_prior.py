"""How far a prior is trusted: as far as held-out events say, and not at all where they say the opposite."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from modalmix.data.split import Holdout
from modalmix.errors import ConfigError
from modalmix.evaluation import calibration as calibration_module
from modalmix.evaluation import fit_prior, validation_score
from modalmix.models.contract import Query, SequentialScorer
from modalmix.models.contract.transitions import TransitionConfig, transition_prior

HoldoutOf = Callable[..., Holdout]
ITEMS, FACTORS = 40, (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


def walk(holdout_of: HoldoutOf, step: int) -> Holdout:
    """User u walks round a ring of items from u to u + 4; held out is what lies `step` from there."""
    train = [(u, (u + k) % ITEMS) for u in range(ITEMS) for k in range(5)]
    return holdout_of([(u, (u + 4 + step) % ITEMS) for u in range(ITEMS)], train, ITEMS, ITEMS)


def scorer(holdout: Holdout, noise: float, trust: float = 0.5) -> SequentialScorer:
    """Scores are noise that depends on the last item; the prior knows the way round the ring."""
    said = noise * torch.randn(ITEMS, ITEMS, generator=torch.Generator().manual_seed(0))

    def encode(history: torch.Tensor, times: torch.Tensor | None) -> torch.Tensor:
        return said[history[torch.arange(len(history)), (history >= 0).sum(dim=1) - 1]]

    known = holdout.sequences
    prior = transition_prior(known, ITEMS, 5, trust, TransitionConfig(steps=1))
    return SequentialScorer(5, known, encode, torch.eye(ITEMS), torch.zeros(ITEMS), transitions=prior)


def scores(one: SequentialScorer, holdout: Holdout, **how: Any) -> dict[float, float]:
    return {factor: validation_score(one.trusting(factor), holdout, **how) for factor in FACTORS}


@pytest.mark.parametrize("noise", [0.3, 1.0, 3.0])
def test_the_factor_with_the_best_score_is_taken(holdout_of: HoldoutOf, noise: float) -> None:
    holdout = walk(holdout_of, 1)
    one, how = scorer(holdout, noise), {"metric": "ndcg@10", "mask": "none"}
    found, each = fit_prior(one, holdout, **how), scores(one, holdout, **how)  # type: ignore[arg-type]
    assert each[found] == max(each.values())
    assert each[found] > each[0.0]


def test_more_noise_more_trust(holdout_of: HoldoutOf) -> None:
    holdout = walk(holdout_of, 1)
    weak, strong = (fit_prior(scorer(holdout, noise), holdout, "ndcg@10", "none") for noise in (0.1, 10.0))
    assert weak < strong == 8.0


def test_a_prior_that_leads_astray_is_left_out(holdout_of: HoldoutOf) -> None:
    """Held out is the item half round the ring, which nobody met next; the scores alone know it."""
    holdout = walk(holdout_of, ITEMS // 2)
    one = scorer(holdout, 0.0, trust=5.0)
    knows = torch.eye(ITEMS).roll(ITEMS // 2, dims=1)

    def encode(history: torch.Tensor, times: torch.Tensor | None) -> torch.Tensor:
        return knows[history[torch.arange(len(history)), (history >= 0).sum(dim=1) - 1]]

    one.encode = encode
    found, each = fit_prior(one, holdout, "ndcg@10", "none"), scores(one, holdout, metric="ndcg@10", mask="none")
    assert each[found] == max(each.values()) == 1.0
    assert found < 0.5


def test_what_moves_nothing_stays_as_it_is(holdout_of: HoldoutOf) -> None:
    """Without noise every factor but 0 ranks alike."""
    holdout = walk(holdout_of, 1)
    assert fit_prior(scorer(holdout, 0.0), holdout, "ndcg@10", "none") == 1.0


def test_where_cold_items_select_the_warm_ones_decide(holdout_of: HoldoutOf) -> None:
    """Users walk from u to u + 4; half of them go on, the other half to an item that nobody has met."""
    train = [(u, (u + k) % ITEMS) for u in range(ITEMS) for k in range(5)]
    ahead = [(u, (u + 5) % ITEMS) for u in range(0, ITEMS, 2)]
    cold = [(u, ITEMS) for u in range(1, ITEMS, 2)]

    def both(positives: list[tuple[int, int]]) -> tuple[SequentialScorer, Holdout]:
        holdout = holdout_of(positives, train, ITEMS, ITEMS + 1)
        one = scorer(holdout, 3.0)
        assert one.transitions is not None
        vectors, nothing = torch.eye(ITEMS + 1)[:, :ITEMS], torch.zeros(ITEMS + 1)
        prior = one.transitions.extended(ITEMS + 1)
        return SequentialScorer(5, one.known, one.encode, vectors, nothing, transitions=prior), holdout

    one, holdout = both(ahead + cold)
    found = fit_prior(one, holdout, "ndcg@10", "none", "cold")
    assert found == fit_prior(one, holdout, "ndcg@10", "none", "warm") != 1.0
    one, holdout = both(cold)
    assert fit_prior(one, holdout, "ndcg@10", "none", "cold") == 1.0


def test_many_users_are_sampled_and_each_history_is_encoded_once(
    holdout_of: HoldoutOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration_module, "_PRIOR_USERS", 10)
    holdout, asked = walk(holdout_of, 1), []
    one = scorer(holdout, 1.0)
    encode = one.encode

    def counting(history: torch.Tensor, times: torch.Tensor | None) -> torch.Tensor:
        asked.extend(history.tolist())
        return encode(history, times)

    one.encode = counting
    fit_prior(one, holdout, "ndcg@10", "none")
    assert len(asked) == len({tuple(history) for history in asked}) == 10
    assert one.encode is counting, "the scorer itself stays as it is"


@pytest.mark.parametrize("factor", [0.0, 1.0])
def test_a_remembering_scorer_says_the_same_and_asks_once(holdout_of: HoldoutOf, factor: float) -> None:
    """With a prior, and without one."""
    holdout, asked = walk(holdout_of, 1), []
    one = scorer(holdout, 1.0).trusting(factor)
    expected, encode = one(Query(users=torch.arange(4))), one.encode

    def counting(history: torch.Tensor, times: torch.Tensor | None) -> torch.Tensor:
        asked.append(len(history))
        return encode(history, times)

    one.encode = counting
    twin = calibration_module.remembering(one)
    for _ in range(3):
        assert torch.equal(twin(Query(users=torch.arange(4))), expected)
    assert asked == [4]


def test_an_unknown_metric_is_an_error(holdout_of: HoldoutOf) -> None:
    holdout = walk(holdout_of, 1)
    with pytest.raises(ConfigError, match="no metric"):
        fit_prior(scorer(holdout, 1.0), holdout, "ndgc@20")
