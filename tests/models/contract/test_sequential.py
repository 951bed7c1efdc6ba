"""What sequential models share: batches, losses, the scorer, histories of any kind."""

from dataclasses import replace
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
from modalmix.models import names
from modalmix.models.contract import Query, find_model
from modalmix.models.contract.sequential import (
    Items,
    SequentialConfig,
    SequentialRecommender,
    Steps,
    TransformerConfig,
)
from tests.models.conftest import Shop
from tests.models.sequences import several, with_categories, with_days

SEQUENTIAL = [name for name in names() if issubclass(find_model(name).config, SequentialConfig)]
CAUSAL = [name for name in SEQUENTIAL if name != "bsarec"]  # which trains on prefixes


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


def test_in_bfloat16_the_softmax_is_that_of_rounded_numbers() -> None:
    exact, coarse = build(), build(precision="bfloat16")
    batch = next(iter(exact.batches(DATA, 64, np.random.default_rng(0))))
    one, other = (model.loss(batch)["softmax"] for model in (exact, coarse))
    assert not torch.equal(one, other)
    torch.testing.assert_close(one, other, rtol=0.01, atol=0)


@pytest.mark.parametrize("loss", ["sampled", "bce"])
def test_a_precision_that_would_do_nothing_is_refused(loss: str) -> None:
    with pytest.raises(ConfigError, match=f"loss={loss} has none"):
        SequentialConfig.parse({"precision": "bfloat16", "loss": loss})


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


def test_sampled_softmax_of_everything_is_the_softmax() -> None:
    """Warm items alone are drawn, each once; the default draws as many as there are."""
    (sampled,) = build(loss="sampled").batches(DATA, 99, np.random.default_rng(0))
    assert sampled.sampled is not None
    assert sorted(sampled.sampled.tolist()) == [0, 1, 2, 3, 4]
    model, full = build(loss="sampled", correct_target=False), build()
    terms, expected = model.loss(sampled), full.loss(sampled._replace(sampled=None))
    assert set(terms) == {"sampled", "reg"}
    torch.testing.assert_close(terms["sampled"], expected["softmax"])
    (ours,), (theirs,) = (
        torch.autograd.grad(loss, one.table) for loss, one in ((terms["sampled"], model), (expected["softmax"], full))
    )
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("correct", [True, False])
def test_sampled_softmax_by_hand(correct: bool) -> None:
    """Events of the warm items: 2 2 3 2 1. Three of five are drawn, by popularity."""
    model = build(loss="sampled", sampled=3, proposal_power=1.0, correct_target=correct)
    events = torch.tensor([2.0, 2, 3, 2, 1])
    torch.testing.assert_close(model.log_expected[:5], (3 * events / 10).log())
    batch = Steps(torch.tensor([[0, 1], [3, -1]]), torch.tensor([[1, 2], [1, -1]]), sampled=torch.tensor([0, 2, 4]))
    t, logit = model.table, model.table @ model.table[:5].T - model.log_expected[:5]
    own = torch.stack([t[0] @ t[1], t[1] @ t[2], t[3] @ t[1]])
    if correct:
        own = own - model.log_expected[[1, 2, 1]]
    # the second target is drawn: it stands there once, as the target
    others = torch.stack([logit[0, [0, 2, 4]], logit[1, [0, 4, 4]], logit[3, [0, 2, 4]]])
    others[1, 2] = -torch.inf
    expected = torch.cat([own[:, None], others], dim=1).logsumexp(dim=1) - own
    torch.testing.assert_close(model.loss(batch)["sampled"], expected.mean())


def test_samples_follow_from_the_generator_alone() -> None:
    model, drawn = build(loss="sampled", sampled=2, batch_size=2), []
    for seed in (5, 5, 6):
        torch.manual_seed(len(drawn))  # says nothing
        np.random.seed(len(drawn))  # nor this
        drawn.append([batch.sampled.tolist() for batch in model.batches(DATA, 2, np.random.default_rng(seed))])
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(drawn[0]) > 1
    assert any(one != drawn[0][0] for one in drawn[0]), "each step draws anew"
    plain = list(build().batches(DATA, 2, np.random.default_rng(5)))
    assert all(batch.sampled is None for batch in plain)


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
    warmed = build(lr_decay="linear", epochs=4, warmup=2)
    assert [warmed.lr_scale(epoch) for epoch in range(1, 5)] == pytest.approx([1 / 3, 0.75 * 2 / 3, 0.5, 0.25])
    assert isinstance(build().optimizer(), torch.optim.AdamW)


class When(Last):
    """Keeps the times of the queries."""

    reads_times = True

    def query_states(
        self, history: Int[Tensor, "batch length"], times: Int[Tensor, "batch length"] | None, items: Items
    ) -> Float[Tensor, "batch dim"]:
        self.asked = None if times is None else times.tolist()
        return super().query_states(history, times, items)


def test_a_model_that_reads_times_gets_them_in_batches_and_queries() -> None:
    time = np.array([10, 20, 40, 80, 5, 6, 7, 1, 2, 3])
    data = TrainData(DATA.users, DATA.catalog, replace(DATA.interactions, time=time))
    model = When(SequentialConfig.parse({"dim": 3}), data)
    (batch,) = model.batches(data, 99, np.random.default_rng(0))
    assert batch.times is not None
    pairs = zip(batch.inputs.flatten().tolist(), batch.times.flatten().tolist(), strict=True)
    assert sorted(pair for pair in pairs if pair[0] >= 0) == [(0, 10), (1, 20), (2, 1), (2, 2), (2, 40), (3, 5)]
    scorer = model.scorer(data.catalog)
    scorer(Query(users=torch.tensor([1, 0])))
    assert model.asked == [[5, 6, 0, 0], [10, 20, 40, 80]]
    scorer(Query(history=torch.tensor([[1, 2]])))
    assert model.asked is None
    (plain,) = build(data).batches(data, 99, np.random.default_rng(0))
    assert plain.times is None, "who does not read them pays nothing"


