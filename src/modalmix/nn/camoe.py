"""Category-guided attentive mixture of experts: every expert hears all modalities, every modality chooses by attention.

CAMMSR (Xu et al., ICDE 2026, arXiv 2603.04320) publishes a dense mixture fed from the modality stack, an attentive gate
fed by the modality itself, and e~_m = e_m + w_m e^_m; the formula of the gate is ours (docs/models/cammsr.md).
"""

from typing import Literal, final

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


@final
class CAMoE(nn.Module):
    """e^_m = sum_k g_k^m E_k^m(u), u = [e_1; ..; e_M], E_k: R^{M d} -> R^{M d} in blocks of d, one a modality.

    attention: g^m = softmax_k((W_q^m e_m) . a_k^m / sqrt(d)), a_k^m learned keys; linear: g^m = softmax_k(W_g^m e_m).
    An absent modality is zeros in u, and its own e^_m is zeros.
    """

    def __init__(
        self,
        modalities: int,
        dim: int,
        experts: int,
        hidden: int = 0,
        dropout: float = 0.0,
        gate: Literal["attention", "linear"] = "attention",
    ) -> None:
        """`hidden` 0: an expert is a Linear; else Linear-GELU-Dropout-Linear of that width."""
        super().__init__()
        self.modalities, self.dim, self.n_experts = modalities, dim, experts
        wide = modalities * dim
        if hidden:
            self.into: nn.Module | None = nn.Linear(wide, experts * hidden)
            self.between = nn.Sequential(nn.GELU(), nn.Dropout(dropout))
            self.out_weight = nn.Parameter(torch.randn(experts, hidden, wide) / hidden**0.5)
            self.out_bias = nn.Parameter(torch.zeros(experts, 1, wide))
        else:
            self.into = None
            self.linear = nn.Linear(wide, experts * wide)
        self.gate = gate
        if gate == "attention":
            self.query = nn.Parameter(torch.randn(modalities, dim, dim) / dim**0.5)
            self.keys = nn.Parameter(torch.randn(modalities, experts, dim))
        else:
            self.choose = nn.Parameter(torch.randn(modalities, dim, experts) / dim**0.5)

    def start(self, std: float) -> None:
        """N(0, std) for the weights of experts and gates, biases 0, in place of deviations that follow their width."""
        for name, parameter in self.named_parameters():
            nn.init.zeros_(parameter) if name.endswith("bias") else nn.init.normal_(parameter, std=std)

    def forward(
        self, e: Float[Tensor, "modalities rows dim"], present: Bool[Tensor, "rows modalities"]
    ) -> Float[Tensor, "modalities rows dim"]:
        """e^ of each modality."""
        there = present.T.unsqueeze(2)
        said = self.experts((e * there).transpose(0, 1).flatten(1))
        mixed = torch.einsum("mrk,kmrd->mrd", self.gates(e), said)
        return mixed * there

    def experts(self, u: Float[Tensor, "rows wide"]) -> Float[Tensor, "experts modalities rows dim"]:
        """E_k^m(u) of every expert and block."""
        if self.into is None:
            blocks = self.linear(u).view(len(u), self.n_experts, self.modalities, self.dim)
            return blocks.permute(1, 2, 0, 3)
        hidden = self.between(self.into(u)).view(len(u), self.n_experts, -1).transpose(0, 1)
        out = torch.baddbmm(self.out_bias, hidden, self.out_weight)
        return out.view(self.n_experts, len(u), self.modalities, self.dim).transpose(1, 2)

    def gates(self, e: Float[Tensor, "modalities rows dim"]) -> Float[Tensor, "modalities rows experts"]:
        """g of each modality: rows sum to 1."""
        if self.gate == "linear":
            return torch.bmm(e, self.choose).softmax(dim=2)
        logits = torch.bmm(torch.bmm(e, self.query), self.keys.transpose(1, 2))
        return (logits / self.dim**0.5).softmax(dim=2)
