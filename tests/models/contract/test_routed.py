"""The routed scorer against one pair after another."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from modalmix.errors import QueryError
from modalmix.models.contract import Query
from modalmix.models.contract import routed as module
from modalmix.models.contract.retrieval import FullRanking, PairScorer, TwoStep
from modalmix.models.contract.routed import Mixture, MixtureGradient, Nodes, RoutedScorer, pair_scores
from modalmix.nn.gates import top_k_softmax
from modalmix.nn.roles import RoleExperts, available, roles
from modalmix.nn.router import PairRouter, RouterKind

KINDS: list[RouterKind] = ["bilinear", "mlp", "user", "item", "uniform"]
SIGNALS, DIM, USERS, ITEMS = 3, 8, 13, 21
EXPERTS = len(roles(SIGNALS))
Prior = Callable[[Query], Tensor]


def nodes(rows: int, seed: int) -> Nodes:
    """Nodes of which one lacks image, one has text alone, one nothing."""
    torch.manual_seed(seed)
    z = torch.randn(SIGNALS, rows, DIM)
    z[1, 0], z[:2, 1], z[:, 2] = 0.0, 0.0, 0.0
    degree = torch.randint(1, 30, (rows,)).float()
    degree[2] = 0.0
    return Nodes(torch.randn(rows, DIM), z, degree, z.any(dim=2).T)


class World:
    """Experts, router, nodes and their scorer; scores of single pairs by the formula."""

    scorer: RoutedScorer

    def __init__(self, kind: RouterKind = "bilinear", k: int = 2, users: int = USERS, items: int = ITEMS) -> None:
        self.users, self.items, self.k = nodes(users, 1), nodes(items, 2), k
        torch.manual_seed(3)
        self.experts = RoleExperts(SIGNALS, DIM, hidden=5)
        self.router = PairRouter(kind, SIGNALS, DIM, EXPERTS, rank=4, agreement=2, hidden=6)
        for weight in (*self.experts.parameters(), *self.router.parameters()):
            torch.nn.init.normal_(weight, std=0.4)
        self.allowed = available(roles(SIGNALS), self.items.present)
        self.scorer = self.freeze(self.users)

    @torch.no_grad()
    def freeze(self, users: Nodes, prior: Prior | None = None) -> RoutedScorer:
        """A scorer of these users."""
        return RoutedScorer(users, self.items, Mixture(self.experts, self.router, self.allowed, self.k), prior)

    @torch.no_grad()
    def gates(self, users: Nodes, u: Tensor, i: Tensor) -> Tensor:
        """Gates of row-aligned pairs."""
        sides = self.router.users(*users[1:]), self.router.items(*self.items[1:], self.allowed)
        logits = self.router.pairs(sides[0].rows(u), sides[1].rows(i))
        return torch.stack([top_k_softmax(row.unsqueeze(0), self.k)[0] for row in logits])

    @torch.no_grad()
    def said(self, users: Nodes, u: Tensor, i: Tensor) -> Tensor:
        """<f_e(u), f_e(i)> of row-aligned pairs, [pairs, experts]."""
        of_users, of_items = self.experts(users.z), self.experts(self.items.z)
        inner = [[of_users[e, a] @ of_items[e, b] for e in range(EXPERTS)] for a, b in zip(u, i, strict=True)]
        return torch.tensor(inner)

    def brute_force(self, users: Nodes) -> Tensor:
        """Scores [users, items], pair by pair."""
        pairs = torch.cartesian_prod(torch.arange(len(users.own)), torch.arange(len(self.items.own))).T
        mixed = (self.gates(users, *pairs) * self.said(users, *pairs)).sum(dim=1)
        base = torch.stack([users.own[u] @ self.items.own[i] for u, i in pairs.T])
        return (base + mixed).view(len(users.own), -1)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 4 users and 8 items: neither divides what there is."""
    monkeypatch.setattr(module, "_USERS", 4)
    monkeypatch.setattr(module, "_ITEMS", 8)


