"""Roles, templates and experts against numbers worked by hand and a plain loop over nodes and experts."""

from itertools import combinations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from modalmix.nn.roles import PlainExperts, Role, RoleExperts, available, beside, roles, templates

SIZES = [(2, 6, 5), (3, 6, 5), (4, 6, 5), (3, 6, 0)]


def learnt(signals: int, dim: int, hidden: int) -> RoleExperts:
    """Experts whose every weight has moved from where it starts."""
    torch.manual_seed(signals + hidden)
    experts = RoleExperts(signals, dim, hidden)
    for weight in experts.parameters():
        torch.nn.init.normal_(weight, std=0.7)
    return experts


def one(experts: RoleExperts, e: int, z: Tensor) -> Tensor:
    """Expert e on one node, z [signals, dim], by the equations."""
    signals, role = len(z), experts.roles[e]
    a = [float(value) for value in experts.mixing()[e].detach()]
    mixing = len(experts.roles) - signals
    if role.kind != "complementary":
        parts = [weight * part for weight, part in zip(a, z, strict=True)]
        out = sum(parts[1:], parts[0])
        if experts.hidden:
            out = out + F.gelu(torch.cat(parts) @ experts.mixed_in[e]) @ experts.mixed_out[e]
        return out
    k, own = e - mixing, z[role.own[0]]
    o = torch.zeros_like(own)
    for m, part in enumerate(z):
        if m != role.own[0]:
            o = o + a[m] * (part - (part @ own) / (own @ own + 1e-8) * own)
    out = (own @ experts.gate[k]).sigmoid() * o
    if experts.hidden:
        out = out + F.gelu(torch.cat([own, o]) @ experts.beside_in[k]) @ experts.beside_out[k]
    return out


