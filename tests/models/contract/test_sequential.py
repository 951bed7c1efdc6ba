"""What sequential models share: batches, losses, the scorer, histories of any kind."""

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from modalmix.data import Catalog, IdMap, Interactions, TrainData
from modalmix.errors import ConfigError, DataError
from modalmix.models.contract import Query
from modalmix.models.contract.sequential import (
    Items,
    SequentialConfig,
    SequentialRecommender,
    Steps,
    TransformerConfig,
)


class Last(SequentialRecommender[SequentialConfig]):
    """The state is the vector of the last item: a Markov chain."""

    def __init__(self, config: SequentialConfig, data: TrainData) -> None:
        super().__init__(config, data)
        self.table = nn.Parameter(torch.randn(self.n_items, config.dim))

    def items(self, catalog: Catalog) -> Items:
        table = self.known(self.table, catalog)
        return Items(table, table)

    def states(self, history: Int[Tensor, "batch length"], items: Items) -> Float[Tensor, "batch length dim"]:
        return items.inputs[history.clamp(min=0)]


def shop(*histories: list[int], items: int = 7) -> TrainData:
    user = np.repeat(np.arange(len(histories)), [len(one) for one in histories]).astype(np.int32)
    events = Interactions(user, np.concatenate(histories).astype(np.int32), len(histories), items)
    return TrainData(IdMap(list(range(len(histories))), "user"), Catalog(IdMap(list(range(items)))), events)


DATA = shop([0, 1, 2, 3], [3, 1], [4], [], [2, 2, 0])


def build(data: TrainData = DATA, **settings: Any) -> Last:
    torch.manual_seed(0)
    return Last(SequentialConfig.parse({"dim": 3, **settings}), data)


def test_an_epoch_predicts_every_event_but_firsts_once() -> None:
    model = build(batch_size=3)
    batches = list(model.batches(DATA, 3, np.random.default_rng(0)))
    assert len(batches) == model.n_batches(DATA, 3) == 2
    pairs = [
        pair
        for batch in batches
        for pair in zip(
            batch.inputs[batch.targets >= 0].tolist(), batch.targets[batch.targets >= 0].tolist(), strict=True
        )
    ]
    assert sorted(pairs) == [(0, 1), (1, 2), (2, 0), (2, 2), (2, 3), (3, 1)]
    assert all(batch.negatives is None for batch in batches)
    (last,) = build(length=2, long_histories="last").batches(DATA, 99, np.random.default_rng(0))
    assert int((last.targets >= 0).sum()) == 5, "of the first user the last two alone"


def test_softmax_runs_over_warm_items_at_every_real_position() -> None:
    model = build()
    batch = Steps(torch.tensor([[0, 1], [3, -1]]), torch.tensor([[1, 2], [1, -1]]))
    scores = model.table[[0, 1, 3]] @ model.table[:5].T  # items 5 and 6 are cold
    expected = F.cross_entropy(scores, torch.tensor([1, 2, 1]))
    terms = model.loss(batch)
    torch.testing.assert_close(terms["softmax"], expected)
    assert terms["reg"] == 0
    (ours,) = torch.autograd.grad(terms["softmax"], model.table, retain_graph=True)
    (theirs,) = torch.autograd.grad(expected, model.table)
    torch.testing.assert_close(ours, theirs)
    assert not ours[5:].any()


def test_bce_takes_one_item_for_each_target_that_the_user_has_not_met() -> None:
    one = shop([0, 1, 2], [3, 4])
    drawn = set()
    for seed in range(30):
        (batch,) = build(one, loss="bce").batches(one, 99, np.random.default_rng(seed))
        assert batch.negatives is not None
        assert ((batch.negatives < 0) == (batch.targets < 0)).all()
        for targets, others in zip(batch.targets.tolist(), batch.negatives.tolist(), strict=True):
            drawn |= {(targets[0], other) for other in others if other >= 0}
    assert drawn == {(1, 3), (1, 4), (4, 0), (4, 1), (4, 2)}, "warm, and of the other user alone"
    model = build(loss="bce")
    batch = Steps(torch.tensor([[0, 1]]), torch.tensor([[1, -1]]), torch.tensor([[4, -1]]))
    t = model.table
    expected = -torch.sigmoid(t[0] @ t[1]).log() - torch.sigmoid(-(t[0] @ t[4])).log()
    torch.testing.assert_close(model.loss(batch)["bce"], expected)


def test_the_penalty_by_hand() -> None:
    model = build(reg=0.5)
    batch = Steps(torch.tensor([[0, 1]]), torch.tensor([[1, 2]]))
    squares = model.table.square().sum(dim=1)
    torch.testing.assert_close(model.loss(batch)["reg"], 0.5 * (squares[0] + 2 * squares[1] + squares[2]) / 2)


def test_scores_are_inner_products_with_the_last_state() -> None:
    model = build(length=3).eval()
    scorer = model.scorer(DATA.catalog)
    scores = scorer(Query(history=torch.tensor([[0, 1, 2, 3], [4, -1, -1, -1]])))
    torch.testing.assert_close(scores[:, :5], (model.table[[3, 4]] @ model.table[:5].T).detach())
    by_user = scorer(Query(users=torch.tensor([0, 2])))
    torch.testing.assert_close(by_user, scores)
    assert not scores.requires_grad


def test_cold_and_new_items_are_the_mean_item() -> None:
    model = build().eval()
    bigger = DATA.catalog.extend(pl.DataFrame({"item": [77]}), {})
    scores = model.scorer(bigger)(Query(history=torch.tensor([[2], [7]])))
    torch.testing.assert_close(scores[:, 5:], scores[:, :5].mean(dim=1, keepdim=True).expand(2, 3))
    mean = model.table[:5].mean(dim=0)
    torch.testing.assert_close(scores[1, :5], (model.table[:5] @ mean).detach())


def test_a_user_without_train_events_gets_popularity() -> None:
    with pytest.warns(UserWarning, match="answered by popularity"):
        scores = build().scorer(DATA.catalog)(Query(users=torch.tensor([3])))
    assert scores[0].argsort(descending=True, stable=True).tolist() == [2, 0, 1, 3, 4, 5, 6]


def test_the_learning_rate_falls_to_nothing() -> None:
    for decay, expected in {
        "none": [1, 1, 1, 1],
        "linear": [1, 0.75, 0.5, 0.25],
        "cosine": [1, 0.8535534, 0.5, 0.1464466],
    }.items():
        model = build(lr_decay=decay, epochs=4)
        assert [model.lr_scale(epoch) for epoch in range(1, 5)] == pytest.approx(expected)
    assert build(epochs=4).lr_scale(9) == 0
    assert isinstance(build().optimizer(), torch.optim.AdamW)


def test_nothing_to_predict() -> None:
    lonely = shop([0], [1], [])
    with pytest.raises(DataError, match="two events"):
        list(build(lonely).batches(lonely, 4, np.random.default_rng(0)))


@pytest.mark.parametrize("wrong", [{"heads": 3}, {"length": 0}, {"dropout": 1.0}, {"loss": "bpr"}])
def test_bad_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TransformerConfig.parse(wrong)
