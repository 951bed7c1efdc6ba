"""A mixture of fitted experts: what the gates make of it, by hand."""

import pytest
import torch

from modalmix.nn import taught
from modalmix.nn.evidence import evidence
from modalmix.nn.taught import TaughtMixture

ITEMS, DIM = 36, 3
STRENGTHS = (0.3, 3.0)


def world() -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor]:
    """Features of two modalities, targets that follow them, and who can be learnt from: the last six cannot."""
    generator = torch.Generator().manual_seed(0)
    taste = torch.randn(ITEMS, 2, generator=generator)
    features = [torch.nn.functional.normalize(taste @ torch.randn(2, d, generator=generator), dim=1) for d in (5, 7)]
    learnable = torch.ones(ITEMS, 2, dtype=torch.bool)
    learnable[30:] = False
    learnable[4, 0] = learnable[7, 1] = False
    return features, taste @ torch.randn(2, DIM, generator=generator), learnable


def mixture(experts: int = 2, top_k: int = 1) -> TaughtMixture:
    torch.manual_seed(0)
    return TaughtMixture([29, 29], DIM, experts, top_k, 8, 0.0)


def fit(of: TaughtMixture, targets: torch.Tensor, fold: torch.Tensor) -> torch.Tensor:
    features, _, learnable = world()
    unseen = of.fit(features, learnable, targets, torch.ones(ITEMS), fold, STRENGTHS, seed=0)
    of.standardise(unseen, learnable)
    return unseen


def test_what_is_said_of_learnable_items_unseen_and_of_no_other() -> None:
    _, targets, learnable = world()
    of = mixture()
    said = fit(of, targets, torch.arange(ITEMS) % 5)
    assert said.shape == (ITEMS, 2, 2, DIM)
    assert torch.equal(said.any(dim=3).all(dim=2), learnable)
    for m, kernels in enumerate(of.kernels):
        assert set(kernels.landmarks.tolist()) == set(torch.nonzero(learnable[:, m]).flatten().tolist())


def test_unseen_is_worse_than_seen_and_better_than_nothing() -> None:
    features, targets, learnable = world()
    of = mixture()
    unseen = fit(of, targets, torch.arange(ITEMS) % 5)
    seen = of.say(features, features, learnable, torch.arange(ITEMS))
    both = learnable.all(dim=1)

    def error(said: torch.Tensor) -> float:
        return float((said.mean(dim=(1, 2)) - targets)[both].square().mean())

    assert error(seen) < error(unseen) < 0.5 * error(torch.zeros_like(unseen))


def test_the_targets_of_a_fold_do_not_reach_what_is_said_of_it() -> None:
    """With one strength to choose: the choice of a strength sees every row."""
    features, targets, learnable = world()
    fold, changed = torch.arange(ITEMS) % 5, targets.clone()
    changed[3] = 40.0
    before, after = (
        mixture().fit(features, learnable, one, torch.ones(ITEMS), fold, (1.0,), 0) for one in (targets, changed)
    )
    torch.testing.assert_close(after[fold == 3], before[fold == 3], atol=2e-3, rtol=0)
    assert float((after - before)[fold != 3].abs().max()) > 1.0


def test_rows_are_said_in_blocks_and_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    features, targets, _ = world()
    of, has = mixture(), torch.rand(ITEMS, 2, generator=torch.Generator().manual_seed(0)) < 0.7
    fit(of, targets, torch.arange(ITEMS) % 5)
    whole = of.say(features, features, has, torch.arange(ITEMS))
    assert not bool(whole[~has].any())
    rows = torch.tensor([35, 0, 3, 3, 20])
    torch.testing.assert_close(of.say(features, features, has, rows), whole[rows])
    monkeypatch.setattr(taught, "_BLOCK", 5)
    torch.testing.assert_close(of.say(features, features, has, torch.arange(ITEMS)), whole)
    assert of.say(features, features, has, rows[:0]).shape == (0, 2, 2, DIM)


def test_the_sum_by_hand() -> None:
    """h_m = sum over the top-k of w s f, with w a softmax over the chosen."""
    of = mixture(experts=3, top_k=2)
    torch.nn.init.normal_(of.gate.out.weight)
    torch.nn.init.normal_(of.log_scale)
    said, has = torch.randn(6, 2, 3, DIM), torch.ones(6, 2, dtype=torch.bool)
    mixtures, logits = of(said, has, has)
    of_experts, of_modalities = of.gate(evidence(said, has))
    torch.testing.assert_close(logits, of_modalities)
    for row in range(6):
        for m in range(2):
            chosen = of_experts[row, m].argsort(descending=True)[:2]
            weights = of_experts[row, m, chosen].exp() / of_experts[row, m, chosen].exp().sum()
            expected = sum(w * of.log_scale[m, e].exp() * said[row, m, e] for w, e in zip(weights, chosen, strict=True))
            torch.testing.assert_close(mixtures[m].vectors[row], expected)
            torch.testing.assert_close(mixtures[m].weights[row, chosen], weights)
            assert mixtures[m].weights[row].count_nonzero() == 2


def test_it_starts_as_the_mean_of_the_experts() -> None:
    of, said, has = mixture(experts=4, top_k=4), torch.randn(6, 2, 4, DIM), torch.ones(6, 2, dtype=torch.bool)
    mixtures, logits = of(said, has, has)
    torch.testing.assert_close(mixtures[1].vectors, said[:, 1].mean(dim=1))
    assert not bool(logits.any())


def test_who_has_no_say_gets_weights_of_zero() -> None:
    of, said = mixture(), torch.randn(3, 2, 2, DIM)
    present = torch.tensor([[True, False], [False, True], [False, False]])
    mixtures, _ = of(said, present, present)
    for m in range(2):
        assert torch.equal(mixtures[m].weights.any(dim=1), present[:, m])
        assert torch.equal(mixtures[m].vectors.any(dim=1), present[:, m])


def test_only_gates_and_scales_learn() -> None:
    of = mixture()
    assert {name.split(".")[0] for name, _ in of.named_parameters()} == {"gate", "log_scale"}
    saved = of.state_dict()
    assert {"kernels.0.landmarks", "kernels.1.weights", "gate.mean", "gate.scale", "log_scale"} <= saved.keys()
