"""The mixture against loops over experts and modalities."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from modalmix.nn.camoe import CAMoE

M, D, K, ROWS = 3, 4, 5, 6


def parts(seed: int = 0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(seed)
    return torch.randn(M, ROWS, D), torch.ones(ROWS, M, dtype=torch.bool)


@pytest.mark.parametrize("gate", ["attention", "linear"])
@pytest.mark.parametrize("hidden", [0, 7])
def test_equals_loops(gate: str, hidden: int) -> None:
    e, present = parts()
    layer = CAMoE(M, D, K, hidden, gate=gate).eval()  # type: ignore[arg-type]
    u = torch.cat(list(e), dim=1)
    for m in range(M):
        if gate == "attention":
            query = e[m] @ layer.query[m]
            g = torch.stack([query @ layer.keys[m, k] / D**0.5 for k in range(K)], dim=1).softmax(dim=1)
        else:
            g = (e[m] @ layer.choose[m]).softmax(dim=1)
        expected = torch.zeros(ROWS, D)
        for k in range(K):
            if hidden:
                assert layer.into is not None
                inner = F.gelu(layer.into(u)[:, k * hidden : (k + 1) * hidden])
                wide = inner @ layer.out_weight[k] + layer.out_bias[k]
            else:
                wide = layer.linear(u)[:, k * M * D : (k + 1) * M * D]
            expected += g[:, k : k + 1] * wide[:, m * D : (m + 1) * D]
        torch.testing.assert_close(layer(e, present)[m], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("gate", ["attention", "linear"])
def test_gates_sum_to_one(gate: str) -> None:
    e, _ = parts()
    g = CAMoE(M, D, K, gate=gate).gates(e)  # type: ignore[arg-type]
    assert g.shape == (M, ROWS, K)
    torch.testing.assert_close(g.sum(dim=2), torch.ones(M, ROWS))
    assert g.std() > 0


@pytest.mark.parametrize("hidden", [0, 7])
def test_every_block_hears_every_modality(hidden: int) -> None:
    e, _ = parts()
    layer = CAMoE(M, D, K, hidden)
    u = e.transpose(0, 1).flatten(1).requires_grad_()
    said = layer.experts(u)
    for k in range(K):
        for m in range(M):
            (gradient,) = torch.autograd.grad(said[k, m].sum(), u, retain_graph=True)
            assert (gradient.view(ROWS, M, D).abs().sum(dim=(0, 2)) > 0).all()


def test_an_absent_modality_says_and_gets_nothing() -> None:
    e, present = parts()
    present[2, 1] = False
    layer, other = CAMoE(M, D, K), e.clone()
    other[1, 2] = 9.0
    mixed = layer(e, present)
    assert not mixed[1, 2].any()
    torch.testing.assert_close(layer(other, present), mixed)
    assert mixed[0, 2].any()


@pytest.mark.parametrize("gate", ["attention", "linear"])
@pytest.mark.parametrize("hidden", [0, 64])
def test_all_of_it_starts_with_one_deviation(gate: str, hidden: int) -> None:
    torch.manual_seed(0)
    layer = CAMoE(M, 64, K, hidden, gate=gate)  # type: ignore[arg-type]
    layer.start(0.02)
    for name, one in layer.named_parameters():
        if name.endswith("bias"):
            assert not one.any()
        else:
            assert float(one.detach().std()) == pytest.approx(0.02, rel=0.1), name


def test_dropout_is_off_in_evaluation() -> None:
    e, present = parts()
    layer = CAMoE(M, D, K, hidden=16, dropout=0.5)
    assert not torch.equal(layer(e, present), layer(e, present))
    layer.eval()
    assert torch.equal(layer(e, present), layer(e, present))
