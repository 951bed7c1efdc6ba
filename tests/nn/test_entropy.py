"""Entropies against numbers worked by hand, the trigger on synthetic traces, the weights by epoch."""

import math
import re
import warnings

import pytest
import torch
from torch import Tensor

from modalmix.nn.entropy import EntropySchedule, EpochRouting, Trigger, entropy, hesitation, utilisation

Trace = list[tuple[float, float]]  # (H_use, H_route) by epoch
RAMP = 10


class TestEntropies:
    @pytest.mark.parametrize("experts", [2, 3, 9])
    def test_uniform_is_one_and_a_single_expert_is_zero(self, experts: int) -> None:
        uniform, single = torch.full((7, experts), 1 / experts), torch.eye(experts)[[1] * 7]
        assert float(utilisation(uniform)) == float(hesitation(uniform)) == pytest.approx(1.0)
        assert float(utilisation(single)) == float(hesitation(single)) == 0.0

    def test_sure_pairs_that_differ_use_all_experts(self) -> None:
        gates = torch.eye(4).repeat(3, 1)
        assert float(utilisation(gates)) == pytest.approx(1.0)
        assert float(hesitation(gates)) == 0.0

    def test_by_hand(self) -> None:
        gates = torch.tensor([[0.5, 0.25, 0.25, 0.0], [0.5, 0.0, 0.0, 0.5]])
        assert entropy(gates).tolist() == pytest.approx([1.5 / 2, 1 / 2])
        assert float(hesitation(gates)) == pytest.approx(1.25 / 2)
        mean = (0.5, 0.125, 0.125, 0.25)
        assert float(utilisation(gates)) == pytest.approx(-sum(p * math.log2(p) for p in mean) / 2)

    @pytest.mark.parametrize("sharp", [0.1, 1.0, 10.0, 300.0])
    def test_their_difference_is_the_mutual_information_of_pair_and_expert(self, sharp: float) -> None:
        torch.manual_seed(1)
        gates = (sharp * torch.randn(40, 9, dtype=torch.float64)).softmax(dim=1)
        joint, information = gates / len(gates), 0.0  # pairs are drawn alike
        for row in joint:
            for p, of_expert in zip(row.tolist(), joint.sum(dim=0).tolist(), strict=True):
                information += p * math.log(p / (of_expert * float(row.sum()))) if p else 0.0
        difference = float(utilisation(gates) - hesitation(gates))
        assert difference == pytest.approx(information / math.log(9), abs=1e-9)
        assert -1e-12 <= difference <= 1.0

    def test_gradients_are_those_of_the_logits(self) -> None:
        torch.manual_seed(2)
        logits = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x: utilisation(x.softmax(dim=1)), logits)
        assert torch.autograd.gradcheck(lambda x: hesitation(x.softmax(dim=1)), logits)

    @pytest.mark.parametrize("low", [-200.0, -1e4])
    def test_an_expert_that_no_pair_may_use_gives_finite_gradients(self, low: float) -> None:
        """Its gate is exactly 0, where the logarithm has no gradient; the others learn as if it were not there."""
        logits = torch.tensor([[1.0, 0.0, low], [0.5, 2.0, low]], requires_grad=True)
        assert logits.softmax(dim=1)[0, 2] == 0.0
        (utilisation(logits.softmax(dim=1)) - 2 * hesitation(logits.softmax(dim=1))).backward()
        alone = logits.detach()[:, :2].clone().requires_grad_()
        (utilisation(alone.softmax(dim=1)) - 2 * hesitation(alone.softmax(dim=1))).backward()
        assert logits.grad[:, 2].tolist() == [0.0, 0.0]
        torch.testing.assert_close(logits.grad[:, :2] * math.log(3), alone.grad * math.log(2))

    def test_coverage_spreads_the_gates_and_specialisation_sharpens_them(self) -> None:
        for term, gets_less in ((lambda g: 1 - utilisation(g), True), (hesitation, False)):
            logits = torch.tensor([[1.0, 0.0, 0.0]], requires_grad=True)
            term(logits.softmax(dim=1)).backward()
            assert bool(logits.grad[0, 0] > 0) is gets_less, "the largest logit falls by a step against the gradient"


