"""Kernel experts against the ridge they are made of; evidence, gates and profiles by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from modalmix.nn.evidence import EvidenceGate, KernelExperts, Profile, evidence, n_signals, widths
from modalmix.nn.ridge import fit_ridge

STRENGTHS = (0.1, 1.0)


def world(items: int = 40) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Features, targets that follow them, and four folds."""
    generator = torch.Generator().manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(items, 6, generator=generator), dim=1)
    return x, torch.sin(3.0 * x @ torch.randn(6, 3, generator=generator)), torch.arange(items) % 4


def fitted(targets: torch.Tensor, strengths: tuple[float, ...] = STRENGTHS) -> tuple[KernelExperts, torch.Tensor]:
    """Three experts on the even items, spanned by all of them; and what they say of them unseen."""
    x, _, fold = world()
    rows, kernels = torch.arange(0, 40, 2), KernelExperts(3, 20, 3)
    return kernels, kernels.fit(x, rows, targets[rows], torch.ones(20), fold[rows] // 2, strengths, seed=0)


def test_widths_are_even_in_the_exponent() -> None:
    assert widths(1) == [1.0]
    assert widths(2) == [0.5, 2.0]
    assert widths(3) == [0.5, 1.0, 2.0]
    assert widths(5) == pytest.approx([0.5, 2**-0.5, 1.0, 2**0.5, 2.0])


def test_each_expert_is_the_ridge_of_its_width() -> None:
    x, targets, fold = world()
    kernels, unseen = fitted(targets, (0.7,))
    rows = torch.arange(0, 40, 2)
    assert torch.equal(kernels.landmarks, rows)
    assert unseen.shape == (20, 3, 3)
    for e, width in enumerate((0.5, 1.0, 2.0)):
        alone = fit_ridge(x[rows], torch.arange(20), targets[rows], fold[rows] // 2, width, (0.7,))
        torch.testing.assert_close(unseen[:, e], alone.unseen[0])
        kernel = torch.exp(-width * torch.cdist(x[1::2], x[rows]).square())
        torch.testing.assert_close(kernels(x[1::2], x[rows])[:, e], kernel @ alone.weights[0], atol=1e-3, rtol=1e-3)


def test_an_expert_takes_the_strength_that_predicts_unseen_rows_best() -> None:
    x, _, _ = world()
    targets = 5.0 * x[:, :3]
    noise = torch.randn(targets.shape, generator=torch.Generator().manual_seed(1))
    for wanted, best in ((targets, 1e-2), (noise, 1e3)):
        chosen, _ = fitted(wanted, (1e3, 1e-2))
        alone, _ = fitted(wanted, (best,))
        torch.testing.assert_close(chosen(x, x[::2]), alone(x, x[::2]))


def test_the_target_of_a_row_does_not_reach_what_is_said_of_it_unseen() -> None:
    _, targets, fold = world()
    changed = targets.clone()
    changed[4] = 30.0
    before, after = (fitted(one, (1.0,))[1] for one in (targets, changed))
    same = fold[::2] == fold[4]
    torch.testing.assert_close(after[same], before[same], atol=1e-3, rtol=0)
    assert float((after - before)[~same].abs().max()) > 1.0


def test_far_from_all_it_has_seen_an_expert_says_less() -> None:
    x, targets, _ = world()
    kernels, _ = fitted(targets)
    far = kernels(10.0 * x, x[::2])
    assert float(far.abs().max()) < 1e-6


def test_evidence_by_hand() -> None:
    """Two modalities of one expert: lengths, then the cosine, then presence."""
    said = torch.tensor([[[[3.0, 4.0]], [[0.0, 2.0]]], [[[1.0, 0.0]], [[0.0, 0.0]]]])
    present = torch.tensor([[True, True], [True, False]])
    expected = torch.tensor([[5.0, 2.0, 0.8, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0, 0.0]])
    torch.testing.assert_close(evidence(said, present), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("modalities", "experts"), [(1, 1), (1, 4), (2, 1), (2, 4), (6, 3)])
def test_the_number_of_signals(modalities: int, experts: int) -> None:
    said, present = torch.randn(5, modalities, experts, 3), torch.ones(5, modalities, dtype=torch.bool)
    signals = evidence(said, present)
    assert signals.shape == (5, n_signals(modalities, experts))
    of_experts, of_modalities = EvidenceGate(modalities, experts, 7, 0.0)(signals)
    assert of_experts.shape == (5, modalities, experts)
    assert of_modalities.shape == (5, modalities)


def test_a_gate_starts_even_handed_and_learns() -> None:
    gate = EvidenceGate(2, 3, 8, 0.0)
    signals = torch.randn(9, n_signals(2, 3))
    of_experts, of_modalities = gate(signals)
    assert not bool(of_experts.any())
    assert not bool(of_modalities.any())
    (of_experts.square().sum() + (of_modalities - 1).square().sum()).backward()
    assert bool(gate.out.weight.grad.any())


def test_a_gate_is_the_perceptron_it_says() -> None:
    torch.manual_seed(0)
    gate, signals = EvidenceGate(2, 1, 4, 0.0), torch.randn(9, n_signals(2, 1)) * 3 + 5
    torch.nn.init.normal_(gate.out.weight)
    gate.standardise(signals)
    z = (signals - signals.mean(dim=0)) / signals.std(dim=0, correction=0)
    logits = (z @ gate.hidden.weight.T + gate.hidden.bias).relu() @ gate.out.weight.T + gate.out.bias
    of_experts, of_modalities = gate(signals)
    torch.testing.assert_close(of_experts.squeeze(2), logits[:, [0, 2]], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(of_modalities, logits[:, [1, 3]], atol=1e-5, rtol=1e-4)


def test_a_constant_signal_says_nothing_even_when_it_changes_later() -> None:
    gate, signals = EvidenceGate(1, 1, 4, 0.0), torch.tensor([[1.0, 1.0], [3.0, 1.0]])
    torch.nn.init.normal_(gate.out.weight)
    gate.standardise(signals)
    for one, other in zip(gate(signals), gate(signals - torch.tensor([0.0, 1.0])), strict=True):
        torch.testing.assert_close(one, other)


def test_a_profile_is_halfway_whitened_components() -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((50, 5)) * np.array([4.0, 2.0, 1.0, 0.5, 0.1])).astype(np.float32) + 3.0
    profile = Profile(5, 3)
    profile.fit(torch.from_numpy(x))
    components = PCA(3, svd_solver="full").fit(x.astype(np.float64))
    y = components.transform(x) / x.astype(np.float64).__matmul__(components.components_.T).std(axis=0) ** 0.5
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    places = profile(torch.from_numpy(x), torch.ones(50, dtype=torch.bool))
    np.testing.assert_allclose(places @ places.T, y @ y.T, atol=1e-3)  # the sign of a component is free


def test_who_is_absent_has_no_place_and_no_variance_gives_zeros() -> None:
    x = torch.randn(10, 4)
    profile = Profile(4, 4)
    profile.fit(x)
    places = profile(x, torch.arange(10) != 3)
    assert not bool(places[3].any())
    torch.testing.assert_close(places.norm(dim=1)[4:], torch.ones(6))
    same = Profile(4, 2)
    same.fit(torch.full((10, 4), 0.5))
    assert torch.equal(same(torch.full((10, 4), 0.5), torch.ones(10, dtype=torch.bool)), torch.zeros(10, 2))
    one = Profile(4, 2)
    one.fit(x[:1])
    assert bool(one(x, torch.ones(10, dtype=torch.bool)).isfinite().all())


def test_directions_that_rows_do_not_span_have_no_place() -> None:
    """Fewer rows than components: what is left is rounding, and its root must not be made large."""
    rows = torch.nn.functional.normalize(torch.randn(10, 64, generator=torch.Generator().manual_seed(0)), dim=1)
    profile = Profile(64, 32)
    profile.fit(rows)
    assert int((profile.basis.norm(dim=0) > 0).sum()) == 9


def test_evidence_holds_few_vectors_of_pairs_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said, largest = torch.randn(50, 3, 4, 32), 0
    whole = evidence(said, torch.ones(50, 3, dtype=torch.bool))
    monkeypatch.setattr("modalmix.nn.evidence._AT_ONCE", 7 * 66 * 32)  # seven rows of pairs

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            largest = max([largest, *(one.numel() for one in tree_leaves(out) if isinstance(one, torch.Tensor))])
            return out

    with Sizes():
        found = evidence(said, torch.ones(50, 3, dtype=torch.bool))
    assert largest == said.numel()
    assert torch.equal(found, whole)
