"""Recommendations from a fitted model: what was measured is what is served."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from modalmix.data.catalog import Catalog
from modalmix.data.ids import Ids
from modalmix.data.interactions import Interactions
from modalmix.data.sequences import Sequences
from modalmix.data.split import Split
from modalmix.errors import QueryError, UnknownIdError
from modalmix.models.contract import Query, Recommender, Scorer, calibrate
from modalmix.models.contract.histories import FollowingScorer
from modalmix.models.contract.history import HistoryScorer
from modalmix.models.contract.retrieval import Best, FullRanking, PairScorer, Ranker, TwoStep
from modalmix.models.popularity import PopularityScorer
from modalmix.serve.add import Features, Files, Table, extend_catalog, warn_without_content
from modalmix.train import RunFolder, TrainResult

_CHUNK = 512  # queries scored at once: bounds memory to chunk x items
POOLS = ("all", "warm", "cold", "new")
Candidates = Literal["all", "warm", "cold", "new"] | Ids
_TIES = ("events_tied_in_time", "users_split_by_a_tie")  # the file's order says which event is held out
_PLAIN = {"cold_scale": 1.0, "cold_offset": 0.0, "prior_factor": 1.0}  # where there was nothing to fit


@dataclass(frozen=True, eq=False)
class Run:
    """A fitted model, the split it was trained on, and the run folder it came from (None when nothing was saved).

    `extended` is the data set's catalogue with the items that were added to this run below, None before there are any.
    """

    model: Recommender[Any]
    split: Split
    folder: RunFolder | None = None
    result: TrainResult | None = None
    extended: Catalog | None = None

    def summary(self) -> dict[str, Any]:
        """Model, sizes, what training gave, and what was fitted on validation after it, JSON-able."""
        parts = {"train": len(self.split.train), "valid": len(self.split.valid), "test": len(self.split.test)}
        facts: dict[str, Any] = {"model": type(self.model).__module__.rpartition(".")[2]}
        facts |= {"data": self.split.dataset.name, "split": self.split.kind, "interactions": parts}
        facts |= {name: count for name, count in self.split.report.items() if count and name in _TIES}
        modalities = self.split.dataset.catalog.modalities
        facts["modalities"] = {name: f"{one.present.mean():.1%} of items" for name, one in modalities.items()}
        if self.extended is not None:
            facts["added_items"] = len(self.extended) - len(self.split.dataset.catalog)
        if self.result is not None:
            names = ("best_epoch", "best_score", "epochs", "stopped", "seconds", "cpu_seconds")
            result = asdict(self.result)
            facts |= {name: result[name] for name in names}
            facts |= {name: result[name] for name, plain in _PLAIN.items() if result[name] != plain}
        return facts

    @property
    def catalog(self) -> Catalog:
        """The items that can be recommended: those of the data set, then the added ones."""
        return self.split.dataset.catalog if self.extended is None else self.extended

    @property
    def without_added_items(self) -> "Run":
        """The run as it was fitted; evaluation ranks its items."""
        return self if self.extended is None else replace(self, extended=None)

    @cached_property
    def scorer(self) -> Scorer:
        """The frozen model over the catalogue, added items included."""
        return self.scorer_of(self.catalog)

    @torch.no_grad()
    def scorer_of(self, catalog: Catalog) -> Scorer:
        """The frozen model over a catalogue that extends the training one, cold items calibrated."""
        scorer = self.model.eval().scorer(catalog)
        if self.result is None:
            return scorer
        return calibrate(scorer, torch.from_numpy(self.split.train.item_degree > 0), self.result.calibration)

    def add_items(
        self,
        table: Table,
        *,
        images: Files | None = None,
        audio: Files | None = None,
        features: Features | None = None,
    ) -> "Run":
        """A run that recommends new items too, without training; this one stays as it is.

        Content goes the way the data set's content went: same encoders, same settings, texts from the same columns.
        What an item lacks is absent; items without any content are accepted with a warning.

        Args:
            table: one row an item: a DataFrame (polars, pandas), a list of dicts, or the path of a table. A column
                `item`, and title, description, ... as the data set has them; columns it does not have are not read.
            images: a folder of pictures named by item, or one path a row (None where there is none).
            audio: the same for sounds.
            features: modality -> matrix [rows, dim] or feature file, instead of encoding; a row of NaN is absent.

        Raises:
            DataError: no such file or column, a repeated or known id, a modality or dim the data set does not have.
            EncodeError: content cannot be encoded as the data set's was.
        """
        files = {name: given for name, given in (("image", images), ("audio", audio)) if given is not None}
        catalog = extend_catalog(self.catalog, self.split.dataset, table, files, features or {})
        warn_without_content(catalog, len(self.catalog), self.model.modalities)
        return replace(self, extended=catalog)

    def recommend(
        self,
        users: Ids | None = None,
        history: Ids | Sequence[Ids] | None = None,
        k: int = 10,
        candidates: Candidates = "all",
        filter_seen: bool = True,
        retrieve: int | None = None,
    ) -> pl.DataFrame:
        """The best `k` items for known users, or for histories of people never seen in training.

        A known user is asked for with everything the data set knows of this one by now, held-out events too, where the
        model reads what users have met (sequences, neighbours, filters); elsewhere with what was learnt in training.

        Args:
            users: external user ids.
            history: external item ids, oldest first; a list of lists asks for several people at once.
            k: length of each list; shorter where fewer candidates are left.
            candidates: "all", "warm" (with train interactions), "cold" (without), "new" (added), or external item ids.
            filter_seen: leave out every item the user is known to have met (all events of the data set, held-out ones
                too; for a history: its own items).
            retrieve: for a model that scores pair by pair: so many items are retrieved by inner products, and as many
                by the model's prior where it has one, and only these are scored exactly. All items without it.

        Returns:
            One row a recommendation: user (or query number), rank from 1, item, title, score.

        Raises:
            UnknownIdError: a user or candidate is unknown. An unknown id in a history is skipped with a warning.
            QueryError: k is not in 1..number of candidates, or the model cannot score a history, or not in two steps.
                A history without any known item is answered by popularity, with a warning.
        """
        pool = self._pool(candidates)
        users, history = (_listed(name, given) for name, given in (("users", users), ("history", history)))
        if not pool.any():
            raise QueryError("the pool of candidates is empty", got=repr(candidates), expected="at least one item")
        k = int(k) if isinstance(k, np.integer) else k
        if not isinstance(k, int) or not 1 <= k <= int(pool.sum()):
            raise QueryError("k", got=k, expected=f"1 to {int(pool.sum()):,}, the number of candidates")
        if (users is None) == (history is None):
            raise QueryError("recommend", got="both or neither of users and history", expected="exactly one")
        top = partial(self._ranker(retrieve).top, k=k, pool=None if pool.all() else torch.from_numpy(pool))
        if users is not None:
            return self._for_users(users, top, filter_seen)
        assert history is not None
        popular = partial(FullRanking(self._popular).top, **top.keywords)
        return self._for_histories(history, top, popular, filter_seen)

    def _ranker(self, retrieve: int | None) -> Ranker:
        if retrieve is None:
            return FullRanking(self._informed)
        if not isinstance(self._informed, PairScorer):
            raise QueryError(
                f"model {type(self.model).__module__.rpartition('.')[2]} does not score in two steps",
                got=f"retrieve={retrieve}",
                fix="Leave retrieve out: all items are scored.",
            )
        return TwoStep(self._informed, retrieve)

    def _for_users(self, users: Ids, top: Callable[..., Best], filter_seen: bool) -> pl.DataFrame:
        rows = self._user_rows(users)
        frames = []
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            best = top(self._query_of(chunk), exclude=self._met(chunk) if filter_seen else None)
            frames.append(self._table("user", self.split.dataset.users.ids(chunk), best))
        none = Best(torch.empty((0, 1), dtype=torch.int64), torch.empty(0, 1))
        return pl.concat(frames) if frames else self._table("user", [], none)

    def _query_of(self, users: Int[np.ndarray, " users"]) -> Query:
        """Known users; what they met by now, in order, for a model that reads histories."""
        if isinstance(self.scorer, HistoryScorer):
            return self.scorer.ask(self._sequences, users)
        return Query(users=torch.from_numpy(users))

    def _for_histories(
        self,
        history: Ids | Sequence[Ids],
        top: Callable[..., Best],
        popular: Callable[..., Best],
        filter_seen: bool,
    ) -> pl.DataFrame:
        """By the model; by popularity where nothing of a history is known and the scorer does not say so itself."""
        several = len(history) > 0 and not isinstance(history[0], str) and isinstance(history[0], Iterable)
        histories = [self._history_rows(_listed("history", one)) for one in (history if several else [history])]
        empty = [k for k, rows in enumerate(histories) if not len(rows) and not isinstance(self.scorer, HistoryScorer)]
        if empty:
            warnings.warn("histories without any known item are answered by popularity", stacklevel=3)
        frames = []
        for best_of, asked in ((top, sorted(set(range(len(histories))) - set(empty))), (popular, empty)):
            for start in range(0, len(asked), _CHUNK):
                queries = asked[start : start + _CHUNK]
                padded = pad([torch.from_numpy(histories[k]) for k in queries])
                best = best_of(Query(history=padded), exclude=padded if filter_seen else None)
                frames.append(self._table("query", queries, best))
        return pl.concat(frames).sort("query", maintain_order=True)

    def _table(self, name: str, queries: Iterable[Any], best: Best) -> pl.DataFrame:
        """One row a recommendation."""
        queries, scores = list(queries), best.scores.numpy()
        query, place = np.nonzero(np.isfinite(scores))
        rows = best.rows.numpy()[query, place]
        catalog = self.catalog
        ids = self.split.dataset.users.series.dtype if name == "user" else pl.Int64
        return pl.DataFrame(
            {
                name: pl.Series([queries[q] for q in query], dtype=ids),
                "rank": place + 1,
                "item": pl.Series(catalog.items.ids(rows), dtype=catalog.items.series.dtype),
                "title": pl.Series(catalog.titles(rows), dtype=pl.String),
                "score": scores[query, place],
            }
        )

    def _met(self, users: Int[np.ndarray, " users"]) -> Int[Tensor, "users most"]:
        """What each user is known to have met, padded."""
        known = self._known.csr[users]
        return pad([torch.from_numpy(one.astype(np.int64)) for one in np.split(known.indices, known.indptr[1:-1])])

    def _pool(self, candidates: Candidates) -> Bool[np.ndarray, " items"]:
        items, fitted = self.catalog.items, len(self.split.dataset.catalog)
        if isinstance(candidates, str):
            warm = np.zeros(len(items), dtype=bool)
            warm[:fitted] = self.split.train.item_degree > 0
            if candidates not in POOLS:
                raise QueryError(
                    "candidates", got=repr(candidates), expected=f"{', '.join(POOLS)}, or a list of item ids"
                )
            new = np.arange(len(items)) >= fitted
            return {"all": np.ones_like(warm), "warm": warm, "cold": ~warm, "new": new}[candidates]
        pool = np.zeros(len(items), dtype=bool)
        pool[items.rows(candidates)] = True
        return pool

    def _user_rows(self, users: Ids) -> Int[np.ndarray, " users"]:
        try:
            return self.split.dataset.users.rows(users)
        except UnknownIdError as error:
            raise UnknownIdError(
                error.thing,
                got=error.got,
                expected=error.expected,
                fix="For somebody new, ask with history=[item ids].",
            ) from None

    def _history_rows(self, history: Ids) -> Int[np.ndarray, " known"]:
        rows = self.catalog.items.find(history) if len(history) else np.empty(0, dtype=np.int64)
        unknown = [repr(id) for id, row in zip(history, rows, strict=True) if row < 0]
        if unknown:
            named = ", ".join(unknown[:10]) + (f" and {len(unknown) - 10} more" if len(unknown) > 10 else "")
            warnings.warn(f"unknown items in a history are skipped: {named}", stacklevel=4)
        return rows[rows >= 0]

    @cached_property
    def _informed(self) -> Scorer:
        """The scorer that knows all events of the data set, held-out ones too, where it can follow them."""
        return self.scorer.following(self._known.csr) if isinstance(self.scorer, FollowingScorer) else self.scorer

    @cached_property
    def _popular(self) -> Scorer:
        counts = torch.from_numpy(self.split.train.item_degree).float()
        return PopularityScorer(torch.nn.functional.pad(counts, (0, len(self.catalog) - len(counts))))

    @cached_property
    def _known(self) -> Interactions:
        return self.split.train + self.split.valid + self.split.test

    @cached_property
    def _sequences(self) -> Sequences:
        return Sequences.of(self._known)


def _listed(name: str, ids: Any) -> Any:
    """Ids as a list, of arrays and Series (of pandas too); None stays. Raises QueryError for what has no order."""
    if ids is None or isinstance(ids, list):
        return ids
    if isinstance(ids, str) or not isinstance(ids, Iterable) or isinstance(ids, Set | Mapping):
        raise QueryError(name, got=f"{type(ids).__name__} {ids!r}", expected="a list of ids", fix=f"Write [{ids!r}].")
    return ids.tolist() if isinstance(ids, np.ndarray) else list(ids)


def pad(histories: Sequence[Int[Tensor, " length"]]) -> Int[Tensor, "batch longest"]:
    """Histories of different length in one tensor, padded right with -1; at least one column."""
    padded = torch.nn.utils.rnn.pad_sequence(list(histories), batch_first=True, padding_value=-1)
    return padded if padded.shape[1] else torch.nn.functional.pad(padded, (0, 1), value=-1)
