"""Positions, norm and Transformer: by hand without layers, and what may depend on what."""

import torch

from modalmix.nn.packing import Packing
from modalmix.nn.positioned import PositionedTransformer

REAL = torch.tensor([[True, True, True], [True, False, False]])


def encoder(layers: int) -> PositionedTransformer:
    torch.manual_seed(0)
    return PositionedTransformer(4, 6, layers, 2, 8, 0.5, 0.5).eval()


def test_without_layers_it_is_the_norm_of_item_plus_position() -> None:
    built, x = encoder(0), torch.randn(4, 6)
    placed = x + built.positions[[0, 1, 2, 0]]
    centred = placed - placed.mean(dim=1, keepdim=True)
    expected = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(built(x, Packing(REAL)), expected)


def test_each_sequence_is_by_itself_and_looks_back_only() -> None:
    built, x = encoder(2), torch.randn(4, 6)
    states = built(x, Packing(REAL))
    changed = x.clone()
    changed[2] = x[0]
    after = built(changed, Packing(REAL))
    torch.testing.assert_close(after[[0, 1, 3]], states[[0, 1, 3]])
    assert not torch.allclose(after[2], states[2])
    torch.testing.assert_close(built(x[3:], Packing(REAL[1:, :1])), states[3:])


def test_dropout_is_in_training_only() -> None:
    built, x = encoder(1), torch.randn(4, 6)
    assert torch.equal(built(x, Packing(REAL)), built(x, Packing(REAL)))
    built.train()
    assert not torch.equal(built(x, Packing(REAL)), built(x, Packing(REAL)))