class TestFullRanking:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("k", [1, 2, EXPERTS])
    @pytest.mark.usefixtures("small_blocks")
    def test_equals_brute_force(self, kind: RouterKind, k: int) -> None:
        world = World(kind, k)
        close(world.scorer(Query(users=torch.arange(USERS))), world.brute_force(world.users))

    @pytest.mark.parametrize(("users", "items"), [(4, 8), (5, 9), (8, 16), (3, 7)])
    @pytest.mark.usefixtures("small_blocks")
    def test_at_the_borders_of_a_block(self, users: int, items: int) -> None:
        world = World(users=users, items=items)
        close(world.scorer(Query(users=torch.arange(users))), world.brute_force(world.users))

    def test_across_blocks_as_they_are(self) -> None:
        world = World(users=module._USERS + 1, items=module._ITEMS + 1)
        scores = world.scorer(Query(users=torch.arange(module._USERS + 1)))
        assert scores.shape == (module._USERS + 1, module._ITEMS + 1)
        u = torch.tensor([0, 5, module._USERS - 1, module._USERS]).repeat_interleave(4)
        i = torch.tensor([0, 2, module._ITEMS - 1, module._ITEMS]).repeat(4)
        mixed = (world.gates(world.users, u, i) * world.said(world.users, u, i)).sum(dim=1)
        close(scores[u, i], (world.users.own[u] * world.items.own[i]).sum(dim=1) + mixed)

    @pytest.mark.parametrize("users", [[7], [2], [3, 3, 0, 12, 3], []])
    @pytest.mark.usefixtures("small_blocks")
    def test_one_user_users_repeated_and_none(self, users: list[int]) -> None:
        world = World()
        every = world.brute_force(world.users)
        rows = torch.tensor(users, dtype=torch.int64)
        found = world.scorer(Query(users=rows))
        assert found.shape == (len(users), ITEMS)
        close(found, every[rows])

    def test_gates_matter(self) -> None:
        """The test would not see a scorer without gates, were all experts of one mind."""
        scores = [World(k=k).scorer(Query(users=torch.arange(USERS))) for k in (1, 2, EXPERTS)]
        assert (scores[0] - scores[1]).abs().max() > 0.1
        assert (scores[1] - scores[2]).abs().max() > 0.1

    def test_asking_changes_nothing_and_needs_no_gradient(self) -> None:
        world, query = World(), Query(users=torch.arange(USERS))
        frozen = (*world.users, *world.items, *world.experts.parameters(), *world.router.parameters())
        before = [tensor.clone() for tensor in frozen]
        first = world.scorer(query)
        assert not first.requires_grad
        first.zero_()
        assert bool(world.scorer(query).any())
        assert all(torch.equal(*pair) for pair in zip(before, frozen, strict=True))