def schedule(trigger: Trigger, cover: float = 0.1, specialise: float = 0.05) -> EntropySchedule:
    return EntropySchedule(trigger, cover, specialise, RAMP)


def play(trigger: Trigger, trace: Trace, resume: tuple[int, ...] = ()) -> list[tuple[int, str]]:
    """What is told at the end of which epoch. After the epochs `resume` training goes on from a checkpoint."""
    running, told = schedule(trigger), []
    for epoch, (use, route) in enumerate(trace, start=1):
        running.start(epoch)
        if event := running.end(use, route):
            told.append((epoch, event))
        if epoch in resume:
            saved = {name: value.clone() for name, value in running.state_dict().items()}
            running = schedule(trigger)
            running.load_state_dict(saved)
    return told


def flat(epochs: int, use: float = 0.95, route: float = 0.8) -> Trace:
    return [(use, route)] * epochs


def falling(epochs: int, use: float = 0.95, by: float = 0.03) -> Trace:
    """H_route never stands still."""
    return [(use, 1.0 - by * epoch) for epoch in range(epochs)]


TRACES: dict[str, tuple[Trigger, Trace, list[tuple[int, str]]]] = {
    "steady from the start: at the first epoch that may": (Trigger(), flat(40), [(5, "triggered")]),
    "a first epoch within the first window: when the window is full": (
        Trigger(first=1),
        flat(40),
        [(3, "triggered")],
    ),
    "a longer window": (Trigger(window=8), flat(40), [(8, "triggered")]),
    "a window of one": (Trigger(window=1, first=1), flat(40), [(1, "triggered")]),
    "H_use too low in epoch 7: three epochs later": (
        Trigger(first=8),
        flat(6) + flat(1, use=0.89) + flat(30),
        [(10, "triggered")],
    ),
    "H_use on the threshold, H_route moving by just what it may": (
        Trigger(),
        [(0.9, 0.52), (0.9, 0.50), (0.9, 0.51)] * 10,
        [(5, "triggered")],
    ),
    "H_route moves until epoch 9": (Trigger(), falling(9) + flat(30, route=0.5), [(12, "triggered")]),
    "H_route moves up and down by more than it may": (Trigger(), [(0.95, 0.5), (0.95, 0.53)] * 25, [(30, "forced")]),
    "H_use never high enough": (Trigger(), flat(50, use=0.8), [(30, "forced")]),
    "another threshold": (Trigger(threshold=0.7), flat(50, use=0.8), [(5, "triggered")]),
    "forced earlier": (Trigger(latest=4), flat(50), [(4, "forced")]),
    "at the latest epoch by itself: not forced": (Trigger(latest=5), flat(50), [(5, "triggered")]),
    "entropy below": (
        Trigger("entropy_below", threshold=0.75),
        flat(10) + flat(2, route=0.7) + flat(1) + flat(30, route=0.7),
        [(16, "triggered")],
    ),
    "entropy below does not mind that it moves": (
        Trigger("entropy_below", threshold=0.75),
        [(0.95, route) for route in (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)],
        [(5, "triggered")],
    ),
    "entropy on the threshold is not below": (
        Trigger("entropy_below", threshold=0.75),
        flat(40, route=0.75),
        [(30, "forced")],
    ),
    "plateau, whatever the use": (Trigger("plateau"), falling(8, use=0.6) + flat(30, 0.6, 0.5), [(11, "triggered")]),
    "plateau that never comes": (Trigger("plateau"), falling(33, by=0.021), [(30, "forced")]),
    "a given epoch": (Trigger("epoch:7"), falling(40, use=0.6, by=0.02), [(7, "triggered")]),
    "a given first epoch": (Trigger("epoch:1"), flat(40), [(1, "triggered")]),
    "a given epoch later than the latest": (Trigger("epoch:35", latest=30), flat(40), [(35, "triggered")]),
    "never": (Trigger("never"), flat(200), []),
    "collapse in stage 2: after its own three epochs, once": (
        Trigger(),
        flat(5) + flat(2, use=0.4) + flat(1, use=0.6) + flat(20, use=0.4),
        [(5, "triggered"), (11, "collapse")],
    ),
    "collapse in stage 1 does not count": (
        Trigger("epoch:6"),
        flat(6, use=0.3) + flat(2, use=0.3) + flat(20),
        [(6, "triggered")],
    ),
    "collapse right away": (Trigger("epoch:6"), flat(30, use=0.3), [(6, "triggered"), (9, "collapse")]),
    "half is no collapse": (Trigger(), flat(5) + flat(20, use=0.5), [(5, "triggered")]),
}


