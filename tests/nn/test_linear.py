"""The product with frozen features against torch's own linear."""

import pytest
import torch

from modalmix.nn.linear import FeatureLinear, frozen_linear


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("shape", [(37, 20, 5), (1, 3, 1), (300, 128, 65)])
def test_value_and_gradient_equal_linear(shape: tuple[int, int, int], dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    rows, features, dim = shape
    x = torch.randn(rows, features) / features**0.5
    weight, upstream = torch.randn(dim, features, requires_grad=True), torch.randn(rows, dim) / rows**0.5
    expected = torch.nn.functional.linear(x, weight)
    result = frozen_linear(x.to(dtype), weight)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(
        torch.autograd.grad(result, weight, upstream)[0],
        torch.autograd.grad(expected, weight, upstream)[0],
        atol=tolerance,
        rtol=tolerance,
    )


def test_features_that_change_before_the_backward_pass_are_an_error() -> None:
    x, weight = torch.randn(4, 3), torch.randn(2, 3, requires_grad=True)
    result = frozen_linear(x, weight)
    x.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        result.sum().backward()


def test_features_get_no_gradient() -> None:
    x, weight = torch.randn(4, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    frozen_linear(x, weight).sum().backward()
    assert x.grad is None


@pytest.mark.parametrize("n", [1, 5, 130])
def test_a_linear_of_rows_equals_the_linear_of_gathered_rows(n: int) -> None:
    torch.manual_seed(0)
    linear, x, rows = FeatureLinear(7, 3), torch.randn(40, 7), torch.randint(0, 40, (n,))
    got, expected = linear(x, rows), x[rows] @ linear.weight.T + linear.bias
    torch.testing.assert_close(got, expected)
    weight = torch.randn(n, 3)
    gradients = [torch.autograd.grad((out * weight).sum(), [linear.weight, linear.bias]) for out in (got, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)
