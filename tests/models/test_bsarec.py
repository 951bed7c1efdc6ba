"""BSARec: the filter against a Fourier transform, a window against a plain restatement, training by prefixes."""

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from modalmix.data.sequence_samplers import prefix_targets
from modalmix.data.split import TrainData
from modalmix.errors import ConfigError
from modalmix.models.bsarec import BSARec, BSARecConfig, BSARecLayer, heard_by, left_padded, low_pass
from modalmix.models.contract import Query
from modalmix.models.contract.sequential import Steps
from tests.models.conftest import Shop
from tests.models.sequences import HISTORY, check_causality, check_padding

ITEMS, COLD = 30, 6
TARGETS = torch.tensor([[7], [1], [6]])


@pytest.fixture
def data(content_shop: Shop) -> TrainData:
    return content_shop()


def model(data: TrainData, **settings: Any) -> BSARec:
    torch.manual_seed(0)
    small = {"dim": 8, "length": 6, "layers": 2, "hidden": 16, "dropout": 0.0, "init_std": 0.5, "cutoff": 3}
    return BSARec(BSARecConfig.parse({**small, **settings}), data).eval()


def fourier_low(x: Tensor, cutoff: int) -> Tensor:
    """The low part of signals [length, dim]."""
    spectrum = torch.fft.rfft(x, dim=0, norm="ortho")
    kept = torch.arange(len(spectrum)) < cutoff // 2 + 1
    return torch.fft.irfft(spectrum * kept.unsqueeze(1), n=len(x), dim=0, norm="ortho")


