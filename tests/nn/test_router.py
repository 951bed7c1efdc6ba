"""The router against its formula pair by pair, and what each kind may see."""

from itertools import product
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from modalmix.nn.gates import top_k_softmax
from modalmix.nn.mixing import top_k_mixture
from modalmix.nn.roles import available, roles
from modalmix.nn.router import MASKED, PairRouter, RouterKind, Side

KINDS: list[RouterKind] = ["bilinear", "mlp", "user", "item", "uniform"]
SIGNALS, DIM, USERS, ITEMS = 3, 6, 4, 5
EXPERTS = len(roles(SIGNALS))
Node = tuple[Tensor, Tensor, Tensor]


def learnt(kind: RouterKind, temperature: float = 1.0, cues: Literal["signals", "evidence"] = "signals") -> PairRouter:
    """A router whose every weight has moved from where it starts."""
    torch.manual_seed(3)
    router = PairRouter(kind, SIGNALS, DIM, EXPERTS, rank=4, agreement=2, hidden=7, temperature=temperature, cues=cues)
    for weight in router.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return router


def nodes(rows: int, seed: int) -> Node:
    """Signals, degrees and presence; one node lacks a signal, one has nothing."""
    torch.manual_seed(seed)
    z = torch.randn(SIGNALS, rows, DIM)
    z[1, 0] = 0.0
    z[:, 1] = 0.0
    return z, torch.randint(0, 50, (rows,)).float(), (z.abs().sum(dim=2) > 0).T


@pytest.fixture
def users() -> Node:
    return nodes(USERS, 1)


@pytest.fixture
def items() -> Node:
    return nodes(ITEMS, 2)


def every(router: PairRouter, users: Node, items: Node) -> Tensor:
    """Logits [experts, users, items]."""
    return router.every(router.users(*users), router.items(*items, available(roles(SIGNALS), items[2])))


def by_hand(router: PairRouter, users: Node, items: Node, u: int, i: int) -> Tensor:
    """Logits of one pair, one expert after another, without mask and temperature; the earlier wins by 1e-5."""

    def node(of: Node, row: int, linear: torch.nn.Linear) -> Tensor:
        z, degree, present = of
        seen = torch.cat([degree[row].add(1).log().view(1), present[row].float()])
        seen = torch.cat([*z[:, row], seen]) if router.cues == "signals" else seen
        return linear.weight @ seen + linear.bias

    p_u, p_i = node(users, u, router.user_summary), node(items, i, router.item_summary)
    logits = []
    for e in range(EXPERTS):
        logit = router.user_weight[e] @ p_u + router.item_weight[e] @ p_i + router.bias[e] - 1e-5 * e
        if router.kind == "bilinear":
            logit = logit + p_u @ router.meet[e] @ p_i
            for m in range(SIGNALS):
                q_u, q_i = users[0][m, u] @ router.signal[m], items[0][m, i] @ router.signal[m]
                cosine = q_u @ q_i / (q_u.norm() * q_i.norm()).clamp(min=1e-12)
                logit = logit + router.agreement[e, m] * cosine
        else:
            weights = torch.cat([router.user_hidden.weight, router.item_hidden.weight], dim=1)
            hidden = F.gelu(weights @ torch.cat([p_u, p_i]) + router.user_hidden.bias)
            logit = logit + router.out[e] @ hidden
        logits.append(logit)
    return torch.stack(logits)


