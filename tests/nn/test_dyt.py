import torch

from modalmix.nn.dyt import DynamicTanh


def test_is_the_formula() -> None:
    layer, x = DynamicTanh(5, alpha=0.7), torch.randn(3, 4, 5)
    torch.nn.init.normal_(layer.gamma)
    torch.nn.init.normal_(layer.beta)
    torch.testing.assert_close(layer(x), layer.gamma * torch.tanh(0.7 * x) + layer.beta)


def test_it_does_not_rescale() -> None:
    x = 0.028 * torch.randn(4000, 8, generator=torch.Generator().manual_seed(0))
    assert abs(DynamicTanh(8)(x).std().item() - 0.014) < 1e-3
