"""Gates: selection first, softmax after; an absent part weighs exactly nothing."""

import math

import pytest
import torch

from modalmix.nn.gates import FusionGate, mask_absent, top_k_softmax


def test_softmax_runs_over_the_selected_logits_only() -> None:
    weights = top_k_softmax(torch.tensor([[1.0, 3.0, 2.0, 0.0]]), 2)
    e = math.e
    assert weights[0].tolist() == pytest.approx([0.0, e / (e + 1), 1 / (e + 1), 0.0])
    assert weights[0, 0] == 0.0
    assert weights[0, 3] == 0.0


def test_all_selected_is_plain_softmax_and_one_selected_is_one() -> None:
    logits = torch.randn(6, 3)
    assert torch.equal(top_k_softmax(logits, 3), logits.softmax(dim=1))
    assert torch.equal(top_k_softmax(logits, 1).max(dim=1).values, torch.ones(6))


def test_an_absent_part_weighs_exactly_zero() -> None:
    present = torch.tensor([[True, False, True], [False, True, False], [False, False, False]])
    weights = mask_absent(torch.tensor([[0.0, 50.0, 0.0]] * 3), present).softmax(dim=1)
    assert weights[0].tolist() == [0.5, 0.0, 0.5]
    assert weights[1].tolist() == [0.0, 1.0, 0.0]
    assert bool(weights.isfinite().all())


def test_fusion_gate_is_the_published_network() -> None:
    gate = FusionGate(2, 3, dropout=0.1).eval()
    parts = torch.randn(4, 2, 3)
    z = torch.cat([parts[:, 0], parts[:, 1]], dim=1)
    by_hand = (z @ gate.hidden.weight.T + gate.hidden.bias).clamp(min=0) @ gate.out.weight.T + gate.out.bias
    torch.testing.assert_close(gate(parts, torch.ones(4, 2, dtype=torch.bool)), by_hand)


def test_the_fusion_gate_drops_only_in_training() -> None:
    gate = FusionGate(2, 64, dropout=0.5)
    parts, present = torch.randn(8, 2, 64), torch.ones(8, 2, dtype=torch.bool)
    assert not torch.equal(gate(parts, present), gate(parts, present))
    gate.eval()
    assert torch.equal(gate(parts, present), gate(parts, present))
