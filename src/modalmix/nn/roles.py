"""Experts with roles: each mixes the signals of a node (behaviour and the modalities) by its own template.

MAGNET (arXiv 2602.20723) publishes the roles dominant, balanced and complementary, templates, and nine experts for
three signals; the formulas are ours (docs/models/magnet.md).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

_OWN, _PAIR = 0.8, 0.9  # weight of a dominant expert's signal; of the two of a balanced one together
_TINY = 1e-8


@dataclass(frozen=True)
class Role:
    """What an expert listens to: one signal above all, two evenly, or what the others say that one does not."""

    kind: Literal["dominant", "balanced", "complementary"]
    own: tuple[int, ...]

    def name(self, signals: tuple[str, ...]) -> str:
        """For people: "dominant text", "balanced behaviour+image"."""
        return f"{self.kind} {'+'.join(signals[one] for one in self.own)}"


def roles(signals: int) -> tuple[Role, ...]:
    """The experts for n signals: n dominant, n(n-1)/2 balanced, n complementary; 9 for 3, 5 for 2, 14 for 4.

    Two signals have one balanced expert, and what one says beside the other is what the dominant of the other says: the
    complementary ones stay. Raises ValueError for fewer than two signals.
    """
    if signals < 2:
        raise ValueError(f"{signals} signals; expected at least 2")
    every = range(signals)
    return (
        *(Role("dominant", (one,)) for one in every),
        *(Role("balanced", pair) for pair in combinations(every, 2)),
        *(Role("complementary", (one,)) for one in every),
    )


def templates(of: tuple[Role, ...], signals: int) -> Float[Tensor, "experts signals"]:
    """Weight of each signal in each role; rows sum to 1.

    dominant: .8 its own, the others share .2. balanced: .45 each of two, the others share .1 (.5 each where there are
    no others). complementary: 0 its own, the others share 1.
    """
    rows = torch.zeros(len(of), signals)
    for row, role in zip(rows, of, strict=True):
        others = [one for one in range(signals) if one not in role.own]
        together = {"dominant": _OWN, "balanced": _PAIR if others else 1.0, "complementary": 0.0}[role.kind]
        row[list(role.own)] = together / len(role.own)
        row[others] = (1.0 - together) / max(1, len(others))
    return rows


def available(of: tuple[Role, ...], present: Bool[Tensor, "rows signals"]) -> Bool[Tensor, "rows experts"]:
    """Which experts a node may be routed to: those whose own signals it has; complementary ones need another as well.

    A node with nothing at all is left the first expert, dominant in the first signal.
    """
    columns = []
    for role in of:
        has = present[:, list(role.own)].all(dim=1)
        if role.kind == "complementary":
            others = [one for one in range(present.shape[1]) if one not in role.own]
            has = has & present[:, others].any(dim=1)
        columns.append(has)
    found = torch.stack(columns, dim=1)
    found[:, 0] |= ~found.any(dim=1)
    return found


@final
class RoleExperts(nn.Module):
    """All experts of a node: f_e = mixture by the template + W2 GELU(W1 ...), the same weights for users and items.

    a~ = softmax(log a + eps tanh(theta)), theta learnt from 0, eps = .5.
    dominant, balanced: f = sum_m a~_m z^m + W2 GELU(W1 [a~_m z^m])
    complementary in m: o = sum_m' a~_m' (z^m' - <z^m', z^m> / (|z^m|^2 + 1e-8) z^m), what the others say beside m;
                        f = sigmoid(W_g z^m) * o + W2 GELU(W1 [z^m || o])
    W2 starts at 0: an expert starts as its template.
    """

    template: Float[Tensor, "experts signals"]

    def __init__(self, signals: int, dim: int, hidden: int, eps: float = 0.5) -> None:
        """`hidden` 0 leaves the perceptrons out: the templates alone."""
        super().__init__()
        self.roles = roles(signals)
        self.hidden, self.eps = hidden, eps
        self.register_buffer("template", templates(self.roles, signals), persistent=False)
        self.theta = nn.Parameter(torch.zeros(len(self.roles), signals))
        mixing = len(self.roles) - signals  # the dominant and balanced ones come first
        self.gate = nn.Parameter(_fan_in(signals, dim, dim))
        if hidden:
            self.mixed_in = nn.Parameter(_fan_in(mixing, signals * dim, hidden))
            self.mixed_out = nn.Parameter(torch.zeros(mixing, hidden, dim))
            self.beside_in = nn.Parameter(_fan_in(signals, 2 * dim, hidden))
            self.beside_out = nn.Parameter(torch.zeros(signals, hidden, dim))

    def mixing(self) -> Float[Tensor, "experts signals"]:
        """a~: rows sum to 1; a signal of weight 0 keeps it."""
        return (self.template.log() + self.eps * self.theta.tanh()).softmax(dim=1)

    def forward(self, z: Float[Tensor, "signals rows dim"]) -> Float[Tensor, "experts rows dim"]:
        """What each expert makes of each node; absent signals are zeros."""
        mixing = self.mixing()
        mixed = self._mixed(z, mixing[: -len(z)])
        return torch.cat([mixed, torch.stack(self._beside(z, mixing[-len(z) :]))])

    def agree(
        self, users: Float[Tensor, "signals users dim"], items: Float[Tensor, "signals lists*users dim"]
    ) -> Float[Tensor, "lists*users experts"]:
        """<f_e(u), f_e(i)> of each user with the items in the same place of each list.

        Without perceptrons what mixtures agree on is a form in how signals agree,
        <sum_m a~_m z_u^m, sum_n a~_n z_i^n> = sum_mn a~_m a~_n <z_u^m, z_i^n>: the mixtures are not made.
        """
        if self.hidden:
            return _agree(self(users), self(items))
        mixing, n = self.mixing(), len(users)
        mixed, others = mixing[:-n], mixing[-n:]
        lists = items.unflatten(1, (-1, users.shape[1])).permute(2, 1, 0, 3)  # [users, lists, signals, dim]
        met = torch.bmm(lists.flatten(1, 2), users.permute(1, 2, 0)).unflatten(1, lists.shape[1:3])
        met = met.transpose(0, 1).flatten(2).flatten(0, 1)  # [lists*users, signals of the item * of the user]
        both = (mixed.unsqueeze(2) * mixed.unsqueeze(1)).flatten(1)
        return torch.cat([met @ both.T, _agree(self._beside(users, others), self._beside(items, others))], dim=1)

    def _mixed(self, z: Tensor, mixing: Float[Tensor, "mixed signals"]) -> Float[Tensor, "mixed rows dim"]:
        signals, rows, dim = z.shape
        mixture = (mixing @ z.flatten(1)).view(len(mixing), rows, dim)
        if not self.hidden:
            return mixture
        # W1 [a~_m z^m] = (a~_m W1_m) [z^m]: the template goes into the weights, and all experts are one product
        weights = self.mixed_in * mixing.repeat_interleave(dim, dim=1).unsqueeze(2)
        side_by_side = z.transpose(0, 1).reshape(rows, signals * dim)
        hidden = F.gelu(side_by_side @ weights.transpose(0, 1).reshape(signals * dim, -1))
        each = zip(hidden.split(self.hidden, dim=1), self.mixed_out, mixture, strict=True)
        return torch.stack([torch.addmm(mix, part, out) for part, out, mix in each])

    def _beside(self, z: Tensor, mixing: Float[Tensor, "signals signals"]) -> list[Float[Tensor, "rows dim"]]:
        residual = beside(z, mixing)
        outputs = []
        for k, (own, rest) in enumerate(zip(z, residual, strict=True)):
            out = (own @ self.gate[k]).sigmoid() * rest
            if self.hidden:
                hidden = F.gelu(torch.cat([own, rest], dim=1) @ self.beside_in[k])
                out = torch.addmm(out, hidden, self.beside_out[k])
            outputs.append(out)
        return outputs


def beside(
    z: Float[Tensor, "signals rows dim"], mixing: Float[Tensor, "signals signals"]
) -> Float[Tensor, "signals rows dim"]:
    """o of each complementary expert: the others mixed, without their component along its own signal."""
    others = (mixing @ z.flatten(1)).view_as(z)
    along = (others * z).sum(dim=2, keepdim=True) / (z.square().sum(dim=2, keepdim=True) + _TINY)
    return torch.addcmul(others, along, z, value=-1.0)


@final
class PlainExperts(nn.Module):
    """As many perceptrons over all signals, without roles: f_e = W2_e GELU(W1_e [z^1 || ... || z^n]). An ablation."""

    def __init__(self, signals: int, dim: int, hidden: int) -> None:
        super().__init__()
        self.roles = roles(signals)
        self.hidden = hidden
        self.into = nn.Parameter(_fan_in(len(self.roles), signals * dim, hidden))
        self.out = nn.Parameter(_fan_in(len(self.roles), hidden, dim))

    def forward(self, z: Float[Tensor, "signals rows dim"]) -> Float[Tensor, "experts rows dim"]:
        """What each expert makes of each node."""
        signals, rows, dim = z.shape
        side_by_side = z.transpose(0, 1).reshape(rows, signals * dim)
        hidden = F.gelu(side_by_side @ self.into.transpose(0, 1).flatten(1))
        each = zip(hidden.split(self.hidden, dim=1), self.out, strict=True)
        return torch.stack([part @ out for part, out in each])

    def agree(
        self, users: Float[Tensor, "signals users dim"], items: Float[Tensor, "signals lists*users dim"]
    ) -> Float[Tensor, "lists*users experts"]:
        """<f_e(u), f_e(i)> of each user with the items in the same place of each list."""
        return _agree(self(users), self(items))


def _agree(
    users: Iterable[Float[Tensor, "users dim"]], items: Iterable[Float[Tensor, "lists*users dim"]]
) -> Float[Tensor, "lists*users experts"]:
    """Inner products, expert by expert."""
    each = zip(users, items, strict=True)
    return torch.stack([(item.unflatten(0, (-1, len(user))) * user).sum(dim=2).flatten() for user, item in each], dim=1)


def _fan_in(*shape: int) -> Tensor:
    """Uniform within 1 / sqrt(inputs), as torch's Linear starts."""
    bound = 1.0 / math.sqrt(shape[-2])
    return torch.empty(shape).uniform_(-bound, bound)
