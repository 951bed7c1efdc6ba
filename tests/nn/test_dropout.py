"""Dropout by its definition."""

import pytest
import torch

from modalmix.nn.dropout import FastDropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_and_scale(p: float) -> None:
    torch.manual_seed(0)
    out = FastDropout(p)(torch.ones(1001, 333))
    values = out.unique()
    assert values.tolist() == pytest.approx([0.0, 1 / (1 - p)], rel=1e-3)
    assert float((out == 0).float().mean()) == pytest.approx(p, abs=0.004)  # 4 standard deviations at p = .5
    assert float(out.mean()) == pytest.approx(1.0, abs=0.03)
    rows = (out == 0).float().mean(dim=1)  # no row or column is favoured: their spread is binomial
    assert float(rows.std()) == pytest.approx((p * (1 - p) / 333) ** 0.5, rel=0.15)


def test_nothing_outside_training_or_at_zero() -> None:
    x = torch.randn(5, 3)
    assert FastDropout(0.5).eval()(x) is x
    assert FastDropout(0.0)(x) is x


def test_the_gradient_passes_what_the_value_passed() -> None:
    x = torch.randn(40, 7, requires_grad=True)
    out = FastDropout(0.3)(x)
    out.sum().backward()
    torch.testing.assert_close(x.grad, out.detach() / x.detach())


def test_seeded() -> None:
    dropout, x = FastDropout(0.5), torch.ones(9, 9)
    torch.manual_seed(3)
    first = dropout(x)
    torch.manual_seed(3)
    assert torch.equal(dropout(x), first)
    assert not torch.equal(dropout(x), first)
