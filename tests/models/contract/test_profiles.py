"""Profiles by hand, and the weight of them where content decides and where it says nothing."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from modalmix.models.contract import TeacherConfig
from modalmix.models.contract.content import Content
from modalmix.models.contract.profiles import Profiles, choose_weight, mean_of_items
from modalmix.nn.evidence import Profile

USERS, ITEMS, GROUPS = 40, 160, 4


def test_a_user_is_the_mean_of_their_items() -> None:
    met = sp.csr_matrix(np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]]))
    vectors = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 8.0]])
    assert mean_of_items(met, vectors).tolist() == [[3.0, 5.0], [0.0, 0.0], [3.0, 4.0]]


def test_modalities_lie_side_by_side() -> None:
    """Each as `Profile` has it, fitted on warm items that have the modality; at most as wide as the features."""
    torch.manual_seed(0)
    features = torch.randn(30, 6), torch.randn(30, 3)
    present, warm = torch.ones(30, 2, dtype=torch.bool), torch.arange(30) < 24
    present[[0, 25], 0] = False
    profiles = Profiles((6, 3), 4)
    assert profiles.width == 7
    assert [name for name, _ in profiles.named_buffers()] == ["0.mean", "0.basis", "1.mean", "1.basis"]
    content = Content(features, present)
    profiles.fit(content, warm)
    places = profiles.places(content)
    assert places.shape == (30, 7)
    alone = Profile(6, 4)
    alone.fit(features[0][1:24])
    torch.testing.assert_close(places[:, :4], alone(features[0], present[:, 0]))
    assert not places[[0, 25], :4].any()
    torch.testing.assert_close(places[:, 4:].norm(dim=1), torch.ones(30))


def asked(alike: bool) -> tuple[sp.csr_matrix, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Users meet items of their own group; places show it, or nothing; the experts say nothing or all of it."""
    rng, group = np.random.default_rng(0), np.arange(ITEMS) % GROUPS
    met = (rng.random((USERS, ITEMS)) < 0.5) & (group == (np.arange(USERS) % GROUPS)[:, None])
    shown, noise = torch.eye(GROUPS)[group], torch.from_numpy(rng.standard_normal((ITEMS, GROUPS))).float()
    places, said = (shown, noise) if alike else (noise, shown)
    away = torch.from_numpy(rng.random(ITEMS) < 0.4)  # a group of it fits a list of 20
    return sp.csr_matrix(met, dtype=np.float32), places, said[:, None, None], shown, away


@pytest.mark.parametrize("alike", [True, False])
def test_the_weight_that_finds_most_of_what_is_away(alike: bool) -> None:
    """Some where the experts say noise; none where they know it all and places are noise."""
    met, places, unseen, factors, away = asked(alike)
    weight = choose_weight(met, places, unseen, factors, away, TeacherConfig(dim=GROUPS, reg=1.0))
    assert bool(weight > 0) == alike


def test_nobody_can_be_asked() -> None:
    met, places, unseen, factors, away = asked(True)
    for nowhere in (torch.zeros_like(away), torch.ones_like(away)):
        weight = choose_weight(met, places, unseen, factors, nowhere, TeacherConfig(dim=GROUPS))
        assert weight.shape == ()
        assert not weight
