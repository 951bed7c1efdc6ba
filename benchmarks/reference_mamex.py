"""A plain MAMEX training step, written from the published equations: the oracle of parity tests and of speed ratios.

Every expert is a Linear of its own, every item is encoded afresh wherever the loss asks for item vectors: once for the
positives, once for the negatives, once for the terms over all items. The model shares no code with modalmix.
"""

import time

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modalmix.data.samplers import triples
from modalmix.data.split import TrainData


class ReferenceMamex(nn.Module):
    """X_m: [items, D_m] features, rows of length 1. `dropout` is that of the fusion gate."""

    def __init__(
        self, features: list[Tensor], users: int, dim: int = 128, experts: int = 4, k: int = 2, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.features, self.k = features, k
        self.user = nn.Embedding(users, dim)
        nn.init.normal_(self.user.weight, std=0.1)
        self.experts = nn.ModuleList(
            nn.ModuleList(nn.Linear(x.shape[1], dim) for _ in range(experts)) for x in features
        )
        self.gates = nn.ModuleList(nn.Linear(x.shape[1], experts) for x in features)
        self.W1 = nn.Linear(len(features) * dim, dim)
        self.W2 = nn.Linear(dim, len(features))
        self.dropout = nn.Dropout(dropout)

    def encode(self) -> tuple[Tensor, list[Tensor], list[Tensor], Tensor]:
        """h, [h_m], [l_m], pi of all items."""
        parts, gates = [], []
        for x, experts, gate in zip(self.features, self.experts, self.gates, strict=True):
            logits = gate(x)
            largest, chosen = logits.topk(self.k, dim=1)
            w = F.softmax(largest, dim=1)
            said = torch.stack([expert(x) for expert in experts], dim=1)
            picked = said.gather(1, chosen.unsqueeze(2).expand(-1, -1, said.shape[2]))
            parts.append((w.unsqueeze(2) * picked).sum(dim=1))
            gates.append(logits)
        a = self.W2(self.dropout(torch.relu(self.W1(torch.cat(parts, dim=1)))))
        pi = F.softmax(a, dim=1)
        h = sum(pi[:, m : m + 1] * part for m, part in enumerate(parts))
        return h, parts, gates, pi

    def terms(self, user: Tensor, positive: Tensor, negative: Tensor) -> dict[str, Tensor]:
        """The published terms, weighted, of a batch of triples."""
        e_u, h_i, h_j = self.user(user), self.encode()[0][positive], self.encode()[0][negative]
        h, parts, gates, pi = self.encode()
        squared = e_u.pow(2).sum(dim=1) + h_i.pow(2).sum(dim=1) + h_j.pow(2).sum(dim=1)
        terms = {
            "bpr": F.softplus((e_u * h_j).sum(dim=1) - (e_u * h_i).sum(dim=1)).mean(),
            "reg": 1e-6 * squared.mean(),
            "align": sum(F.mse_loss(part, h) for part in parts),
        }
        for m, logits in enumerate(gates):
            terms[f"balance/{m}"] = uniform_divergence(F.softmax(logits, dim=1).mean(dim=0))
        return terms | {"balance/fusion": uniform_divergence(pi.mean(dim=0))}


def uniform_divergence(g: Tensor) -> Tensor:
    """KL(Uniform || g)."""
    u = torch.full_like(g, 1.0 / len(g))
    return (u * (u / g).log()).sum()


def step_seconds(data: TrainData, steps: int, batch_size: int = 2048) -> list[float]:
    """CPU seconds of each of `steps` training steps: forward, backward, Adam."""
    torch.manual_seed(0)
    features = [
        F.normalize(torch.from_numpy(modality.matrix()), dim=1) for modality in data.catalog.modalities.values()
    ]
    model = ReferenceMamex(features, data.n_users)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    everything = np.ones(data.n_items, dtype=bool)
    batches = triples(data.interactions, batch_size, np.random.default_rng(0), everything)
    seconds = []
    for _, batch in zip(range(steps), batches, strict=False):
        start = time.process_time()
        optimizer.zero_grad()
        terms = model.terms(*(torch.from_numpy(rows) for rows in batch))
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        seconds.append(time.process_time() - start)
    return seconds
