"""Hiding modalities, and the running mean that fills them."""

import torch

from modalmix.nn.missing import drop_modalities, follow_mean


def test_modality_dropout_never_hides_all() -> None:
    torch.manual_seed(0)
    present = torch.tensor([[True, True, True], [True, False, True], [False, True, False], [False, False, False]])
    drawn = torch.stack([drop_modalities(present, 0.9) for _ in range(300)])
    assert bool((drawn <= present).all())
    assert bool(drawn[:, :3].any(dim=2).all())
    assert not bool(drawn[:, 3].any())
    assert 0.3 < float(drawn[:, 0].float().mean()) < 0.45  # one stays for certain, another with chance .1 at most
    assert torch.equal(drop_modalities(present, 0.0), present)


def test_the_running_mean_moves_a_tenth_of_the_way_by_those_that_have_it() -> None:
    """Rows [1, 3] and [5, 5] of the first modality, the third row hidden; nobody has the second."""
    typical = torch.tensor([[10.0, 0.0], [7.0, -7.0]])
    parts = torch.tensor([[[1.0, 3.0], [9.0, 9.0]], [[5.0, 5.0], [9.0, 9.0]], [[99.0, 99.0], [9.0, 9.0]]])
    has = torch.tensor([[True, False], [True, False], [False, False]])
    follow_mean(typical, parts.requires_grad_(), has)
    torch.testing.assert_close(typical, torch.tensor([[9.3, 0.4], [7.0, -7.0]]))
    assert not typical.requires_grad