def test_nothing_to_predict() -> None:
    lonely = shop([0], [1], [])
    with pytest.raises(DataError, match="two events"):
        list(build(lonely).batches(lonely, 4, np.random.default_rng(0)))


@pytest.mark.parametrize(
    "wrong", [{"heads": 3}, {"length": 0}, {"dropout": 1.0}, {"loss": "bpr"}, {"sampled": 0}, {"proposal_power": 1.5}]
)
def test_bad_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TransformerConfig.parse(wrong)


@pytest.fixture
def rich(content_shop: Shop) -> TrainData:
    """All that any model reads: content, categories, times."""
    return with_days(with_categories(content_shop(), [several(k) for k in range(30)]))


def build_named(name: str, data: TrainData, **settings: Any) -> SequentialRecommender[Any]:
    found = find_model(name)
    torch.manual_seed(0)
    model = found.recommender(found.config.parse({"dim": 4, "init_std": 0.5, **settings}), data)
    assert isinstance(model, SequentialRecommender)
    return model.eval()


@torch.no_grad()
@pytest.mark.parametrize("name", SEQUENTIAL)
def test_every_sequential_model_takes_the_sampled_loss(name: str, rich: TrainData) -> None:
    """Of all items, the target's logit as it is, it is their softmax; of some, another."""
    sampled, softmax = build_named(name, rich, loss="sampled", correct_target=False), build_named(name, rich)
    batch = next(sampled.batches(rich, 64, np.random.default_rng(0)))
    expected = softmax.loss(batch._replace(sampled=None))["softmax"]
    torch.testing.assert_close(sampled.loss(batch)["sampled"], expected)
    few = build_named(name, rich, loss="sampled", sampled=3)
    part = next(few.batches(rich, 64, np.random.default_rng(0)))
    assert part.sampled is not None
    assert len(part.sampled) == 3
    assert not torch.isclose(few.loss(part)["sampled"], expected)


@torch.no_grad()
@pytest.mark.parametrize("name", CAUSAL)
def test_one_causal_pass_is_the_mean_over_prefixes(name: str, rich: TrainData) -> None:
    """Where no history is longer than what is read: the longest has as many targets."""
    length = int(rich.sequences.lengths.max()) - 1
    built, rng = build_named(name, rich, length=length), np.random.default_rng(0)
    (causal,) = built.batches(rich, 10_000, rng)
    apart = build_named(name, rich, length=length, training="prefixes")
    (prefixes,) = apart.batches(rich, 10_000, rng)
    assert apart.n_batches(rich, 10_000) == 1
    assert len(prefixes.inputs) == int((causal.targets >= 0).sum()) > len(causal.inputs)
    torch.testing.assert_close(built.loss(causal)["softmax"], apart.loss(prefixes)["softmax"])


@torch.no_grad()
@pytest.mark.parametrize("name", CAUSAL)
def test_padding_changes_no_term_of_the_loss(name: str, rich: TrainData) -> None:
    still = {"cammsr": {"swap_rate": 0.0}, "hm4sr": {"placeholder_rate": 1.0}}.get(name, {})  # nothing is drawn
    built = build_named(name, rich, reg=0.1, **still)
    batch = next(built.batches(rich, 64, np.random.default_rng(0)))
    wider = batch._replace(
        inputs=F.pad(batch.inputs, (0, 2), value=-1),
        targets=F.pad(batch.targets, (0, 2), value=-1),
        times=None if batch.times is None else F.pad(batch.times, (0, 2)),
    )
    torch.testing.assert_close(built.loss(wider), built.loss(batch))


@pytest.mark.parametrize("loss", ["softmax", "sampled", "bce"])
@pytest.mark.parametrize("name", SEQUENTIAL)
def test_prefixes_train_every_term(name: str, loss: str, rich: TrainData) -> None:
    """A row a target, which stands at the row's last item; with `long_histories="last"` fewer of them."""
    built = build_named(name, rich, length=4, training="prefixes", loss=loss).train()
    batches = list(built.batches(rich, 32, np.random.default_rng(0)))
    assert len(batches) == built.n_batches(rich, 32)
    targets = 0
    for batch in batches:
        real = batch.targets >= 0
        assert (real.sum(dim=1) == 1).all()
        assert (real.long().argmax(dim=1) == (batch.inputs >= 0).sum(dim=1) - 1).all()
        assert (batch.negatives is not None) == (loss == "bce")
        if batch.negatives is not None:
            assert ((batch.negatives >= 0) == real).all()
        targets += int(real.sum())
    assert targets == int((rich.sequences.lengths - 1).clip(0).sum())
    terms = built.loss(batches[0])
    assert loss in terms
    assert all(bool(term.isfinite()) for term in terms.values())
    torch.stack(list(terms.values())).sum().backward()
    last = build_named(name, rich, length=4, training="prefixes", long_histories="last", loss=loss)
    fewer = [int((batch.targets >= 0).sum()) for batch in last.batches(rich, 32, np.random.default_rng(0))]
    assert sum(fewer) == int((rich.sequences.lengths - 1).clip(0, 4).sum()) < targets
    assert len(fewer) == last.n_batches(rich, 32)
