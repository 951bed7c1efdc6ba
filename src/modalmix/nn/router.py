"""Routing by user-item pair: the logit of every expert for every pair.

MAGNET (arXiv 2602.20723) publishes that routing is by pair, sparse, with history-induced modality cues; the bilinear
form is ours (docs/models/magnet.md).
"""

from typing import Literal, NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from modalmix.nn.linear import times_transposed

MASKED = -1e4  # a logit so low that its softmax is 0 in float32, and that arithmetic stays finite
_FIRST_WINS = 1e-5  # experts that tie are told apart, everywhere alike: the earlier one wins
RouterKind = Literal["bilinear", "mlp", "user", "item", "uniform"]


class Side(NamedTuple):
    """Users, or items, as the router sees them. `vectors` meet in an inner product (of the mlp: a sum), per expert on
    the user's side, shared on the item's; `bias` is what an item adds to the logits by itself, MASKED where it has no
    signal of the expert."""

    vectors: Tensor
    bias: Tensor | None = None

    def rows(self, rows: Tensor | slice) -> "Side":
        """Some of them."""
        return Side(self.vectors[rows], None if self.bias is None else self.bias[rows])


@final
class PairRouter(nn.Module):
    """logit_e(u,i) = <A_e p_u, p_i> + alpha_e p_u + gamma_e p_i + sum_m w_em <q_u^m, q_i^m> + b_e.

    p = W_p [z^b || z^m .. || log(1 + degree) || presence], its own W_p for users and items; q^m = normalize(W_q^m z^m):
    how much the pair agrees in signal m. kind: mlp puts a perceptron over [p_u || p_i]; user, item see one side only;
    uniform sees nothing. With the cues "evidence" p is made of degree and presence alone: a gate that sees who a node
    is remembers training pairs.
    """

    def __init__(
        self,
        kind: RouterKind,
        signals: int,
        dim: int,
        experts: int,
        rank: int = 16,
        agreement: int = 8,
        hidden: int = 32,
        temperature: float = 1.0,
        cues: Literal["signals", "evidence"] = "signals",
    ) -> None:
        super().__init__()
        self.kind, self.experts, self.temperature = kind, experts, temperature
        self.register_buffer("order", -_FIRST_WINS * torch.arange(experts), persistent=False)
        self.order: Tensor
        self.cues = cues
        summary = (signals * dim if cues == "signals" else 0) + 1 + signals
        if kind == "uniform":
            return
        if kind != "item":
            self.user_summary = nn.Linear(summary, rank)
            self.user_weight = nn.Parameter(0.01 * torch.randn(experts, rank))
        if kind != "user":
            self.item_summary = nn.Linear(summary, rank)
            self.item_weight = nn.Parameter(0.01 * torch.randn(experts, rank))
        self.bias = nn.Parameter(torch.zeros(experts))
        if kind == "bilinear":
            self.meet = nn.Parameter(0.01 * torch.randn(experts, rank, rank))
            self.signal = nn.Parameter(torch.randn(signals, dim, agreement) / dim**0.5)
            self.agreement = nn.Parameter(torch.zeros(experts, signals))
        if kind == "mlp":
            self.user_hidden = nn.Linear(rank, hidden)
            self.item_hidden = nn.Linear(rank, hidden, bias=False)
            self.out = nn.Parameter(torch.randn(experts, hidden) / hidden**0.5)

    def users(
        self, z: Float[Tensor, "signals rows dim"], degree: Float[Tensor, " rows"], present: Float[Tensor, "rows s"]
    ) -> Side:
        """The users' side: vectors [rows, experts, k], of the mlp [rows, hidden]; what an expert adds is in them."""
        if self.kind in ("uniform", "item"):
            return Side(z.new_zeros(z.shape[1], self.experts, 1))
        p = self.user_summary(self._summary(z, degree, present))
        alone = (p @ self.user_weight.T).unsqueeze(2)
        if self.kind == "user":
            return Side(alone)
        if self.kind == "mlp":
            return Side(torch.cat([self.user_hidden(p), alone.squeeze(2)], dim=1))
        met = torch.einsum("rk,ekl->rel", p, self.meet)
        q = self._agreement(z)
        cue = (self.agreement[None, :, :, None] * q[:, None]).flatten(2)
        return Side(torch.cat([met, cue, alone], dim=2))

    def items(
        self,
        z: Float[Tensor, "signals rows dim"],
        degree: Float[Tensor, " rows"],
        present: Float[Tensor, "rows s"],
        allowed: Tensor,
    ) -> Side:
        """The items' side: vectors [rows, k], bias [rows, experts]."""
        bias = self.order + torch.where(allowed, 0.0, MASKED)
        if self.kind == "uniform":
            return Side(z.new_zeros(z.shape[1], 1), bias)
        bias = bias + self.bias
        if self.kind == "user":
            return Side(z.new_ones(z.shape[1], 1), bias)
        p = self.item_summary(self._summary(z, degree, present))
        bias = bias + p @ self.item_weight.T
        if self.kind == "item":
            return Side(z.new_zeros(z.shape[1], 1), bias)
        if self.kind == "mlp":
            return Side(self.item_hidden(p), bias)
        return Side(torch.cat([p, self._agreement(z).flatten(1), p.new_ones(len(p), 1)], dim=1), bias)

    def pairs(self, users: Side, items: Side) -> Float[Tensor, "lists*users experts"]:
        """Logits of each user with the items in the same place of each list; one list is row-aligned pairs."""
        assert items.bias is not None
        lists = items.vectors.unflatten(0, (-1, len(users.vectors)))
        if self.kind == "mlp":
            hidden = F.gelu(users.vectors[:, : -self.experts] + lists)
            logits = hidden @ self.out.T + users.vectors[:, -self.experts :]
        else:  # each user's vectors are read once, for all lists
            logits = torch.bmm(lists.transpose(0, 1), users.vectors.transpose(1, 2)).transpose(0, 1)
        return (logits.flatten(0, 1) + items.bias) / self.temperature

    def every(self, users: Side, items: Side) -> Float[Tensor, "experts users items"]:
        """Logits of all users with all items, without gradients. Take few users at a time."""
        assert items.bias is not None
        if self.kind == "mlp":
            met, alone = users.vectors[:, : -self.experts], users.vectors[:, -self.experts :]
            hidden = F.gelu(met[:, None] + items.vectors)
            logits = (hidden @ self.out.T + alone[:, None] + items.bias).permute(2, 0, 1).contiguous()
        else:
            vectors = users.vectors.detach().transpose(0, 1)
            logits = times_transposed(vectors.flatten(0, 1), items.vectors.detach()).view(*vectors.shape[:2], -1)
            logits.add_(items.bias.detach().T.unsqueeze(1))
        return logits.div_(self.temperature) if self.temperature != 1 else logits

    def of_lists(self, users: Side, items: Side) -> Float[Tensor, "users listed experts"]:
        """Logits of each user with a list of items of their own: `items` are rows [users, listed] of a side."""
        assert items.bias is not None
        if self.kind == "mlp":  # a sum: each user meets what stands in their own row
            return self.every(users, items).permute(1, 2, 0)
        logits = torch.bmm(items.vectors, users.vectors.transpose(1, 2)).add_(items.bias)
        return logits.div_(self.temperature) if self.temperature != 1 else logits

    def _agreement(self, z: Float[Tensor, "signals rows dim"]) -> Float[Tensor, "rows signals agreement"]:
        return F.normalize(torch.bmm(z, self.signal), dim=2).transpose(0, 1)

    def _summary(self, z: Tensor, degree: Tensor, present: Tensor) -> Float[Tensor, "rows summary"]:
        evidence = torch.cat([degree.log1p().unsqueeze(1), present.to(z.dtype)], dim=1)
        if self.cues == "evidence":
            return evidence
        return torch.cat([z.transpose(0, 1).flatten(1), evidence], dim=1)