class TestTrigger:
    @pytest.mark.parametrize("name", TRACES)
    def test_fires_at_the_stated_epoch_once(self, name: str) -> None:
        trigger, trace, told = TRACES[name]
        assert play(trigger, trace) == told

    @pytest.mark.parametrize("name", TRACES)
    @pytest.mark.parametrize("resume", [(1,), (4,), (5, 6), (7, 10, 12), tuple(range(1, 60))])
    def test_an_interruption_changes_nothing(self, name: str, resume: tuple[int, ...]) -> None:
        trigger, trace, told = TRACES[name]
        assert play(trigger, trace, resume) == told

    @pytest.mark.parametrize("epoch", [2, 5, 9, 14])
    def test_it_rests_on_buffers_that_a_checkpoint_can_hold(self, epoch: int) -> None:
        running, other = schedule(Trigger()), schedule(Trigger())
        for now in range(1, epoch + 1):
            running.start(now)
            running.end(0.95, 0.8)
        other.load_state_dict(running.state_dict())
        assert all(torch.equal(value, running.state_dict()[name]) for name, value in other.state_dict().items())
        for both in (running, other):
            both.start(epoch + 1)
        assert other.weights() == running.weights()
        assert (other.specialising, other.settled) == (running.specialising, running.settled)

    @pytest.mark.parametrize(
        "rule",
        [
            "",
            "cover",
            "Coverage",
            "epoch",
            "epoch:",
            "epoch:-1",
            "epoch:3.5",
            "epoch:²",
            "epoch:x",
            "epoch: 3 4",
            "none",
        ],
    )
    def test_an_unknown_rule(self, rule: str) -> None:
        with pytest.raises(ValueError, match=r"expected coverage, entropy_below, plateau, epoch:n or never"):
            Trigger(rule)


class TestWeights:
    def begun(self, trigger: Trigger, trace: Trace) -> list[tuple[float, float]]:
        """(w_cov, w_spec) in each epoch."""
        running, weights = schedule(trigger), []
        for epoch, (use, route) in enumerate(trace, start=1):
            running.start(epoch)
            weights.append(running.weights())
            running.end(use, route)
        return weights

    def test_they_move_by_a_cosine_after_the_trigger(self) -> None:
        weights = self.begun(Trigger("epoch:6"), flat(20))
        assert weights[:6] == [(0.1, 0.0)] * 6
        for s, (cover, specialise) in enumerate(weights[6:16], start=1):
            rise = (1 - math.cos(math.pi * s / 10)) / 2
            assert (cover, specialise) == pytest.approx((0.1 - 0.07 * rise, 0.05 * rise))
        assert weights[10] == pytest.approx((0.065, 0.025)), "half way after five of ten epochs"
        assert weights[15:] == [pytest.approx((0.03, 0.05))] * 5

    def test_they_stay_where_nothing_triggers(self) -> None:
        assert self.begun(Trigger("never"), flat(60)) == [(0.1, 0.0)] * 60

    def test_weights_of_zero_stay_zero(self) -> None:
        off = schedule(Trigger("epoch:1"), cover=0.0, specialise=0.0)
        for epoch in range(1, 20):
            off.start(epoch)
            assert off.weights() == (0.0, 0.0)
            off.end(0.9, 0.8)

    def test_a_collapse_brings_back_the_full_weight_of_coverage(self) -> None:
        weights = self.begun(Trigger("epoch:2"), flat(2) + flat(3) + flat(10, use=0.4))
        assert weights[7][0] < 0.07, "epoch 8: the third below"
        assert [cover for cover, _ in weights[8:]] == [0.1] * 7, "for good"
        assert weights[-1][1] == pytest.approx(0.05), "specialisation goes on"

    def test_the_facts_are_those_of_the_epoch_that_has_begun(self) -> None:
        running = schedule(Trigger("epoch:1"))
        running.start(1)
        assert running.facts() == {"stage": 1, "w_cov": 0.1, "w_spec": 0.0}
        running.end(0.95, 0.8)
        running.start(11)
        assert running.facts() == {"stage": 2, "w_cov": pytest.approx(0.03), "w_spec": pytest.approx(0.05)}


