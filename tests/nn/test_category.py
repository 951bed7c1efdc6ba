"""Category losses and weights against torch's own and by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from modalmix.nn.category import Labels, balanced_bce, certainty, confidence, cross_entropy, modality_weights, plain_bce

LABELS = Labels(torch.tensor([0, 2, 2, 3, 8]), torch.tensor([1, 4, 0, 0, 1, 2, 3, 4]))  # row 1 none, row 3 all of 5


@pytest.fixture
def logits() -> torch.Tensor:
    return 2 * torch.randn(4, 5, generator=torch.Generator().manual_seed(0))


def test_balanced_bce_by_hand(logits: torch.Tensor) -> None:
    own = [[1, 4], [], [0], [0, 1, 2, 3, 4]]
    for row, labels in enumerate(own):
        others = [c for c in range(5) if c not in labels]
        positive = sum(-math.log(torch.sigmoid(logits[row, c])) for c in labels) / max(1, len(labels))
        negative = sum(-math.log(1 - torch.sigmoid(logits[row, c])) for c in others) / max(1, len(others))
        assert balanced_bce(logits, LABELS)[row].item() == pytest.approx((positive + negative) / 2, rel=1e-4)


def test_cross_entropy_is_torchs_where_there_is_a_label(logits: torch.Tensor) -> None:
    labels = Labels(torch.tensor([0, 1, 1, 2, 3]), torch.tensor([2, 0, 4]))
    found = cross_entropy(logits, labels)
    assert found[1] == 0
    torch.testing.assert_close(found[[0, 2, 3]], F.cross_entropy(logits[[0, 2, 3]], labels.labels, reduction="none"))


def test_cross_entropy_is_the_mean_over_several_labels(logits: torch.Tensor) -> None:
    found = cross_entropy(logits, Labels(torch.tensor([0, 2, 2, 2, 3]), torch.tensor([2, 0, 4])))
    log_p = logits.log_softmax(dim=1)
    torch.testing.assert_close(found, -torch.stack([log_p[0, [0, 2]].mean(), *log_p.new_zeros(2), log_p[3, 4]]))


def test_plain_bce_is_the_mean_over_all_categories(logits: torch.Tensor) -> None:
    wanted = torch.zeros_like(logits)
    wanted[LABELS.rows, LABELS.labels] = 1.0
    expected = F.binary_cross_entropy_with_logits(logits, wanted, reduction="none").mean(dim=1)
    torch.testing.assert_close(plain_bce(logits, LABELS), expected)


def test_confidence_is_minus_the_mean_entropy(logits: torch.Tensor) -> None:
    p = logits.double().sigmoid()
    entropy = -(p * p.log() + (1 - p) * (1 - p).log()).mean(dim=1)
    torch.testing.assert_close(confidence(logits), -entropy.float(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(confidence(torch.zeros(1, 3)), torch.tensor([-math.log(2)]))
    assert torch.isfinite(confidence(torch.tensor([[80.0, -80.0]]))).all()


def test_certainty_is_the_log_likelihood_a_head_expects(logits: torch.Tensor) -> None:
    p = np.exp(logits.double().numpy())
    p /= p.sum(axis=1, keepdims=True)
    torch.testing.assert_close(certainty(logits), torch.from_numpy((p * np.log(p)).sum(axis=1)).float())
    torch.testing.assert_close(certainty(torch.zeros(1, 3)), torch.tensor([-math.log(3)]))
    torch.testing.assert_close(certainty(torch.tensor([[200.0, -200.0]])), torch.zeros(1))


def test_weights_average_one_over_what_is_there() -> None:
    quality = torch.randn(3, 5, generator=torch.Generator().manual_seed(1), requires_grad=True)
    present = torch.ones(5, 3, dtype=torch.bool)
    present[1, 0] = present[2, :2] = present[3, :] = False
    weights = modality_weights(quality, present, 0.5)
    torch.testing.assert_close(weights.sum(dim=0), present.sum(dim=1).float())
    assert not weights.T[~present].any()
    assert weights[2, 2] == 1
    expected = 3 * (quality[:, 0] / 0.5).softmax(dim=0)
    torch.testing.assert_close(weights[:, 0], expected)
    assert not weights.requires_grad, "weights must ignore the ranking loss"


def test_a_low_temperature_decides_and_a_high_one_does_not() -> None:
    quality, present = torch.tensor([[0.0], [-1.0]]), torch.ones(1, 2, dtype=torch.bool)
    torch.testing.assert_close(modality_weights(quality, present, 1e-3), torch.tensor([[2.0], [0.0]]))
    torch.testing.assert_close(modality_weights(quality, present, 1e6), torch.ones(2, 1))