def published_window(built: BSARec, history: list[int]) -> Tensor:
    """The states of all positions of a window as the published code has them, in float64; the last row is the state."""
    length, dim, heads = built.config.length, built.config.dim, built.config.heads
    padding = length - len(history)
    table, weights = built.table.double(), {name: value.double() for name, value in built.named_parameters()}
    x = torch.stack([torch.zeros(dim).double()] * padding + [table[item] for item in history])
    x = F.layer_norm(x + weights["positions"], (dim,), weights["norm.weight"], weights["norm.bias"], 1e-12)
    mask = torch.zeros(length, length).double()
    for t in range(length):
        for j in range(length):
            mask[t, j] = 0 if padding <= j <= t else -10_000
    for depth in range(built.config.layers):

        def linear(name: str, value: Tensor, at: str = f"layers.{depth}.") -> Tensor:
            return value @ weights[f"{at}{name}.weight"].T + weights[f"{at}{name}.bias"]

        def norm(name: str, value: Tensor, at: str = f"layers.{depth}.") -> Tensor:
            return F.layer_norm(value, (dim,), weights[f"{at}{name}.weight"], weights[f"{at}{name}.bias"], 1e-12)

        low = fourier_low(x, built.config.cutoff)
        filtered = norm("filter_norm", low + weights[f"layers.{depth}.root_beta"] ** 2 * (x - low) + x)
        parts = []
        for head in range(heads):
            own = slice(head * dim // heads, (head + 1) * dim // heads)
            query, key, value = (linear(name, x)[:, own] for name in ("query", "key", "value"))
            parts.append((query @ key.T / (dim / heads) ** 0.5 + mask).softmax(dim=1) @ value)
        attended = norm("attention_norm", linear("output", torch.cat(parts, dim=1)) + x)
        mixed = built.config.alpha * filtered + (1 - built.config.alpha) * attended
        x = norm("network_norm", linear("network.2", F.gelu(linear("network.0", mixed))) + mixed)
    return x


def test_low_pass_by_hand() -> None:
    torch.testing.assert_close(low_pass(4, 1), torch.full((4, 4), 0.25))  # the mean
    wave = torch.cos(2 * torch.pi * torch.arange(6) / 6)
    torch.testing.assert_close(low_pass(6, 3) @ wave, wave, atol=1e-6, rtol=0)  # the lowest frequency stays
    torch.testing.assert_close(low_pass(6, 1) @ wave, torch.zeros(6), atol=1e-6, rtol=0)
    torch.testing.assert_close(low_pass(5, 4), low_pass(5, 5), atol=0, rtol=0)  # c // 2
    torch.testing.assert_close(low_pass(5, 99), torch.eye(5))


@pytest.mark.parametrize("length", [1, 2, 6, 7, 50])
@pytest.mark.parametrize("cutoff", [0, 3, 5])
def test_low_pass_equals_the_fourier_transform(length: int, cutoff: int) -> None:
    x = torch.randn(length, 3)
    torch.testing.assert_close(low_pass(length, cutoff) @ x, fourier_low(x, cutoff), atol=1e-5, rtol=1e-5)


def test_windows_by_hand() -> None:
    assert left_padded(HISTORY, 5).tolist() == [[-1, 0, 4, 8, 2], [-1, -1, -1, 9, 3], [-1, -1, -1, -1, 5]]
    assert left_padded(HISTORY, 3).tolist() == [[4, 8, 2], [-1, 9, 3], [-1, -1, 5]]
    heard = heard_by(torch.tensor([[False, True, True]]))
    assert heard.tolist() == [[[True, True, True], [False, True, False], [False, True, True]]]


@pytest.mark.parametrize("settings", [{}, {"heads": 1, "alpha": 0.2, "cutoff": 5}, {"length": 7, "layers": 3}])
def test_the_last_state_equals_the_published_window(data: TrainData, settings: dict[str, Any]) -> None:
    built = model(data, **settings)
    with torch.no_grad():
        states = built.last_states(HISTORY, built.items(data.catalog))
        for row, history in enumerate(HISTORY.tolist()):
            expected = published_window(built, [item for item in history if item >= 0])[-1].float()
            torch.testing.assert_close(states[row], expected, atol=1e-4, rtol=1e-4)


def test_a_later_item_changes_the_filter_at_earlier_positions(data: TrainData) -> None:
    """The trap: in one pass over a window every position but the last has read what it is to predict."""
    built = model(data)
    changed = published_window(built, [0, 4, 8, 11]) - published_window(built, [0, 4, 8, 2])
    assert (changed[2:5].abs().amax(dim=1) > 1e-3).all()


def test_a_later_item_changes_no_earlier_state_and_padding_nothing(data: TrainData) -> None:
    built = model(data)
    check_causality(built, HISTORY)
    check_padding(built, HISTORY)
    items = built.items(data.catalog)
    with torch.no_grad():
        states = built.states(HISTORY, items)
        torch.testing.assert_close(built.last_states(HISTORY[:1, :2], items)[0], states[0, 1])
        torch.testing.assert_close(built.last_states(HISTORY, items)[2], states[2, 0])


def test_the_state_before_a_target_does_not_depend_on_it(data: TrainData) -> None:
    built = model(data)
    items = built.items(data.catalog)
    leaves = items.inputs.detach().requires_grad_()
    states = built.last_states(HISTORY, type(items)(leaves, items.outputs))
    (gradient,) = torch.autograd.grad(states.square().sum() + states.sum(), leaves)
    met = torch.zeros(ITEMS, dtype=torch.bool)
    met[HISTORY[HISTORY >= 0]] = True
    assert gradient[met].abs().sum(dim=1).all()
    assert not gradient[~met].any()


def test_the_loss_is_cross_entropy_over_warm_items(data: TrainData) -> None:
    built = model(data)
    warm = ITEMS - COLD
    with torch.no_grad():
        states = built.last_states(HISTORY, built.items(data.catalog))
        expected = F.cross_entropy(states @ built.table[:warm].T, TARGETS.squeeze(1))
        torch.testing.assert_close(built.loss(Steps(HISTORY, TARGETS))["softmax"], expected)
        others = torch.tensor([[2], [10], [20]])
        own, other = ((states * built.table[rows.squeeze(1)]).sum(dim=1) for rows in (TARGETS, others))
        bce = -(torch.sigmoid(own).log() + (1 - torch.sigmoid(other)).log()).mean()
        torch.testing.assert_close(built.loss(Steps(HISTORY, TARGETS, others))["bce"], bce)


@pytest.mark.parametrize("loss", ["softmax", "bce"])
def test_batches_are_all_prefixes(data: TrainData, loss: str) -> None:
    built = model(data, loss=loss, length=3)
    batches = list(built.batches(data, 16, np.random.default_rng(0)))
    assert len(batches) == built.n_batches(data, 16)
    expected = []
    for user in range(data.n_users):
        items = data.sequences.items[data.sequences.offsets[user] : data.sequences.offsets[user + 1]].tolist()
        expected += [(*items[max(0, t - 3) : t], items[t]) for t in range(1, len(items))]
    seen = []
    for batch in batches:
        assert (batch.negatives is None) == (loss == "softmax")
        for k, (row, targets) in enumerate(zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)):
            (place,) = [place for place, target in enumerate(targets) if target >= 0]
            seen.append((*[item for item in row if item >= 0], targets[place]))
            if batch.negatives is not None:
                assert int(batch.negatives[k, place]) in set(range(ITEMS - COLD)) - set(seen[-1])
    assert sorted(seen) == sorted(expected)


