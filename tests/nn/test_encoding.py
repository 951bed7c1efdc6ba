"""Fusion of modalities and its terms, by hand."""

import math

import pytest
import torch

from modalmix.nn.encoding import Encoding, auxiliary_terms, fuse_modalities
from modalmix.nn.experts import Mixture

PARTS = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[4.0, 4.0], [8.0, 8.0]], [[5.0, 5.0], [5.0, 5.0]]])
LOGITS = torch.tensor([[math.log(3.0), 0.0], [9.0, -torch.inf], [0.0, 0.0]])
PRESENT = torch.tensor([[True, True], [True, False], [False, False]])
MIXTURES = [Mixture(PARTS[:, m], torch.zeros(3, 2), torch.tensor([[1.0, 0.0]] * 3)) for m in range(2)]


def test_the_weighted_sum() -> None:
    """Weights 3 to 1; a masked modality has none; a row without any is zeros."""
    found = fuse_modalities(PARTS, LOGITS, MIXTURES, PRESENT)
    torch.testing.assert_close(found.weights, torch.tensor([[0.75, 0.25], [1.0, 0.0], [0.0, 0.0]]))
    torch.testing.assert_close(found.vectors, torch.tensor([[0.75, 0.5], [4.0, 4.0], [0.0, 0.0]]))
    assert found.mixtures is MIXTURES


def test_an_even_gate_knows_presence_alone() -> None:
    found = fuse_modalities(PARTS, LOGITS, MIXTURES, PRESENT, even=True)
    assert found.weights.tolist() == [[0.5, 0.5], [1.0, 0.0], [0.0, 0.0]]
    assert found.fusion_logits[0].tolist() == [0.0, 0.0]


def test_terms_are_weighted_and_those_of_weight_zero_left_out() -> None:
    """Logits of zeros are balanced; the first of two experts does all the work: load E sum f P = 2 (1 x 1/2) = 1."""
    found = fuse_modalities(PARTS, LOGITS, MIXTURES, PRESENT)
    terms = auxiliary_terms(found, ("image", "text"), align=0.5, balance=2.0, load=3.0, fusion=4.0)
    names = ["align", "balance/image", "load/image", "balance/text", "load/text", "balance/fusion"]
    assert list(terms) == names
    # text: row 0 alone, ((.75 - 0)^2 + (.5 - 2)^2) / 2; image: rows 0 and 1, ((.75 - 1)^2 + .5^2 + 0) / 4
    assert terms["align"].item() == pytest.approx(0.5 * (2.8125 / 2 + 0.3125 / 4))
    assert terms["balance/image"].item() == pytest.approx(0.0, abs=1e-6)
    assert terms["load/text"].item() == pytest.approx(3.0)
    # targets 2/3 and 1/3 (three presences), mean softmax of rows 0 and 1: 7/8 and 1/8
    expected = 2 / 3 * math.log(2 / 3 / (7 / 8)) + 1 / 3 * math.log(1 / 3 / (1 / 8))
    assert terms["balance/fusion"].item() == pytest.approx(4.0 * expected, rel=1e-5)
    assert list(auxiliary_terms(found, ("image", "text"), align=0.0, balance=0.0, load=1.0, fusion=0.0)) == [
        "load/image",
        "load/text",
    ]
    assert auxiliary_terms(found, ("image", "text"), align=0.0, balance=0.0, load=0.0, fusion=0.0) == {}


def test_balance_is_that_of_the_items_that_have_the_modality() -> None:
    """Two of three rows have it, even together; the third would tip the mean."""
    logits = torch.tensor([[3.0, 0.0], [0.0, 3.0], [9.0, 0.0]])
    mixture = Mixture(torch.zeros(3, 4), logits, logits.softmax(dim=1))
    present = torch.tensor([[True], [True], [False]])
    one = torch.zeros(3, 1)
    encoding = Encoding(torch.zeros(3, 4), torch.zeros(()), [mixture], one, one, present)
    terms = auxiliary_terms(encoding, ["image"], align=0.0, balance=1.0, load=1.0, fusion=0.0)
    assert terms["balance/image"].item() == pytest.approx(0.0, abs=1e-6)
    assert terms["load/image"].item() == pytest.approx(1.0)