@pytest.mark.parametrize("kind", ["bilinear", "mlp"])
@pytest.mark.parametrize("cues", ["signals", "evidence"])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_the_logit_of_a_pair_by_hand(
    kind: RouterKind, temperature: float, cues: Literal["signals", "evidence"], users: Node, items: Node
) -> None:
    router = learnt(kind, temperature, cues)
    allowed = available(roles(SIGNALS), items[2])
    found = every(router, users, items)
    for u, i in product(range(USERS), range(ITEMS)):
        expected = by_hand(router, users, items, u, i) / temperature
        torch.testing.assert_close(found[allowed[i], u, i], expected[allowed[i]], atol=1e-5, rtol=1e-5)
        assert bool((found[~allowed[i], u, i] < MASKED / 2).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cues", ["signals", "evidence"])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_pairs_are_the_entries_of_every(
    kind: RouterKind, temperature: float, cues: Literal["signals", "evidence"], users: Node, items: Node
) -> None:
    router = learnt(kind, temperature, cues)
    side, other = router.users(*users), router.items(*items, available(roles(SIGNALS), items[2]))
    u, i = torch.tensor([3, 0, 0, 2, 1]), torch.tensor([4, 1, 1, 0, 2])
    pairs = router.pairs(side.rows(u), other.rows(i))
    assert pairs.shape == (5, EXPERTS)
    torch.testing.assert_close(pairs, router.every(side, other)[:, u, i].T, atol=1e-5, rtol=1e-5)
    several = router.pairs(side.rows(u), other.rows(torch.cat([i, i.flip(0)])))
    torch.testing.assert_close(several, torch.cat([pairs, router.pairs(side.rows(u), other.rows(i.flip(0)))]))
    tile = router.every(side.rows(slice(1, 3)), other.rows(torch.tensor([4, 0])))
    torch.testing.assert_close(tile, router.every(side, other)[:, 1:3][:, :, [4, 0]], atol=1e-5, rtol=1e-5)
    lists = torch.tensor([[4, 1], [0, 0], [2, 3]])
    found = router.of_lists(side.rows(torch.tensor([1, 3, 1])), other.rows(lists))
    for row, (user, listed) in enumerate(zip((1, 3, 1), lists.tolist(), strict=True)):
        expected = router.every(side, other)[:, user, listed].T
        torch.testing.assert_close(found[row], expected, atol=1e-5, rtol=1e-5)


class TestWhatEachKindSees:
    def moved(self, kind: RouterKind, users: Node, items: Node) -> tuple[bool, bool]:
        """Whether the logits move with the user's side, and with the item's, the mask apart."""
        router, other_users, other_items = learnt(kind), nodes(USERS, 5), nodes(ITEMS, 6)
        before = every(router, users, items)
        return (
            not torch.equal(every(router, other_users, items), before),
            not torch.equal(every(router, users, other_items), before),
        )

    @pytest.mark.parametrize(
        ("kind", "seen"),
        [
            ("bilinear", (True, True)),
            ("mlp", (True, True)),
            ("user", (True, False)),
            ("item", (False, True)),
            ("uniform", (False, False)),
        ],
    )
    def test_sides(self, kind: RouterKind, seen: tuple[bool, bool], users: Node, items: Node) -> None:
        assert self.moved(kind, users, items) == seen

    @pytest.mark.parametrize("kind", ["bilinear", "mlp"])
    def test_a_pair_is_more_than_its_sides(self, kind: RouterKind, users: Node, items: Node) -> None:
        """A sum of what user and item add by themselves would have no interaction in any 2 x 2 corner."""
        logits = every(learnt(kind), users, items)[0]
        assert (logits[0, 2] + logits[2, 3] - logits[0, 3] - logits[2, 2]).abs() > 1e-3

    def test_uniform_learns_nothing_and_gives_all_the_same(self, users: Node, items: Node) -> None:
        router = PairRouter("uniform", SIGNALS, DIM, EXPERTS)
        assert list(router.parameters()) == []
        gates = every(router, users, items)[:, :, 2:].softmax(dim=0)
        torch.testing.assert_close(gates, torch.full_like(gates, 1 / EXPERTS), atol=1e-5, rtol=0)

    @pytest.mark.parametrize(("kind", "agrees"), [("bilinear", True), ("mlp", False), ("user", False), ("item", False)])
    def test_with_evidence_alone_signals_matter_by_agreement_only(
        self, kind: RouterKind, agrees: bool, users: Node, items: Node
    ) -> None:
        """Other signals, the same degrees and presence."""
        router = learnt(kind, cues="evidence")
        before = every(router, users, items)
        other = [(z.roll(1, dims=2), degree, present) for z, degree, present in (users, items)]
        assert torch.equal(every(router, users, other[1]), before) != agrees
        assert torch.equal(every(router, other[0], items), before) != agrees
        if agrees:
            torch.nn.init.zeros_(router.agreement)
            assert torch.equal(every(router, *other), every(router, users, items))
        more = [(z, degree + 3, present) for z, degree, present in (users, items)]
        assert torch.equal(every(router, more[0], items), before) == (kind == "item")
        assert torch.equal(every(router, users, more[1]), before) == (kind == "user")

    @pytest.mark.parametrize("cues", ["signals", "evidence"])
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_kind_has_no_weight_that_never_learns(
        self, kind: RouterKind, cues: Literal["signals", "evidence"], users: Node, items: Node
    ) -> None:
        router = learnt(kind, cues=cues)
        allowed = torch.ones(ITEMS, EXPERTS, dtype=torch.bool)
        u, i = torch.cartesian_prod(torch.arange(USERS), torch.arange(ITEMS)).T
        logits = router.pairs(router.users(*users).rows(u), router.items(*items, allowed).rows(i))
        (logits * torch.randn_like(logits)).sum().backward() if kind != "uniform" else None
        assert all(weight.grad is not None and bool(weight.grad.any()) for weight in router.parameters())


