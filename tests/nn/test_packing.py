"""Packing sequences and taking them apart again."""

import pytest
import torch

from modalmix.nn.packing import Packing, last_positions

REAL = torch.tensor([[True, True, False], [True, False, False], [False, False, False], [True, True, True]])


def test_rows_by_hand() -> None:
    packing = Packing(REAL)
    assert packing.rows.tolist() == [0, 1, 3, 9, 10, 11]
    assert packing.place.tolist() == [0, 1, 0, 0, 1, 2]
    x = torch.arange(24.0).view(4, 3, 2)
    assert packing.pack(x)[:, 0].tolist() == [0, 2, 6, 18, 20, 22]


def test_unpacking_gives_the_sequences_again_and_zeros_at_padding() -> None:
    packing, x = Packing(REAL), torch.randn(4, 3, 2)
    torch.testing.assert_close(packing.unpack(packing.pack(x)), x * REAL.unsqueeze(2))


@pytest.mark.parametrize("longest", [3, 8, 9, 40])
def test_groups_of_like_length_give_what_all_sequences_together_give(longest: int) -> None:
    """A function that looks back: the sum so far. Groups are padded with other values, which must not come in."""
    torch.manual_seed(0)
    lengths = torch.cat([torch.arange(1, longest + 1), torch.randint(1, longest + 1, (20,))])[
        torch.randperm(longest + 20)
    ]
    packing = Packing(torch.arange(longest) < lengths.unsqueeze(1))
    x = torch.randn(int(lengths.sum()), 2, dtype=torch.float64, requires_grad=True)
    widths = []

    def so_far(padded: torch.Tensor) -> torch.Tensor:
        widths.append(padded.shape[1])
        return padded.cumsum(dim=1)

    found = packing.by_sequence(so_far, x)
    expected = packing.pack(packing.unpack(x).cumsum(dim=1))
    torch.testing.assert_close(found, expected)
    weight = torch.randn_like(found)
    (ours,) = torch.autograd.grad((found * weight).sum(), x)
    (theirs,) = torch.autograd.grad((expected * weight).sum(), x)
    torch.testing.assert_close(ours, theirs)
    assert len(widths) == {3: 1, 8: 1, 9: 2, 40: 4}[longest]


def test_last_positions() -> None:
    x = torch.arange(24.0).view(4, 3, 2)
    assert last_positions(x[[0, 1, 3]], REAL[[0, 1, 3]])[:, 0].tolist() == [2, 6, 22]
