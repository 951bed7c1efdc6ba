"""A mixture of experts that were fitted in closed form: only its gates learn by gradients."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from modalmix.nn.evidence import EvidenceGate, KernelExperts, evidence
from modalmix.nn.experts import Mixture
from modalmix.nn.gates import top_k_softmax

_BLOCK = 1 << 14  # items whose kernel is worked out at once


@final
class TaughtMixture(nn.Module):
    """For each modality m: h_m = sum over its top-k experts e of w_me s_me f_me(x); and logits of the modalities.

    f_me: kernel ridges (KernelExperts); w, and the logits, come from an EvidenceGate; s_me > 0 is learnt: a regression
    shrinks what it says, the more the less it knows.
    """

    def __init__(
        self, landmarks: Sequence[int], dim: int, experts: int, top_k: int, hidden: int, dropout: float
    ) -> None:
        """`landmarks` of each modality: how many items its kernels are spanned by."""
        super().__init__()
        self.top_k, self.dim, self.n_experts = top_k, dim, experts
        self.kernels = nn.ModuleList(KernelExperts(experts, count, dim) for count in landmarks)
        self.gate = EvidenceGate(len(landmarks), experts, hidden, dropout)
        self.log_scale = nn.Parameter(torch.zeros(len(landmarks), experts))

    def fit(
        self,
        features: Sequence[Float[Tensor, "items features"]],
        learnable: Bool[Tensor, "items modalities"],
        targets: Float[Tensor, "items dim"],
        importance: Float[Tensor, " items"],
        fold: Int[Tensor, " items"],
        strengths: tuple[float, ...],
        seed: int,
    ) -> Float[Tensor, "items modalities experts dim"]:
        """Fit every expert; what each says of the learnable items when fitted without their fold, zeros elsewhere."""
        said = targets.new_zeros(len(targets), len(features), self.n_experts, self.dim)
        for m, (x, kernels) in enumerate(zip(features, self._kernels(), strict=True)):
            rows = torch.nonzero(learnable[:, m]).squeeze(1)
            said[rows, m] = kernels.fit(x, rows, targets[rows], importance[rows], fold[rows], strengths, seed)
        return said

    def standardise(
        self, said: Float[Tensor, "items modalities experts dim"], learnable: Bool[Tensor, "items modalities"]
    ) -> None:
        """Have the gate standardise its evidence by what was said of these items."""
        some = learnable.any(dim=1)
        self.gate.standardise(evidence(said[some], learnable[some]))

    def say(
        self,
        features: Sequence[Float[Tensor, "items features"]],
        landmarks_from: Sequence[Float[Tensor, "warm features"]],
        has: Bool[Tensor, "items modalities"],
        rows: Int[Tensor, " rows"],
    ) -> Float[Tensor, "rows modalities experts dim"]:
        """What each expert says of the rows, zeros where they lack the modality."""
        said = self.log_scale.new_zeros(len(rows), len(features), self.n_experts, self.dim)
        for m, (x, kernels) in enumerate(zip(features, self._kernels(), strict=True)):
            landmarks = landmarks_from[m][kernels.landmarks]
            for block in torch.nonzero(has[rows, m]).squeeze(1).split(_BLOCK):
                said[block, m] = kernels(x[rows[block]], landmarks)
        return said

    def forward(
        self,
        said: Float[Tensor, "rows modalities experts dim"],
        has: Bool[Tensor, "rows modalities"],
        present: Bool[Tensor, "rows modalities"],
    ) -> tuple[list[Mixture], Float[Tensor, "rows modalities"]]:
        """The mixture of each modality, and the logits of the modalities.

        `has`: what the gates see; `present`: which modalities have a say.
        """
        of_experts, of_modalities = self.gate(evidence(said, has))
        mixtures = []
        for logits, scale, of_one, here in zip(
            of_experts.unbind(dim=1), self.log_scale.exp(), said.unbind(dim=1), present.unbind(dim=1), strict=True
        ):
            weights = top_k_softmax(logits, self.top_k) * here.unsqueeze(1)
            mixtures.append(Mixture(torch.einsum("re,red->rd", weights * scale, of_one), logits, weights))
        return mixtures, of_modalities

    def _kernels(self) -> list[KernelExperts]:
        return [one for one in self.kernels if isinstance(one, KernelExperts)]