class TestGates:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("k", [1, 2, 5, EXPERTS])
    def test_they_sum_to_one_with_exactly_k_and_a_masked_expert_has_zero(
        self, kind: RouterKind, k: int, users: Node, items: Node
    ) -> None:
        logits = every(learnt(kind), users, items)
        allowed = available(roles(SIGNALS), items[2])
        gates = top_k_softmax(logits.permute(1, 2, 0).flatten(0, 1), k).view(USERS, ITEMS, EXPERTS)
        torch.testing.assert_close(gates.sum(dim=2), torch.ones(USERS, ITEMS))
        assert gates.masked_select(~allowed).tolist() == [0.0] * int((~allowed).sum()) * USERS
        assert torch.equal(gates.count_nonzero(dim=2), allowed.sum(dim=1).clamp(max=k).expand(USERS, ITEMS))
        assert gates[:, 1, 0].tolist() == [1.0] * USERS, "an item with nothing goes to the first"

    @pytest.mark.parametrize("k", range(1, EXPERTS))
    def test_the_first_wins_among_experts_that_tie(self, k: int, users: Node, items: Node) -> None:
        """So the mixture and the gates of a pair choose the same experts."""
        logits = every(PairRouter("uniform", SIGNALS, DIM, EXPERTS), users, items)[:, :, 2:]
        gates = top_k_softmax(logits.permute(1, 2, 0).flatten(0, 1), k)
        assert gates.nonzero()[:, 1].view(-1, k).tolist() == [list(range(k))] * len(gates)
        scores = torch.arange(float(EXPERTS)).view(-1, 1, 1).expand_as(logits)
        mixture = top_k_mixture(logits, scores, k)
        torch.testing.assert_close(mixture, torch.full_like(mixture, (k - 1) / 2), atol=1e-3, rtol=0)

    @pytest.mark.parametrize("kind", KINDS)
    def test_gradients_are_finite_where_signals_are_absent(self, kind: RouterKind, users: Node, items: Node) -> None:
        router = learnt(kind)
        side, other = router.users(*users), router.items(*items, available(roles(SIGNALS), items[2]))
        rows = torch.arange(USERS)
        logits = router.pairs(side, other.rows(rows))
        if kind != "uniform":
            logits.softmax(dim=1).square().sum().backward()
        assert all(bool(weight.grad.isfinite().all()) for weight in router.parameters())


def test_a_new_bilinear_router_is_nearly_uniform(users: Node, items: Node) -> None:
    torch.manual_seed(0)
    gates = every(PairRouter("bilinear", SIGNALS, DIM, EXPERTS), users, items)[:, :, 2:].softmax(dim=0)
    assert (gates - 1 / EXPERTS).abs().max() < 0.05


def test_agreement_is_a_cosine(users: Node) -> None:
    """A user with the very signals of an item agrees by 1 in each that is there, with w = 1 by 3, 2 and 0."""
    router = learnt("bilinear")
    for weight in (router.meet, router.user_weight, router.item_weight, router.bias):
        torch.nn.init.zeros_(weight)
    torch.nn.init.ones_(router.agreement)
    allowed = torch.ones(USERS, EXPERTS, dtype=torch.bool)
    logits = router.pairs(router.users(*users), router.items(*users, allowed))
    torch.testing.assert_close(logits[:, 0], torch.tensor([2.0, 0.0, 3.0, 3.0]))


def test_rows_of_a_side() -> None:
    side = Side(torch.arange(6.0).view(3, 2), torch.arange(3.0).view(3, 1))
    some = side.rows(torch.tensor([2, 0, 2]))
    assert (some.vectors[:, 0].tolist(), some.bias.tolist()) == ([4.0, 0.0, 4.0], [[2.0], [0.0], [2.0]])
    assert Side(side.vectors).rows(slice(1, None)).bias is None
