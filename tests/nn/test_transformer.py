"""The packed causal Transformer against a plain restatement of its equations."""

import math

import pytest
import torch
import torch.nn.functional as F

from modalmix.nn.packing import Packing
from modalmix.nn.transformer import CausalAttention, CausalTransformer, Order, RowsGELU

LENGTHS = torch.tensor([4, 1, 12, 7])


def packing() -> Packing:
    return Packing(torch.arange(12) < LENGTHS.unsqueeze(1))


def plain_attention(one: CausalAttention, x: torch.Tensor) -> torch.Tensor:
    """Of a single sequence [length, dim], head by head, position by position."""
    q, k, v = (x @ one.query_key_value.weight.T + one.query_key_value.bias).chunk(3, dim=1)
    size, rows = x.shape[1] // one.heads, []
    for t in range(len(x)):
        heads = []
        for head in range(one.heads):
            part = slice(head * size, (head + 1) * size)
            weights = torch.softmax(k[: t + 1, part] @ q[t, part] / math.sqrt(size), dim=0)
            heads.append(weights @ v[: t + 1, part])
        rows.append(torch.cat(heads))
    return torch.stack(rows) @ one.output.weight.T + one.output.bias


@pytest.mark.parametrize(("order", "activation"), [("post", "gelu"), ("pre", "relu")])
def test_states_equal_the_equations(order: Order, activation: str) -> None:
    torch.manual_seed(0)
    act = {"gelu": F.gelu, "relu": F.relu}[activation]
    net = CausalTransformer(8, 2, 2, 12, 0.4, 0.4, order, activation).double().eval()  # type: ignore[arg-type]
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(int(LENGTHS.sum()), 8, dtype=torch.float64)
    expected = []
    for s in x.split(LENGTHS.tolist()):
        for layer in net.layers:
            norm_a, norm_b = layer.norms  # type: ignore[misc]
            first, _, _, second = layer.network  # type: ignore[misc]
            network = lambda y, first=first, second=second: second(act(first(y)))  # noqa: E731
            if order == "pre":
                s = s + plain_attention(layer.attention, norm_a(s))  # type: ignore[arg-type]
                s = s + network(norm_b(s))
            else:
                s = norm_a(s + plain_attention(layer.attention, s))  # type: ignore[arg-type]
                s = norm_b(s + network(s))
        expected.append(net.last(s))
    torch.testing.assert_close(net(x, packing()), torch.cat(expected))


def test_a_later_item_changes_no_earlier_state_and_a_sequence_no_other() -> None:
    torch.manual_seed(0)
    net, x = CausalTransformer(8, 2, 2, 12, 0.0), torch.randn(int(LENGTHS.sum()), 8)
    start = int(LENGTHS[:2].sum())
    changed = x.clone()
    changed[start + 5] += 1.0  # item 5 of sequence 2
    before, after = net(x, packing()), net(changed, packing())
    same = (before == after).all(dim=1)
    assert same[: start + 5].all()
    assert not same[start + 5 : start + 12].any()
    assert same[start + 12 :].all()


def test_dropout_acts_in_training_only() -> None:
    net, x = CausalTransformer(8, 1, 2, 12, 0.5, 0.5), torch.randn(int(LENGTHS.sum()), 8)
    assert not torch.equal(net(x, packing()), net(x, packing()))
    net.eval()
    assert torch.equal(net(x, packing()), net(x, packing()))


def test_no_layers_change_nothing() -> None:
    x = torch.randn(int(LENGTHS.sum()), 8)
    assert torch.equal(CausalTransformer(8, 0, 2, 12, 0.5)(x, packing()), x)


def test_heads_divide_dim() -> None:
    with pytest.raises(ValueError, match="no multiple of 3 heads"):
        CausalAttention(8, 3, 0.0)


@pytest.mark.parametrize("rows", [0, 1, 128, 130])
def test_gelu_of_any_number_of_rows(rows: int) -> None:
    x = torch.randn(rows, 5)
    torch.testing.assert_close(RowsGELU()(x), F.gelu(x))