class TestRoles:
    @pytest.mark.parametrize(("signals", "experts"), [(2, 5), (3, 9), (4, 14), (6, 27)])
    def test_number_of_experts(self, signals: int, experts: int) -> None:
        found = roles(signals)
        assert len(found) == len(set(found)) == experts
        assert [role.kind for role in found] == (
            ["dominant"] * signals + ["balanced"] * (signals * (signals - 1) // 2) + ["complementary"] * signals
        )
        assert [role.own for role in found if role.kind == "balanced"] == list(combinations(range(signals), 2))

    @pytest.mark.parametrize("signals", [-1, 0, 1])
    def test_one_signal_needs_no_experts(self, signals: int) -> None:
        with pytest.raises(ValueError, match=f"{signals} signals; expected at least 2"):
            roles(signals)

    def test_names_for_people(self) -> None:
        signals = ("behaviour", "image", "text")
        assert [role.name(signals) for role in roles(3)] == [
            "dominant behaviour",
            "dominant image",
            "dominant text",
            "balanced behaviour+image",
            "balanced behaviour+text",
            "balanced image+text",
            "complementary behaviour",
            "complementary image",
            "complementary text",
        ]


class TestTemplates:
    def test_three_signals_by_hand(self) -> None:
        by_hand = [
            [0.8, 0.1, 0.1],
            [0.1, 0.8, 0.1],
            [0.1, 0.1, 0.8],
            [0.45, 0.45, 0.1],
            [0.45, 0.1, 0.45],
            [0.1, 0.45, 0.45],
            [0.0, 0.5, 0.5],
            [0.5, 0.0, 0.5],
            [0.5, 0.5, 0.0],
        ]
        torch.testing.assert_close(templates(roles(3), 3), torch.tensor(by_hand))

    def test_two_and_four_signals_by_hand(self) -> None:
        two = [[0.8, 0.2], [0.2, 0.8], [0.5, 0.5], [0.0, 1.0], [1.0, 0.0]]
        torch.testing.assert_close(templates(roles(2), 2), torch.tensor(two))
        four = templates(roles(4), 4)
        torch.testing.assert_close(four[1], torch.tensor([0.2 / 3, 0.8, 0.2 / 3, 0.2 / 3]))
        torch.testing.assert_close(four[6], torch.tensor([0.45, 0.05, 0.05, 0.45]))
        torch.testing.assert_close(four[12], torch.tensor([1 / 3, 1 / 3, 0.0, 1 / 3]))

    @pytest.mark.parametrize("signals", [2, 3, 4, 6])
    def test_rows_sum_to_one_before_and_after_learning(self, signals: int) -> None:
        ones = torch.ones(len(roles(signals)))
        torch.testing.assert_close(templates(roles(signals), signals).sum(dim=1), ones)
        torch.testing.assert_close(learnt(signals, 3, 0).mixing().sum(dim=1), ones)

    def test_they_start_as_they_are_and_move_within_bounds(self) -> None:
        experts = RoleExperts(3, 4, 0)
        torch.testing.assert_close(experts.mixing(), experts.template)
        experts.theta.data[0] = torch.tensor([-1e9, 1e9, 1e9])  # the furthest that a template can go
        low, high = 0.8 * 2.718281828**-0.5, 0.1 * 2.718281828**0.5
        by_hand = torch.tensor([low, high, high]) / (low + 2 * high)
        torch.testing.assert_close(experts.mixing()[0].detach(), by_hand)

    def test_a_weight_of_zero_stays_zero_and_its_gradient_is_finite(self) -> None:
        experts = learnt(3, 4, 5)
        assert experts.mixing()[6:].diagonal().tolist() == [0.0, 0.0, 0.0]
        experts(torch.randn(3, 7, 4)).square().sum().backward()
        assert experts.theta.grad is not None
        assert bool(experts.theta.grad.isfinite().all())
        assert experts.theta.grad[6:].diagonal().tolist() == [0.0, 0.0, 0.0]
        assert experts.theta.grad.count_nonzero() == 27 - 3


class TestAvailable:
    def test_by_hand(self) -> None:
        present = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 0], [0, 0, 0]]).bool()
        by_hand = [  # dominant b v t, balanced bv bt vt, complementary b v t
            [1, 1, 1, 1, 1, 1, 1, 1, 1],
            [1, 1, 0, 1, 0, 0, 1, 1, 0],
            [0, 1, 1, 0, 0, 1, 0, 1, 1],
            [0, 0, 1, 0, 0, 0, 0, 0, 0],
            [1, 0, 0, 0, 0, 0, 0, 0, 0],
            [1, 0, 0, 0, 0, 0, 0, 0, 0],  # nothing at all: the first
        ]
        assert available(roles(3), present).int().tolist() == by_hand

    @pytest.mark.parametrize("signals", [2, 3, 4])
    def test_every_node_has_an_expert_and_none_hears_only_silence(self, signals: int) -> None:
        every = torch.cartesian_prod(*[torch.tensor([False, True])] * signals)
        found = available(roles(signals), every)
        assert bool(found.any(dim=1).all())
        heard = every.float() @ templates(roles(signals), signals).T  # weight on what is there
        assert bool((heard[1:][found[1:]] > 0).all())

    def test_presence_is_not_written_to(self) -> None:
        present = torch.zeros(2, 3, dtype=torch.bool)
        available((Role("dominant", (0,)),), present)
        assert not bool(present.any())


class TestRoleExperts:
    @pytest.mark.parametrize(("signals", "dim", "hidden"), SIZES)
    def test_equals_the_plain_loop(self, signals: int, dim: int, hidden: int) -> None:
        experts, z = learnt(signals, dim, hidden), torch.randn(signals, 7, dim)
        z[1, 2] = 0.0  # absent
        expected = [[one(experts, e, z[:, row]) for row in range(7)] for e in range(len(experts.roles))]
        torch.testing.assert_close(
            experts(z), torch.stack([torch.stack(rows) for rows in expected]), atol=1e-5, rtol=1e-5
        )

    def test_starts_as_the_mixture_of_its_template(self) -> None:
        torch.manual_seed(0)
        experts, z = RoleExperts(3, 8, 16), torch.randn(3, 5, 8)
        by_hand = torch.einsum("em,mrd->erd", templates(roles(3), 3)[:6], z)
        torch.testing.assert_close(experts(z)[:6], by_hand)
        plain = RoleExperts(3, 8, 0)
        plain.gate.data.copy_(experts.gate)
        torch.testing.assert_close(experts(z), plain(z))

    def test_size_at_the_published_width(self) -> None:
        """Three signals, 64 numbers, 64 hidden: 3 (64 x 64) + 6 (192 + 64) 64 + 3 (128 + 64) 64 + 27."""
        sizes = [weight.numel() for weight in RoleExperts(3, 64, 64).parameters()]
        assert sum(sizes) == 3 * 64 * 64 + 6 * (192 + 64) * 64 + 3 * (128 + 64) * 64 + 27 == 147_483

    def test_nodes_do_not_see_one_another(self) -> None:
        experts, z, order = learnt(3, 6, 5), torch.randn(3, 9, 6), torch.randperm(9)
        torch.testing.assert_close(experts(z[:, order]), experts(z)[:, order])
        assert experts(z[:, :0]).shape == (9, 0, 6)

    def test_a_node_without_signals_is_silent_before_learning_and_gives_finite_gradients(self) -> None:
        experts, z = learnt(3, 6, 5), torch.zeros(3, 4, 6, requires_grad=True)
        assert not bool(RoleExperts(3, 6, 5)(z).any())
        experts(z).sum().backward()
        assert all(bool(weight.grad.isfinite().all()) for weight in experts.parameters())
        assert bool(z.grad.isfinite().all())


