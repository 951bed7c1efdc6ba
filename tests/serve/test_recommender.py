"""Recommendations by hand: external ids in and out, masks, pools, histories, bad requests."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse as sp
import torch
from torch import Tensor

from modalmix.data.catalog import Catalog
from modalmix.data.dataset import Dataset
from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.data.split import Split, TrainData
from modalmix.errors import QueryError, UnknownIdError
from modalmix.models.contract import ClosedFormRecommender, DotScorer, ModelConfig, Query
from modalmix.models.contract.history import SequentialScorer
from modalmix.serve.recommender import Run, pad
from modalmix.train import TrainResult

ITEMS = ["a", "b", "c", "d", "e"]


class FixedScores(ClosedFormRecommender[ModelConfig]):
    """User "u" likes items from last to first; user "v" likes all the same. Item vectors are one-hot."""

    def fit(self, data: TrainData) -> None:
        """Nothing to learn."""

    def scorer(self, catalog: Catalog) -> DotScorer:
        """Scores 0..4 for u, 1 for v."""
        return DotScorer(torch.stack([torch.arange(5.0), torch.ones(5)]), torch.eye(5))


def interactions(pairs: list[tuple[int, int]]) -> Interactions:
    rows = np.array(pairs, dtype=np.int32).reshape(-1, 2)
    return Interactions(rows[:, 0], rows[:, 1], 2, 5)


@pytest.fixture
def run() -> Run:
    table = pl.DataFrame({"item": ITEMS, "title": ["Ant", "Bee", None, "Dog", "Eel"]})
    catalog = Catalog(IdMap(ITEMS), {}, table)
    parts = [interactions([(0, 4), (1, 0)]), interactions([(0, 1)]), interactions([(0, 3)])]
    dataset = Dataset("tiny", IdMap(["u", "v"], "user"), catalog, parts[0] + parts[1] + parts[2])
    split = Split(dataset, *parts, kind="random")
    return Run(FixedScores(ModelConfig(), split.train_data()), split)


def test_known_items_are_left_out_and_titles_come_along(run: Run) -> None:
    frame = run.recommend(users=["u"], k=3)
    assert frame.to_dicts() == [
        {"user": "u", "rank": 1, "item": "c", "title": "c", "score": 2.0},
        {"user": "u", "rank": 2, "item": "a", "title": "Ant", "score": 0.0},
    ]


def test_without_the_filter_the_best_come_first(run: Run) -> None:
    assert run.recommend(users=["u"], k=2, filter_seen=False)["item"].to_list() == ["e", "d"]


def test_ties_are_broken_by_row_so_that_a_list_is_the_same_every_time(run: Run) -> None:
    assert run.recommend(users=["v"], k=4)["item"].to_list() == ["b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("candidates", "expected"), [("warm", ["e", "a"]), ("cold", ["d", "c", "b"]), (["b", "e"], ["e", "b"])]
)
def test_pools(run: Run, candidates: object, expected: list[str]) -> None:
    frame = run.recommend(users=["u"], k=len(expected), candidates=candidates, filter_seen=False)  # type: ignore[arg-type]
    assert frame["item"].to_list() == expected


def test_a_history_is_folded_in_and_its_own_items_left_out(run: Run) -> None:
    frame = run.recommend(history=["a", "b"], k=5)
    assert set(frame["item"]) == {"c", "d", "e"}
    several = run.recommend(history=[["a"], ["b", "c"]], k=1, filter_seen=False)
    assert several.select("query", "item").rows() == [(0, "a"), (1, "b")]


def test_the_first_ten_unknown_items_are_named_and_the_others_counted(run: Run) -> None:
    with pytest.warns(UserWarning, match=r"skipped: 'no0', .*'no9' and 2 more$"):
        run.recommend(history=["a", *(f"no{k}" for k in range(12))], k=1)


@pytest.mark.parametrize("of", [np.array, pl.Series, tuple, partial(pd.Series, index=[7, 8])])
def test_users_and_histories_may_be_arrays(run: Run, of: Callable[[list[str]], Any]) -> None:
    assert run.recommend(history=of(["a", "b"]), k=5).equals(run.recommend(history=["a", "b"], k=5))
    assert run.recommend(history=[of(["a", "b"])], k=np.int64(5)).equals(run.recommend(history=[["a", "b"]], k=5))
    assert run.recommend(users=of(["u", "v"]), k=1).equals(run.recommend(users=["u", "v"], k=1))


@pytest.mark.parametrize("ids", [17, {"u"}, {"u": 1}])
def test_ids_without_an_order_are_refused(run: Run, ids: Any) -> None:
    with pytest.raises(QueryError, match="users: got .*expected a list of ids"):
        run.recommend(users=ids, k=1)


def test_unknown_history_items_are_named_and_skipped(run: Run) -> None:
    with pytest.warns(UserWarning, match="'zebra'"):
        frame = run.recommend(history=["a", "zebra"], k=1, filter_seen=False)
    assert frame["item"].to_list() == ["a"]


@pytest.mark.parametrize("history", [[], ["zebra"], [3, ["a"]]])
@pytest.mark.filterwarnings("ignore:unknown items")
def test_a_history_without_a_known_item_is_answered_by_popularity(run: Run, history: list[Any]) -> None:
    counts = run.split.train.item_degree
    with pytest.warns(UserWarning, match="answered by popularity"):
        frame = run.recommend(history=history, k=2)
    assert frame["item"].to_list() == run.catalog.items.ids(np.argsort(-counts, kind="stable")[:2])
    assert frame["score"].to_list() == sorted(counts.tolist(), reverse=True)[:2]


@pytest.mark.filterwarnings("ignore:histories without")
def test_an_empty_history_spoils_no_other(run: Run) -> None:
    known = run.recommend(history=[["a"], ["b"]], k=2)
    frame = run.recommend(history=[["a"], [], ["b"]], k=2)
    assert frame["query"].to_list() == sorted(frame["query"].to_list())
    assert frame.filter(pl.col("query") == 1).height == 2
    for there, here in ((0, 0), (1, 2)):
        columns = pl.exclude("query")
        assert (
            known.filter(pl.col("query") == there)
            .select(columns)
            .equals(frame.filter(pl.col("query") == here).select(columns))
        )


def test_a_history_of_several_types_of_ids_is_named_and_skipped(run: Run) -> None:
    with pytest.warns(UserWarning, match="skipped: 3, \\['b'\\]"):
        frame = run.recommend(history=["a", 3, ["b"]], k=1, filter_seen=False)
    assert frame.equals(run.recommend(history=["a"], k=1, filter_seen=False))


def test_an_unknown_user_is_named_with_the_fix(run: Run) -> None:
    with pytest.raises(UnknownIdError, match=r"'w'.*history"):
        run.recommend(users=["w"], k=1)


@pytest.mark.parametrize("k", [0, 6])
def test_k_outside_the_catalogue_is_an_error(run: Run, k: int) -> None:
    with pytest.raises(QueryError, match="1 to 5"):
        run.recommend(users=["u"], k=k)


def test_exactly_one_of_users_and_history(run: Run) -> None:
    with pytest.raises(QueryError, match="exactly one"):
        run.recommend(k=1)
    with pytest.raises(QueryError, match="exactly one"):
        run.recommend(users=["u"], history=["a"], k=1)


def test_an_unknown_pool_is_an_error(run: Run) -> None:
    with pytest.raises(QueryError, match="'hot'"):
        run.recommend(users=["u"], k=1, candidates="hot")


def test_no_users_is_an_empty_table_of_the_same_columns(run: Run) -> None:
    frame = run.recommend(users=[], k=1)
    assert frame.shape == (0, 5)


def test_pad_fills_right_with_minus_one() -> None:
    assert pad([torch.tensor([3]), torch.tensor([1, 2])]).tolist() == [[3, -1], [1, 2]]


def test_one_string_is_not_a_list_of_ids(run: Run) -> None:
    with pytest.raises(QueryError, match=r"users: got str 'uv'.*Write \['uv'\]"):
        run.recommend(users="uv", k=1)
    with pytest.raises(QueryError, match="history"):
        run.recommend(history="ab", k=1)


def test_k_is_a_whole_number_and_the_pool_is_not_empty(run: Run) -> None:
    with pytest.raises(QueryError, match="got 2.5"):
        run.recommend(users=["u"], k=2.5)  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="empty"):
        run.recommend(users=["u"], k=1, candidates=[])


def test_the_summary_names_what_validation_said_and_only_that(run: Run) -> None:
    plain = TrainResult(3, 0.5, 5, "patience", 2.0, 1.0, 0)
    names = {"cold_scale", "cold_offset", "prior_factor"}
    assert Run(run.model, run.split, result=plain).summary().keys() & names == set()
    found = Run(run.model, run.split, result=replace(plain, cold_offset=10.0, prior_factor=4.0)).summary()
    assert (found["cold_offset"], found["prior_factor"], found["best_epoch"]) == (10.0, 4.0, 3)
    assert "cold_scale" not in found


def test_cold_items_are_calibrated_as_training_found(run: Run) -> None:
    """User u scores items 0 to 4 by row; rows 0 and 4 are warm (v's and u's), so that 1 to 3 are doubled and lifted."""
    result = TrainResult(0, None, 0, "closed form", 0.0, 0.0, 0, cold_scale=2.0, cold_offset=10.0)
    calibrated = Run(run.model, run.split, result=result)
    scores = calibrated.scorer(Query(users=torch.tensor([0, 1])))
    assert scores.tolist() == [[0, 12, 14, 16, 4], [1, 12, 12, 12, 1]]
    assert calibrated.recommend(users=["u"], k=1, filter_seen=False)["score"].to_list() == [16.0]
    assert run.scorer(Query(users=torch.tensor([0]))).tolist() == [[0, 1, 2, 3, 4]]


class InPairs:
    """Inner products that see the items the wrong way round, and exact scores 0..4 for u, ties for v."""

    prior = None

    def __init__(self) -> None:
        self.table = torch.stack([torch.arange(5.0), torch.ones(5)])
        self.item_vectors = torch.arange(5.0).flip(0).unsqueeze(1)

    def vectors(self, query: Query) -> Tensor:
        return torch.ones(len(query), 1)

    def __call__(self, query: Query) -> Tensor:
        return self.table[query.users] if query.users is not None else self.table[:1].expand(len(query), -1)

    def pairs(self, query: Query, candidates: Tensor) -> Tensor:
        return self(query).gather(1, candidates)


class ScoredInPairs(ClosedFormRecommender[ModelConfig]):
    """A model whose scorer is the above."""

    def fit(self, data: TrainData) -> None:
        """Nothing to learn."""

    def scorer(self, catalog: Catalog) -> InPairs:
        """The above."""
        return InPairs()


@pytest.fixture
def in_pairs(run: Run) -> Run:
    return Run(ScoredInPairs(ModelConfig(), run.split.train_data()), run.split)


class TestTwoSteps:
    """The inner products name a, b, c, ... in this order; the exact scores e, d, c, ..."""

    @pytest.mark.parametrize(("retrieve", "expected"), [(2, ["b", "a"]), (3, ["c", "b"]), (5, ["e", "d"])])
    def test_only_what_is_retrieved_is_listed_by_its_exact_score(
        self, in_pairs: Run, retrieve: int, expected: list[str]
    ) -> None:
        frame = in_pairs.recommend(users=["u"], k=2, filter_seen=False, retrieve=retrieve)
        assert frame["item"].to_list() == expected
        assert frame["score"].to_list() == [float(ITEMS.index(item)) for item in expected]

    def test_with_all_candidates_it_is_the_full_ranking(self, in_pairs: Run) -> None:
        for how in ({"users": ["u", "v"]}, {"history": [["a"], ["b", "c"]]}):
            whole = in_pairs.recommend(k=3, **how)
            assert in_pairs.recommend(k=3, retrieve=5, **how).equals(whole)

    def test_what_was_met_is_not_among_the_candidates(self, in_pairs: Run) -> None:
        """u met b, d and e: of what is left a and c are named first."""
        assert in_pairs.recommend(users=["u"], k=2, retrieve=2)["item"].to_list() == ["c", "a"]
        assert in_pairs.recommend(history=["a"], k=2, retrieve=2)["item"].to_list() == ["c", "b"]

    def test_candidates_come_from_the_pool(self, in_pairs: Run) -> None:
        frame = in_pairs.recommend(users=["u"], k=1, candidates=["c", "d"], filter_seen=False, retrieve=1)
        assert frame["item"].to_list() == ["c"]

    def test_it_survives_the_calibration_of_cold_items(self, in_pairs: Run) -> None:
        """Warm are a and e; 10 more for the cold ones."""
        result = TrainResult(1, 0.0, 1, "patience", 0.0, 0.0, 0, cold_offset=10.0)
        run = replace(in_pairs, result=result)
        frame = run.recommend(users=["u"], k=2, filter_seen=False, retrieve=3)
        assert frame.select("item", "score").rows() == [("d", 13.0), ("c", 12.0)]

    @pytest.mark.parametrize(("retrieve", "message"), [(0, "candidates to retrieve"), (1, "at most the 1 candidates")])
    def test_too_few_candidates_are_refused(self, in_pairs: Run, retrieve: int, message: str) -> None:
        with pytest.raises(QueryError, match=message):
            in_pairs.recommend(users=["u"], k=2, retrieve=retrieve)

    def test_a_model_of_inner_products_is_refused(self, run: Run) -> None:
        with pytest.raises(QueryError, match=r"does not score in two steps.*Leave retrieve out"):
            run.recommend(users=["u"], k=2, retrieve=3)


def _parts(run: Run) -> tuple[Interactions, Interactions, Interactions]:
    return run.split.train, run.split.valid, run.split.test


class AfterTheLast(ClosedFormRecommender[ModelConfig]):
    """A sequential model that reads two items: the row after that of the last one is best, then the row before."""

    def fit(self, data: TrainData) -> None:
        """Nothing to learn."""

    def scorer(self, catalog: Catalog) -> SequentialScorer:
        """Vectors of the histories point at rows."""

        def encode(history: Tensor, times: Tensor | None) -> Tensor:
            last = history.gather(1, (history >= 0).sum(dim=1, keepdim=True) - 1).squeeze(1)
            assert history.shape[1] <= 2
            return torch.eye(5)[(last + 1) % 5] + 0.5 * torch.eye(5)[last - 1]

        return SequentialScorer(2, self.data.sequences, encode, torch.eye(5), torch.tensor([0.0, 3.0, 2.0, 1.0, 0.5]))


class NextOfMet(ClosedFormRecommender[ModelConfig]):
    """Scores an item 1 where the user has met the one before it."""

    def fit(self, data: TrainData) -> None:
        """Nothing to learn."""

    def scorer(self, catalog: Catalog) -> "FollowsMet":
        """Of the train events."""
        return FollowsMet(interactions([(0, 4), (1, 0)]).csr)


class FollowsMet:
    """Its scorer."""

    def __init__(self, met: sp.csr_matrix) -> None:
        self.met = met

    def following(self, met: sp.csr_matrix) -> "FollowsMet":
        """Where users have met this."""
        return FollowsMet(met)

    def __call__(self, query: Query) -> Tensor:
        """Row by row."""
        assert query.users is not None
        return torch.from_numpy(np.roll(self.met[query.users.numpy()].toarray(), 1, axis=1))


class TestHistories:
    @pytest.fixture
    def ordered(self, run: Run) -> Run:
        data = run.split.train_data()
        model = AfterTheLast(ModelConfig(), data)
        model.data = data
        return replace(run, model=model)

    def test_a_known_user_is_asked_for_with_all_that_is_known_by_now_in_order(self, ordered: Run) -> None:
        # u met e in training, b in validation, d in the test part: d is the last
        assert ordered.recommend(users=["u"], k=2, filter_seen=False)["item"].to_list() == ["e", "c"]
        assert ordered.recommend(users=["v"], k=1)["item"].to_list() == ["b"]

    def test_order_decides(self, ordered: Run) -> None:
        found = ordered.recommend(history=[["a", "c"], ["c", "a"]], k=1)
        assert found["item"].to_list() == ["d", "b"]

    def test_a_model_that_reads_times_is_told_when_it_all_happened(self, run: Run) -> None:
        timed = [
            replace(part, time=np.array(time)) for part, time in zip(_parts(run), ([10, 7], [20], [30]), strict=True)
        ]
        dataset = replace(run.split.dataset, interactions=timed[0] + timed[1] + timed[2])
        split, asked = Split(dataset, *timed, kind="random"), []

        class Listener(AfterTheLast):
            def scorer(self, catalog: Catalog) -> SequentialScorer:
                def encode(history: Tensor, times: Tensor | None) -> Tensor:
                    asked.append(None if times is None else times.tolist())
                    return torch.eye(5)[: len(history)]

                return SequentialScorer(
                    2, split.train_data().sequences, encode, torch.eye(5), torch.ones(5), reads_times=True
                )

        served = Run(Listener(ModelConfig(), split.train_data()), split)
        served.recommend(users=["u", "v"], k=1)
        served.recommend(history=["a", "c"], k=1)
        assert asked == [[[20, 30], [7, 0]], None]

    def test_an_empty_history_is_answered_by_popularity_and_says_so(self, ordered: Run) -> None:
        with pytest.warns(UserWarning, match="answered by popularity"):
            assert ordered.recommend(history=[], k=2)["item"].to_list() == ["b", "c"]

    def test_a_history_of_unknown_items_is_answered_by_popularity_and_says_so(self, ordered: Run) -> None:
        with (
            pytest.warns(UserWarning, match="unknown items in a history are skipped: 'no', 'nope'"),
            pytest.warns(UserWarning, match="answered by popularity"),
        ):
            found = ordered.recommend(history=["no", "nope"], k=2)
        assert found["item"].to_list() == ["b", "c"]

    def test_a_model_of_what_was_met_follows_all_that_is_known_by_now(self, run: Run) -> None:
        # u met e in training, b in validation, d in the test part: a follows e, c follows b, e follows d
        model = NextOfMet(ModelConfig(), run.split.train_data())
        asked = replace(run, model=model).recommend(users=["u"], k=5, filter_seen=False)
        assert dict(asked.select("item", "score").iter_rows()) == {"a": 1, "c": 1, "e": 1, "b": 0, "d": 0}
