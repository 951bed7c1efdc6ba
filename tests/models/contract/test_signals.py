"""The signals of MAGNET: cues without the positive, and the two views, against dense float64 matrices."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from modalmix.data.dataset import Dataset
from modalmix.data.interactions import Interactions
from modalmix.data.split import Split, TrainData
from modalmix.errors import ConfigError
from modalmix.models.contract import Triples
from modalmix.models.magnet import Magnet
from tests.models.conftest import Shop
from tests.models.plain_magnet import EVERYBODY, Plain
from tests.models.small_magnet import TRIALS, model, shop_with_gaps


@pytest.fixture
def data(content_shop: Shop) -> TrainData:
    return shop_with_gaps(content_shop)


class TestLeavePositiveOut:
    def cue(self, built: Magnet, user: int, positive: int) -> tuple[Tensor, Tensor, Tensor]:
        """Cue and presence of a training pair, and z of all items."""
        z, present = built.content_signals(built.train_catalog)
        cue, left = built.cue(z, present, Triples(*(torch.tensor([one]) for one in (user, positive, 0))))
        return cue[:, 0], left[0], z

    def met(self, data: TrainData, user: int) -> list[int]:
        return data.interactions.csr[user].indices.tolist()

    def test_of_a_user_with_one_event_nothing_is_left(self, data: TrainData) -> None:
        (item,) = self.met(data, 0)
        cue, left, z = self.cue(model(data), 0, item)
        assert z[:, item].any()
        assert not cue.any()
        assert left.tolist() == [False, False]

    def test_of_two_the_other_is_left(self, data: TrainData) -> None:
        one, other = self.met(data, 1)
        for positive, rest in ((one, other), (other, one)):
            cue, left, z = self.cue(model(data), 1, positive)
            torch.testing.assert_close(cue, z[:, rest], atol=1e-6, rtol=1e-5)
            assert left.tolist() == [bool(one.present[rest]) for one in data.catalog.modalities.values()]

    def test_presence_is_counted(self, content_shop: Shop) -> None:
        """What is left of a user whose only other item has text alone, or nothing."""
        shop = content_shop(absent={"image": [1, 2], "text": [2]})
        pairs = [(0, 0), (0, 1), (1, 0), (1, 2), (2, 1), (2, 2)] + [
            (u, 3 + (u + k) % 20) for u in range(3, 40) for k in (0, 3)
        ]
        user, item = np.array(pairs, dtype=np.int32).T
        built = model(replace(shop, interactions=Interactions(user, item, 40, 30)))
        expected = {(0, 0): [False, True], (0, 1): [True, True], (1, 0): [False, False], (1, 2): [True, True]}
        for (u, positive), present in {**expected, (2, 1): [False, False], (2, 2): [False, True]}.items():
            cue, left, _ = self.cue(built, u, positive)
            assert left.tolist() == present
            assert cue.any(dim=1).tolist() == present, "exactly zero where nothing is left"

    def test_the_content_of_the_positive_changes_nothing(self, data: TrainData) -> None:
        """Exactly z_i is taken out: whatever it is, the cue stays."""
        built, user = model(data), 7
        z, present = built.content_signals(built.train_catalog)
        positive = self.met(data, user)[2]
        batch = Triples(*(torch.tensor([one]) for one in (user, positive, 0)))
        before, _ = built.cue(z, present, batch)
        other = z.detach().clone()
        other[:, positive] += 10 * torch.randn(2, 6)
        after, _ = built.cue(other, present, batch)
        torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-5)
        full = model(data, cue="full")
        assert (full.cue(other, present, batch)[0] - full.cue(z, present, batch)[0]).abs().max() > 0.1

    def test_every_pair_against_the_items_left(self, data: TrainData) -> None:
        built, plain = model(data), Plain(model(data), data)
        for user in (0, 1, 7, 12, 39):
            for positive in self.met(data, user):
                cue, left, _ = self.cue(built, user, positive)
                expected, present = plain.history(user, positive)
                torch.testing.assert_close(cue.double(), expected, atol=1e-6, rtol=1e-5)
                assert left.tolist() == present.tolist()


@pytest.mark.parametrize("users", [[7], [12, 7, 7, 0, 2, 12], list(range(40)) * 2])
def test_the_mean_of_a_batch_is_that_of_its_users(data: TrainData, users: list[int]) -> None:
    """Values and gradients, with users twice, one without events, and more rows than users."""
    built, z = model(data), torch.randn(2, len(data.catalog), 6, requires_grad=True)
    weight = torch.randn(2, len(users), 6)
    found, expected = built.mean_of_batch(z, torch.tensor(users)), built.mean_of_history(z)[:, users]
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad((one * weight).sum(), z)[0] for one in (found, expected)]
    torch.testing.assert_close(*gradients)


class TestViews:
    def test_without_content_induced_edges_view_b_is_view_a_bit_for_bit(self, data: TrainData) -> None:
        none = {**TRIALS["edges"], "user_edges": 0, "item_edges": 0}
        built = model(data, edges=none, dropout=0.5)
        for epoch in (None, 1):
            if epoch:
                built.start_epoch(epoch)
            views = built.behaviour(built.views if epoch is None else built.thinned)
            assert torch.equal(*views)
            assert torch.equal(built.fused(views, built.degree), views[0])
        with_edges = model(data)
        assert not torch.equal(*with_edges.behaviour(with_edges.views))

    def test_no_edge_is_a_train_event(self, data: TrainData) -> None:
        pseudo, _ = model(data, edges={**TRIALS["edges"], "user_edges": 8, "item_edges": 8}).added
        assert pseudo.nnz > 200
        assert pseudo.multiply(data.interactions.csr).nnz == 0
        assert pseudo[2].nnz == 0, "by rows a user without an event has none"

    def test_edges_know_train_events_alone(self, content_shop: Shop) -> None:
        """Two splits of the same train part; what is held out is a fifth of the events, or events of nobody's taste."""
        shop, rng = content_shop(), np.random.default_rng(0)
        held_out = rng.random(len(shop.interactions)) < 0.2
        train, rest = shop.interactions.take(~held_out), shop.interactions.take(held_out)
        other = replace(rest, item=rng.permutation(rest.item))
        found = []
        for part in (rest, other):
            dataset = Dataset("shop", shop.users, shop.catalog, part)
            found.append(model(Split(dataset, train, part.take(slice(0)), part, kind="given").train_data()).added[0])
        assert (found[0] != found[1]).nnz == 0
        assert (found[0] != model(shop).added[0]).nnz > 0, "held-out events, were they seen, would change edges"
        assert found[0].multiply(rest.csr).nnz > 0, "an edge may foretell a held-out event: nobody told it"

    def test_the_fusion_starts_near_view_a(self, data: TrainData) -> None:
        built = model(data, moved=False)
        real, added = built.behaviour(built.views)
        beta = torch.sigmoid(-0.85 - 0.1 * built.degree.log1p()).unsqueeze(1)
        torch.testing.assert_close(built.fused([real, added], built.degree), (1 - beta) * real + beta * added)

    def test_scores_take_the_whole_graph_after_an_epoch(self, data: TrainData) -> None:
        built = model(data, dropout=0.8)
        before = built.scorer(data.catalog)(EVERYBODY)
        built.start_epoch(1)
        assert built.thinned[0].columns.numel() < 0.3 * built.views[0].columns.numel()
        torch.testing.assert_close(built.scorer(data.catalog)(EVERYBODY), before, atol=0, rtol=0)


def test_features_that_are_read_may_be_trained(data: TrainData) -> None:
    batch = Triples(*(torch.tensor(rows) for rows in ([0, 1], [3, 4], [9, 3])))
    for trainable in (False, True):
        built = model(data, purify=True, mixture_gradient="all", trainable_features=trainable)
        torch.stack(list(built.loss(batch).values())).sum().backward()
        for features in built.features:
            assert features.x.requires_grad == trainable
            assert (features.x.grad is not None and bool(features.x.grad.any())) == trainable
    with pytest.raises(ConfigError, match=r"purify=False: no feature is read"):
        model(data, trainable_features=True)