class TestSettled:
    def settles(self, trigger: Trigger, epochs: int) -> int | None:
        """The first epoch at whose end early stopping may count."""
        running = schedule(trigger)
        for epoch in range(1, epochs + 1):
            running.start(epoch)
            running.end(0.95, 0.8)
            if running.settled:
                return epoch
        return None

    @pytest.mark.parametrize(
        ("trigger", "epoch"),
        [
            (Trigger(), 15),
            (Trigger("epoch:2"), 12),
            (Trigger(threshold=0.99), 40),
            (Trigger("never"), 1),
            (Trigger("epoch:60"), None),
        ],
    )
    def test_early_stopping_waits_for_the_ramp(self, trigger: Trigger, epoch: int | None) -> None:
        assert self.settles(trigger, 50) == epoch


def test_a_forced_trigger_is_remembered() -> None:
    forced: dict[str, Tensor] = {}
    for rule, latest in (("coverage", 4), ("epoch:4", 30)):
        running = schedule(Trigger(rule, latest=latest))
        for epoch in range(1, 6):
            running.start(epoch)
            running.end(0.95, 0.8)
        forced[rule] = running.state_dict()["was_forced"]
        assert running.state_dict()["triggered"] == 4
    assert (int(forced["coverage"]), int(forced["epoch:4"])) == (1, 0)


class TestEpoch:
    def test_means_over_batches(self) -> None:
        """Mean gates (.75, .25) and (.25, .75); a sure batch and an even one."""
        routing = EpochRouting()
        assert routing.means() == {}
        routing.add(torch.eye(2)[[0, 0, 0, 1]])
        routing.add(torch.full((3, 2), 0.5).requires_grad_())
        means = routing.means()
        assert list(means) == ["gate/0", "gate/1", "H_route"]
        assert [float(one) for one in means.values()] == pytest.approx([4.5 / 7, 2.5 / 7, 3 / 7])
        assert not any(one.requires_grad for one in means.values())

    def test_what_the_record_keeps(self) -> None:
        """The weights are those the epoch had, not what the schedule moves on to."""
        schedule = EntropySchedule(Trigger("entropy_below", first=1, window=1, latest=1), 0.1, 0.05, RAMP)
        schedule.start(1)
        found = schedule.conclude(torch.tensor([0.5, 0.5]), 0.95, ("one", "other"))
        assert found == pytest.approx(
            {"H_use": 1.0, "H_route": 0.95, "stage": 1, "w_cov": 0.1, "w_spec": 0.0, "forced": 1.0}
            | {"load/one": 0.5, "load/other": 0.5}
        )
        assert schedule.specialising

    def test_a_collapse_is_told_once(self) -> None:
        schedule = EntropySchedule(Trigger("epoch:1", window=2), 0.1, 0.05, RAMP)
        single, told = torch.tensor([1.0, 0.0]), []
        for epoch in range(1, 7):
            schedule.start(epoch)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                schedule.conclude(single, 0.0, ("one", "other"))
            told.append([str(one.message)[:7] for one in caught])
        assert told == [[], [], ["epoch 3"], [], [], []]

    @pytest.mark.parametrize(("cover", "said"), [(0.1, "back to full weight (0.1)"), (0.0, "nothing balances them")])
    def test_a_collapse_says_what_becomes_of_the_balance(self, cover: float, said: str) -> None:
        schedule = EntropySchedule(Trigger("epoch:1", window=1), cover, 0.05, RAMP)
        schedule.start(1)
        schedule.conclude(torch.tensor([0.5, 0.5]), 0.9, ("one", "other"))
        schedule.start(2)
        with pytest.warns(UserWarning, match=re.escape(said)):
            schedule.conclude(torch.tensor([1.0, 0.0]), 0.0, ("one", "other"))