class TestBeside:
    @pytest.mark.parametrize("signals", [2, 3, 4])
    def test_is_orthogonal_to_its_own_signal(self, signals: int) -> None:
        torch.manual_seed(signals)
        z = torch.randn(signals, 50, 64)
        o = beside(z, templates(roles(signals), signals)[-signals:])
        assert (o * z).sum(dim=2).abs().max() < 1e-5
        assert o.abs().amax(dim=2).min() > 0.01

    def test_by_hand(self) -> None:
        """Behaviour (2, 0), image (3, 4), text (1, -2): beside behaviour (0, 4) and (0, -2) are left, half each."""
        z = torch.tensor([[2.0, 0.0], [3.0, 4.0], [1.0, -2.0]]).unsqueeze(1)
        o = beside(z, templates(roles(3), 3)[6:])
        torch.testing.assert_close(o[0, 0], torch.tensor([0.0, 1.0]))

    def test_what_is_parallel_vanishes_and_beside_an_absent_signal_all_is_left(self) -> None:
        z = torch.tensor([[[1.0, 2.0], [0.0, 0.0]], [[-3.0, -6.0], [4.0, 5.0]]])
        o = beside(z, templates(roles(2), 2)[3:])
        assert o[0, 0].abs().max() < 1e-6
        torch.testing.assert_close(o[0, 1], torch.tensor([4.0, 5.0]))
        assert o[1, 1].tolist() == [0.0, 0.0]


class TestPlainExperts:
    @pytest.mark.parametrize("signals", [2, 3])
    def test_equals_the_plain_loop(self, signals: int) -> None:
        torch.manual_seed(signals)
        experts, z = PlainExperts(signals, 6, 5), torch.randn(signals, 7, 6)
        assert experts.roles == roles(signals)
        for e in range(len(experts.roles)):
            for row in range(7):
                by_hand = F.gelu(torch.cat(list(z[:, row])) @ experts.into[e]) @ experts.out[e]
                torch.testing.assert_close(experts(z)[e, row], by_hand, atol=1e-5, rtol=1e-5)

    def test_every_expert_starts_different(self) -> None:
        said = PlainExperts(3, 6, 5)(torch.randn(3, 4, 6)).flatten(1)
        assert bool((torch.cdist(said, said) + torch.eye(9) > 1e-3).all())


@pytest.mark.parametrize(("signals", "dim", "hidden"), SIZES)
@pytest.mark.parametrize("lists", [1, 2, 3])
@pytest.mark.parametrize("plain", [False, True])
def test_what_users_and_items_agree_on_is_the_inner_product_of_experts(
    signals: int, dim: int, hidden: int, lists: int, plain: bool
) -> None:
    """Values, and the gradients of weights and signals."""
    experts = PlainExperts(signals, dim, hidden or 4) if plain else learnt(signals, dim, hidden)
    users = torch.randn(signals, 5, dim, requires_grad=True)
    items = torch.randn(signals, 5 * lists, dim, requires_grad=True)
    weight = torch.randn(5 * lists, len(experts.roles))
    learnable = [users, items, *experts.parameters()]
    agreed = experts.agree(users, items)
    expected = (experts(users).repeat(1, lists, 1) * experts(items)).sum(dim=2).T
    torch.testing.assert_close(agreed, expected, atol=1e-5, rtol=1e-5)
    found = torch.autograd.grad((agreed * weight).sum(), learnable, allow_unused=True)
    right = torch.autograd.grad((expected * weight).sum(), learnable, allow_unused=True)
    torch.testing.assert_close(found, right, atol=1e-4, rtol=1e-4)
