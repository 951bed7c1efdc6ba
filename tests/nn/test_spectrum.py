"""Spectrum fusion by hand, against plain Fourier sums, and against circular convolution."""

import math

import numpy as np
import pytest
import torch

from modalmix.nn.spectrum import SpectrumFusion


def fusion(modalities: int, dim: int, filters: float | None = None) -> SpectrumFusion:
    """With `filters`, each W is that real number at every frequency."""
    torch.manual_seed(0)
    built = SpectrumFusion(modalities, dim)
    if filters is not None:
        with torch.no_grad():
            built.filters.zero_()
            built.filters[..., 0] = filters
    return built


def everywhere(vectors: torch.Tensor) -> torch.Tensor:
    return torch.ones(vectors.shape[1], len(vectors), dtype=torch.bool)


def test_by_hand() -> None:
    # dim 2: F = (a + b, a - b) / sqrt 2 and its own inverse; filters W = 2 at both frequencies
    vectors = torch.tensor([[[1.0, 3.0]], [[2.0, 0.0]]])
    first, second, fused = fusion(2, 2, filters=2.0)(vectors, everywhere(vectors)).detach().squeeze(1)
    assert first.tolist() == pytest.approx([2.0, 6.0])
    assert second.tolist() == pytest.approx([4.0, 0.0], abs=1e-6)
    # F_1 F_2 = (4, -2)/sqrt 2 * (2, 2)/sqrt 2 = (4, -2); times 2 = (8, -4); back: (8 - 4, 8 + 4) / sqrt 2
    assert fused.tolist() == pytest.approx([4 / math.sqrt(2), 12 / math.sqrt(2)])


def slow(vectors: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Sums over complex exponentials in float64, frequency by frequency."""
    dim = vectors.shape[2]
    angle = np.exp(-2j * np.pi * np.outer(np.arange(dim), np.arange(dim)) / dim) / math.sqrt(dim)
    spectra = vectors @ angle
    spectra = np.concatenate([spectra, spectra.prod(axis=0, keepdims=True)])
    half = filters[..., 0] + 1j * filters[..., 1]
    full = np.zeros((len(filters), dim), dtype=complex)
    full[:, : dim // 2 + 1] = half
    full[:, 0] = full[:, 0].real  # a real signal has no imaginary part at frequency 0, nor at the middle one
    if dim % 2 == 0:
        full[:, dim // 2] = full[:, dim // 2].real
    for k in range(dim // 2 + 1, dim):
        full[:, k] = full[:, dim - k].conj()
    return ((spectra * full[:, None]) @ angle.conj()).real


@pytest.mark.parametrize("modalities", [1, 2, 3, 6])
@pytest.mark.parametrize("dim", [1, 2, 7, 8])
def test_equals_plain_fourier_sums(modalities: int, dim: int) -> None:
    built, vectors = fusion(modalities, dim), torch.randn(modalities, 5, dim)
    out = built(vectors, everywhere(vectors))
    assert out.shape == (modalities + 1, 5, dim)
    expected = slow(vectors.double().numpy(), built.filters.detach().double().numpy())
    torch.testing.assert_close(out, torch.from_numpy(expected).float(), atol=1e-4, rtol=1e-4)


def test_filters_of_one_give_the_vectors_back_and_their_circular_convolution() -> None:
    vectors = torch.randn(2, 4, 6)
    out = fusion(2, 6, filters=1.0)(vectors, everywhere(vectors)).detach()
    torch.testing.assert_close(out[:2], vectors, atol=1e-5, rtol=1e-5)
    a, b = vectors.tolist()
    for row in range(4):
        for n in range(6):
            convolved = sum(a[row][k] * b[row][(n - k) % 6] for k in range(6)) / math.sqrt(6)
            assert float(out[2, row, n]) == pytest.approx(convolved, abs=1e-5)


def test_an_absent_modality_is_no_factor() -> None:
    built, vectors = fusion(2, 8), torch.randn(2, 3, 8)
    present = torch.tensor([[True, True], [True, False], [False, False]])
    fused, both = built(vectors, present)[2], built(vectors, everywhere(vectors))[2]
    alone = torch.fft.irfft(torch.fft.rfft(vectors[0, 1], norm="ortho") * torch.view_as_complex(built.filters)[2], n=8)
    torch.testing.assert_close(fused[0], both[0])
    torch.testing.assert_close(fused[1], alone * math.sqrt(8))
    changed = vectors.clone()
    changed[1, 1:] = 9.0
    changed[0, 2] = 9.0
    torch.testing.assert_close(built(changed, present)[2], fused)
    assert torch.isfinite(fused).all()


def test_gradients_equal_finite_differences() -> None:
    built = fusion(2, 5).double()
    vectors = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    present = torch.tensor([[True, True], [True, False], [False, False]])
    filters = built.filters.detach().clone().requires_grad_()

    def of(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(built, {"filters": w}, (x, present))

    assert torch.autograd.gradcheck(of, (vectors, filters))


def test_filters_start_as_standard_normals() -> None:
    filters = fusion(5, 400).filters.detach()
    assert filters.shape == (6, 201, 2)
    assert float(filters.mean()) == pytest.approx(0.0, abs=0.1)
    assert float(filters.std()) == pytest.approx(1.0, abs=0.1)
