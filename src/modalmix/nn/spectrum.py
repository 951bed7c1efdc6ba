"""Fusion of modalities in the frequency domain."""

import functools
from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


@final
class SpectrumFusion(nn.Module):
    """Filter the spectrum of each modality's vectors, and the product of all spectra: M streams in, M + 1 out.

    F_m = rfft(h_m) over the dim of a row, orthonormal;  c_m = irfft(W_m * F_m),  c_f = irfft(W_f * prod over m of F_m)
    with learned complex W of dim // 2 + 1 frequencies, real and imaginary parts starting at N(0, 1). A product of
    spectra is a circular convolution. Source: SMORE (Ong & Khong 2025), spectrum modality fusion, for two modalities.
    Ours: any number of them, and the product runs over those that the row has; without any it is 1 at each frequency.
    """

    def __init__(self, modalities: int, dim: int) -> None:
        super().__init__()
        self.filters = nn.Parameter(torch.randn(modalities + 1, dim // 2 + 1, 2))

    def forward(
        self, vectors: Float[Tensor, "modalities rows dim"], present: Bool[Tensor, "rows modalities"]
    ) -> Float[Tensor, "streams rows dim"]:
        """c_1, ..., c_M, c_f; the c_m of a row without m is to be ignored."""
        spectra = torch.fft.rfft(vectors, norm="ortho")
        counted = torch.where(present.T.unsqueeze(2), spectra, 1.0)
        product = functools.reduce(torch.mul, counted.unbind())
        filters = torch.view_as_complex(self.filters).unsqueeze(1)
        return torch.fft.irfft(torch.cat([spectra, product.unsqueeze(0)]) * filters, n=vectors.shape[2], norm="ortho")