def test_the_last_window_alone(data: TrainData) -> None:
    built = model(data, long_histories="last", length=2)
    lengths = data.sequences.lengths
    expected = int(np.minimum(lengths - 1, 2).clip(0).sum())
    targets = prefix_targets(data.sequences, 2)
    assert len(targets) == expected < len(prefix_targets(data.sequences))
    user = np.searchsorted(data.sequences.offsets, targets, side="right") - 1
    assert (data.sequences.offsets[user + 1] - targets <= 2).all()
    batches = list(built.batches(data, 16, np.random.default_rng(0)))
    assert sum(len(batch.targets) for batch in batches) == expected
    assert len(batches) == built.n_batches(data, 16)


def test_the_last_items_of_a_long_history_are_served(data: TrainData) -> None:
    built = model(data, length=3)
    scorer = built.scorer(data.catalog)
    torch.testing.assert_close(scorer(Query(history=HISTORY[:1])), scorer(Query(history=HISTORY[:1, 1:])))
    with torch.no_grad():
        expected = published_window(built, [4, 8, 2])[-1].float() @ built.known(built.table, data.catalog).T
    torch.testing.assert_close(scorer(Query(history=HISTORY[:1]))[0], expected, atol=1e-4, rtol=1e-4)


def test_alpha_is_the_share_of_the_filter(data: TrainData) -> None:
    x, heard = torch.randn(2, 6, 8), heard_by(torch.ones(2, 6, dtype=torch.bool))
    torch.manual_seed(0)
    for alpha, silent in ((1.0, "query"), (0.0, "root_beta")):
        layer = BSARecLayer(BSARecConfig(dim=8, length=6, hidden=16, dropout=0.0, alpha=alpha))
        layer(x, heard, slice(None)).square().sum().backward()
        gradients = {name: value.grad for name, value in layer.named_parameters() if value.grad is not None}
        assert all(not value.any() for name, value in gradients.items() if name.startswith(silent))
        assert any(value.any() for value in gradients.values())


def test_cold_and_added_items_have_the_mean_vector(data: TrainData) -> None:
    built = model(data)
    bigger = data.catalog.extend(pl.DataFrame({"item": [100]}), {})
    scores = built.scorer(bigger)(Query(history=HISTORY))
    assert scores.shape == (3, ITEMS + 1)
    mean = scores[:, : ITEMS - COLD].mean(dim=1, keepdim=True).expand(-1, COLD + 1)
    torch.testing.assert_close(scores[:, ITEMS - COLD :], mean, atol=1e-5, rtol=1e-5)
    assert torch.isfinite(built.scorer(bigger)(Query(history=torch.tensor([[0, 30, 29]])))).all()


def test_content_starts_the_table(data: TrainData) -> None:
    assert not torch.equal(model(data, id_init="content").table, model(data).table)


def test_bad_settings(data: TrainData) -> None:
    for bad in ({"alpha": 1.5}, {"alpha": -0.1}, {"cutoff": -1}, {"heads": 3}, {"length": 0}):
        with pytest.raises(ConfigError):
            model(data, **bad)