class TestPairs:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("k", [1, 2, EXPERTS])
    def test_are_the_entries_of_the_full_ranking(self, kind: RouterKind, k: int) -> None:
        scorer, users = World(kind, k).scorer, torch.tensor([4, 0, 2, 4])
        candidates = torch.tensor([[20, 0, 3], [1, 1, 2], [0, 2, 9], [5, 6, 7]])
        close(scorer.pairs(Query(users=users), candidates), scorer(Query(users=users)).gather(1, candidates))

    def test_of_histories(self) -> None:
        scorer, query = World().scorer, Query(history=torch.tensor([[3, 5, -1], [0, 9, 20]]))
        candidates = torch.tensor([[3, 19], [2, 0]])
        close(scorer.pairs(query, candidates), scorer(query).gather(1, candidates))

    @pytest.mark.parametrize("listed", [1, 3, 4, 5, 9, 40])
    def test_at_the_borders_of_a_block(self, listed: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_PAIRS", 9)
        scorer, query = World().scorer, Query(users=torch.arange(USERS))
        candidates = torch.randint(ITEMS, (USERS, listed))
        close(scorer.pairs(query, candidates), scorer(query).gather(1, candidates))

    def test_of_nobody_and_of_no_candidates(self) -> None:
        none = torch.zeros(0, dtype=torch.int64)
        assert World().scorer.pairs(Query(users=none), none.view(0, 4)).shape == (0, 4)
        assert World().scorer.pairs(Query(users=torch.arange(2)), none.view(2, 0)).shape == (2, 0)


class TestVectors:
    """Inner products of `vectors` and `item_vectors`: the score with one gate for every pair."""

    @pytest.mark.parametrize("query", [Query(users=torch.tensor([4, 0, 2])), Query(history=torch.tensor([[3, 5, -1]]))])
    @pytest.mark.parametrize("given", [True, False])
    def test_inner_products_are_scores_with_the_mean_gate(self, query: Query, given: bool) -> None:
        world = World()
        gate = torch.rand(EXPERTS).softmax(0) if given else None
        mixture = Mixture(world.experts, world.router, world.allowed, world.k, gate)
        scorer = RoutedScorer(world.users, world.items, mixture, lambda query: torch.full((len(query), ITEMS), 1e6))
        asked = scorer.asked(query)
        weight = torch.full((EXPERTS,), 1 / EXPERTS) if gate is None else gate
        u, i = torch.cartesian_prod(torch.arange(len(query)), torch.arange(ITEMS)).T
        expected = (asked.own[u] * world.items.own[i]).sum(dim=1) + world.said(asked, u, i) @ weight
        close((scorer.vectors(query) @ scorer.item_vectors.T).flatten(), expected)
        assert scorer.item_vectors.shape == (ITEMS, DIM * (EXPERTS + 1))
        assert not scorer.vectors(query).requires_grad
        assert not scorer.item_vectors.requires_grad

    def test_without_experts_they_are_the_nodes_own(self) -> None:
        world = World()
        scorer = RoutedScorer(world.users, world.items, None)
        assert torch.equal(scorer.item_vectors, world.items.own)
        assert torch.equal(scorer.vectors(Query(users=torch.tensor([3, 1]))), world.users.own[[3, 1]])

    @pytest.mark.parametrize("kind", KINDS)
    def test_two_steps_that_retrieve_all_are_the_full_ranking(self, kind: RouterKind) -> None:
        scorer, query = World(kind).scorer, Query(users=torch.arange(USERS))
        assert isinstance(scorer, PairScorer)
        one, two = FullRanking(scorer).top(query, 6), TwoStep(scorer, ITEMS).top(query, 6)
        assert torch.equal(one.rows, two.rows)
        close(one.scores, two.scores)


def first_asked(query: Query) -> Tensor:
    """A prior: 100 times the user, or the first item of the history, plus the item."""
    asked = query.users if query.users is not None else query.history[:, 0]
    return 100.0 * asked.unsqueeze(1) + torch.arange(float(ITEMS))


class TestPrior:
    """Scores that another function adds."""

    @pytest.mark.parametrize("query", [Query(users=torch.tensor([4, 0, 4])), Query(history=torch.tensor([[4, 1]]))])
    @pytest.mark.usefixtures("small_blocks")
    def test_is_added_to_every_score_once(self, query: Query) -> None:
        world = World()
        scorer = world.freeze(world.users, first_asked)
        candidates = torch.arange(ITEMS).flip(0).expand(len(query), -1)
        torch.testing.assert_close(scorer(query) - world.scorer(query), first_asked(query), atol=1e-3, rtol=0)
        torch.testing.assert_close(scorer.pairs(query, candidates), scorer(query).gather(1, candidates))

    def test_it_is_not_scored_into(self) -> None:
        """A prior that hands out its own table every time keeps it."""
        world, table = World(), torch.randn(2, ITEMS)
        before, query = table.clone(), Query(users=torch.arange(2))
        scorer = world.freeze(world.users, lambda query: table)
        assert torch.equal(scorer(query), scorer(query))
        assert torch.equal(table, before)


class TestWithoutExperts:
    @pytest.mark.parametrize("query", [Query(users=torch.tensor([4, 0, 4])), Query(history=torch.tensor([[4, 1]]))])
    def test_inner_products_and_the_prior_alone(self, query: Query) -> None:
        world = World()
        scorer = RoutedScorer(world.users, world.items, None, first_asked)
        expected = scorer.asked(query).own @ world.items.own.T + first_asked(query)
        close(scorer(query), expected)
        candidates = torch.tensor([[3, 20, 3]]).expand(len(query), -1)
        close(scorer.pairs(query, candidates), expected.gather(1, candidates))
        close(RoutedScorer(world.users, world.items, None)(query), expected - first_asked(query))

    def test_there_are_no_gates(self) -> None:
        world = World()
        with pytest.raises(ValueError, match="no experts"):
            RoutedScorer(world.users, world.items, None).gates(Query(users=torch.arange(2)), torch.arange(3))


class TestGates:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("k", [1, 2, EXPERTS])
    def test_exactly_k_where_so_many_are_allowed_and_zero_where_masked(self, kind: RouterKind, k: int) -> None:
        world, users, items = World(kind, k), torch.tensor([0, 6]), torch.arange(ITEMS)
        gates = world.scorer.gates(Query(users=users), items)
        assert gates.shape == (2, ITEMS, EXPERTS)
        torch.testing.assert_close(gates.sum(dim=2), torch.ones(2, ITEMS))
        assert not bool(gates.masked_select(~world.allowed).any())
        assert torch.equal(gates.count_nonzero(dim=2), world.allowed.sum(dim=1).clamp(max=k).expand(2, ITEMS))
        assert gates[:, 1, 2].tolist() == [1.0, 1.0], "an item with text alone goes to dominant text"
        assert gates[:, 2, 0].tolist() == [1.0, 1.0], "an item with nothing goes to dominant behaviour"

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("k", [1, 2, EXPERTS])
    def test_with_them_the_score_adds_up(self, kind: RouterKind, k: int) -> None:
        world, users, items = World(kind, k), torch.tensor([1, 6, 6]), torch.tensor([20, 4, 4, 0])
        gates = world.scorer.gates(Query(users=users), items).flatten(0, 1)
        u, i = torch.cartesian_prod(users, items).T
        close(gates, world.gates(world.users, u, i))
        added = (world.users.own[u] * world.items.own[i]).sum(dim=1) + (gates * world.said(world.users, u, i)).sum(
            dim=1
        )
        close(world.scorer(Query(users=users))[:, items].flatten(), added)


class TestHistories:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.usefixtures("small_blocks")
    def test_a_history_is_a_user_who_met_its_items(self, kind: RouterKind) -> None:
        """Signals: means of the items'. Degree: their number. Own vector: their mean at the known users' length. What
        was met twice counts once, as in training."""
        world, lists = World(kind), [[3, 5, 8], [1], [9, 2, 0, 20], [4, 4], [6, 7, 8, 9, 10]]
        history = torch.tensor([[*items, *[-1] * (5 - len(items))] for items in lists])
        z = torch.stack([world.items.z[:, items].mean(dim=1) for items in lists], dim=1)
        known = [world.users.own[user].norm() for user in range(USERS) if user != 2]  # user 2 met nothing
        length = sum(known) / len(known)
        means = [world.items.own[items].mean(dim=0) for items in lists]
        own = torch.stack([mean / mean.norm() * length for mean in means])
        present = torch.stack([world.items.present[items].any(dim=0) for items in lists])
        users = Nodes(own, z, torch.tensor([3.0, 1.0, 4.0, 1.0, 5.0]), present)
        close(world.scorer(Query(history=history)), world.brute_force(users))
        gates = world.scorer.gates(Query(history=history), torch.arange(ITEMS))
        pairs = torch.cartesian_prod(torch.arange(5), torch.arange(ITEMS)).T
        close(gates.flatten(0, 1), world.gates(users, *pairs))

    def test_presence_is_that_of_the_items(self) -> None:
        asked = World().scorer.asked(Query(history=torch.tensor([[0, 1, -1], [2, -1, -1], [1, 3, 0]])))
        assert asked.present.tolist() == [[True, False, True], [False, False, False], [True, True, True]]
        assert asked.degree.tolist() == [2.0, 1.0, 3.0]

    def test_order_padding_and_repeats_do_not_matter(self) -> None:
        scorer = World().scorer
        lists = [[3, 5, 8, -1, -1], [8, 3, -1, 5, -1], [-1, -1, 5, 3, 8], [8, 8, 5, 3, 5]]
        first, *others = scorer(Query(history=torch.tensor(lists)))
        for other in others:
            close(other, first)

    @pytest.mark.parametrize("history", [[[0, 1], [-1, -1]], [[-1]], [[]]])
    def test_an_empty_one_is_an_error(self, history: list[list[int]]) -> None:
        query = Query(history=torch.tensor(history, dtype=torch.int64))
        scorer = World().scorer
        for ask in (scorer, scorer.asked, lambda query: scorer.gates(query, torch.arange(2))):
            with pytest.raises(QueryError, match=r"a history is empty.*expected at least one item"):
                ask(query)

    def test_where_no_user_is_known_the_length_is_one(self) -> None:
        world = World()
        scorer = world.freeze(world.users._replace(degree=torch.zeros(USERS)))
        assert float(scorer.asked(Query(history=torch.tensor([[3, 5]]))).own.norm()) == pytest.approx(1.0)


def test_rows_of_nodes() -> None:
    whole = nodes(5, 1)
    some = whole.rows(torch.tensor([2, 1]))
    for part, of in zip(some, (whole.own[[2, 1]], whole.z[:, [2, 1]], whole.degree[[2, 1]]), strict=False):
        assert torch.equal(part, of)
    assert some.present.tolist() == [[False, False, False], [False, False, True]]
    assert torch.equal(whole.rows(slice(1, 3)).z, whole.z[:, 1:3])


class TestTrainingPairs:
    @pytest.mark.parametrize("kind", KINDS)
    def test_are_the_pairs_one_by_one(self, kind: RouterKind) -> None:
        """Users 4 and 5 with items 7 and 8, then with 9 and 10."""
        world, rows = World(kind), [7, 8, 9, 10]
        logits, said = pair_scores(world.experts, world.router, world.users.rows([4, 5]), world.items.rows(rows), "all")
        sides = world.router.users(*world.users[1:]), world.router.items(*world.items[1:], world.allowed)
        u, i = torch.tensor([4, 5, 4, 5]), torch.tensor(rows)
        torch.testing.assert_close(logits, world.router.pairs(sides[0].rows(u), sides[1].rows(i)))
        of_users, of_items = world.experts(world.users.z), world.experts(world.items.z)
        torch.testing.assert_close(said, (of_users[:, u] * of_items[:, i]).sum(dim=2).T)

    @pytest.mark.parametrize(("gradient", "by_gates", "by_experts"), [("all", 1, 1), ("experts", 0, 1), ("none", 0, 0)])
    def test_what_moves_the_signals(self, gradient: MixtureGradient, by_gates: bool, by_experts: bool) -> None:
        world = World()
        for part, moves in enumerate((by_gates, by_experts)):
            z = world.items.z[:, 5:7].clone().requires_grad_()
            items = world.items.rows([5, 6])._replace(z=z)
            found = pair_scores(world.experts, world.router, world.users.rows([4]), items, gradient)[part]
            found.square().sum().backward()
            assert (z.grad is not None and bool(z.grad.any())) == bool(moves)
