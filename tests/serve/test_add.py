"""Added items against a data set rebuilt with them: the same vectors and scores. Raw content, features, bad input."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

from modalmix.data import Dataset, make_dataset, make_split
from modalmix.data.splitters import SplitConfig
from modalmix.errors import DataError, QueryError, UnknownIdError
from modalmix.models import names
from modalmix.models.contract import DotScorer, GradientConfig, Query, find_model
from modalmix.pipeline import evaluate, fit
from modalmix.serve.recommender import Run

USERS, ITEMS, NEW, DIMS = 31, 23, 3, {"look": 12, "words": 7}
READS_CONTENT = [name for name in names() if "modalities" in find_model(name).config.model_fields]
READS_IDS = [name for name in names() if name not in READS_CONTENT]
SCORES_IDS = ("fdsa",)  # reads content in histories, and compares with ids


def content(items: int = ITEMS + NEW) -> dict[str, np.ndarray]:
    """The same first rows, however many are asked for; some are absent, of a new item one too."""
    rng = np.random.default_rng(7)
    x = {name: rng.standard_normal((ITEMS + NEW, dim)).astype(np.float32) + 2 for name, dim in DIMS.items()}
    x["look"][[2, 9, ITEMS + 1]] = np.nan
    x["words"][[9, 12]] = np.nan
    return {name: rows[:items] for name, rows in x.items()}


def shop(items: int = ITEMS) -> Dataset:
    """Every user meets six of the items 0..18; whatever comes after is cold."""
    rng = np.random.default_rng(3)
    met = [(user, item) for user in range(USERS) for item in rng.choice(19, 6, replace=False)]
    when = [1_500_000_000 + 3_600 * k for k in range(len(met))]
    events = pl.DataFrame({"user": [f"u{u}" for u, _ in met], "item": [f"i{i}" for _, i in met], "timestamp": when})
    table = pl.DataFrame({"item": [f"i{k}" for k in range(items)], "title": [f"Item {k}" for k in range(items)]})
    return make_dataset(events, table, content(items))


def fitted(name: str, data: Dataset | None = None, **settings: Any) -> Run:
    if issubclass(find_model(name).config, GradientConfig):
        settings = {"dim": 8, "epochs": 1, "batch_size": 64, **settings}
    return fit(make_split(data or shop(), SplitConfig(kind="random", seed=1)), name, **settings)


def new_items(rows: slice = slice(None)) -> tuple[pl.DataFrame, dict[str, np.ndarray]]:
    ids = range(ITEMS, ITEMS + NEW)
    table = pl.DataFrame({"item": [f"i{k}" for k in ids], "title": [f"Item {k}" for k in ids]})
    return table[rows], {name: x[ITEMS:][rows] for name, x in content().items()}


def extended(run: Run) -> Run:
    table, features = new_items()
    return run.add_items(table, features=features)


def with_categories(data: Dataset) -> Dataset:
    """Each item has one category, every third none."""
    table = data.catalog.table
    column = pl.Series("categories", [[f"c{k % 4}"] if k % 3 else None for k in range(len(table))])
    return replace(data, catalog=replace(data.catalog, table=table.with_columns(column)))


def everyone(run: Run) -> torch.Tensor:
    return run.scorer(Query(users=torch.arange(len(run.split.dataset.users))))


@pytest.fixture(scope="module")
def run() -> Run:
    return fitted("contentmean")


@pytest.mark.parametrize("name", READS_CONTENT)
def test_vectors_and_scores_are_those_of_a_rebuilt_catalogue(name: str) -> None:
    before = fitted(name)
    after, rebuilt = extended(before), replace(before, extended=shop(ITEMS + NEW).catalog)
    scores = everyone(after)
    assert scores.shape == (USERS, ITEMS + NEW)
    torch.testing.assert_close(scores, everyone(rebuilt), atol=1e-6, rtol=0)
    torch.testing.assert_close(scores[:, :ITEMS], everyone(before), atol=1e-6, rtol=1e-6)
    told_apart = bool((scores[:, ITEMS:].std(dim=1) > 0).all())
    assert told_apart == (name not in SCORES_IDS), "the content of the new items makes no difference"
    if isinstance(after.scorer, DotScorer) and isinstance(rebuilt.scorer, DotScorer):
        torch.testing.assert_close(after.scorer.items, rebuilt.scorer.items, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["contentknn", "contentmean"])
def test_training_on_a_data_set_with_the_items_cold_gives_the_same(name: str) -> None:
    torch.testing.assert_close(
        everyone(extended(fitted(name))), everyone(fitted(name, shop(ITEMS + NEW))), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("name", READS_IDS)
def test_a_model_of_ids_ties_all_new_items(name: str) -> None:
    after = extended(fitted(name))
    new = everyone(after)[:, ITEMS:]
    assert torch.equal(new, new[:, :1].expand_as(new))
    frame = after.recommend(users=["u0", "u1"], k=NEW, candidates="new")
    assert frame["item"].to_list() == ["i23", "i24", "i25"] * 2
    assert frame.group_by("user").agg(pl.col("score").n_unique())["score"].to_list() == [1, 1]


def test_a_new_item_without_content_is_the_mean_item_and_a_warning_says_so(run: Run) -> None:
    with pytest.warns(UserWarning, match=r"1 of 2 new items have no look and no words.*First: 'bare'"):
        after = run.add_items([{"item": "full"}, {"item": "bare"}], features={"look": np.eye(2, 12) * [[1], [np.nan]]})
    assert isinstance(after.scorer, DotScorer)
    warm = run.split.train.item_degree > 0
    known = after.scorer.items[:ITEMS][torch.from_numpy(warm)]
    has = torch.from_numpy(~np.isnan(content(ITEMS)["look"]).all(1) | ~np.isnan(content(ITEMS)["words"]).all(1))
    torch.testing.assert_close(after.scorer.items[-1], known[has[torch.from_numpy(warm)]].mean(0))
    assert after.scorer.without_content is not None
    assert after.scorer.without_content[ITEMS:].tolist() == [False, True]


def test_content_of_a_modality_the_model_does_not_read_is_none() -> None:
    only_words = fitted("contentmean", modalities=("words",))
    with pytest.warns(UserWarning, match="1 of 1 new items have no words"):
        only_words.add_items([{"item": "x"}], features={"look": np.ones((1, 12))})


@pytest.mark.filterwarnings("error")
def test_the_run_that_was_stays_as_it_was(run: Run) -> None:
    before, catalog = everyone(run).clone(), run.catalog
    after = extended(run)
    assert run.catalog is catalog
    assert len(after.catalog) == ITEMS + NEW
    assert after.catalog.modality("look").present[ITEMS:].tolist() == [True, False, True]
    assert after.without_added_items.catalog is catalog
    assert torch.equal(everyone(run), before)
    with pytest.raises(UnknownIdError, match="i23"):
        run.recommend(users=["u0"], k=1, candidates=["i23"])
    assert after.summary()["added_items"] == NEW
    assert "added_items" not in run.summary()


def test_adding_one_after_another_is_adding_all(run: Run) -> None:
    one_by_one = run
    for row in range(NEW):
        table, features = new_items(slice(row, row + 1))
        one_by_one = one_by_one.add_items(table, features=features)
    assert one_by_one.catalog.sha256 == extended(run).catalog.sha256
    torch.testing.assert_close(everyone(one_by_one), everyone(extended(run)))


def test_pools_titles_and_histories_know_the_new_items(run: Run) -> None:
    after = extended(run)
    new = after.recommend(users=["u3"], k=NEW, candidates="new")
    assert dict(new.select("item", "title").rows()) == {f"i{k}": f"Item {k}" for k in range(ITEMS, ITEMS + NEW)}
    row = int(after.split.dataset.users.rows(["u3"])[0])
    scores = everyone(after)[row, ITEMS:].sort(descending=True).values
    torch.testing.assert_close(torch.tensor(new["score"].to_list()), scores)
    cold = set(after.recommend(users=["u3"], k=7, candidates="cold", filter_seen=False)["item"])
    assert cold == {f"i{k}" for k in range(19, ITEMS + NEW)}
    warm = after.recommend(users=["u3"], k=19, candidates="warm", filter_seen=False)["item"]
    assert set(warm) == {f"i{k}" for k in range(19)}
    assert len(after.recommend(users=["u3"], k=26, filter_seen=False)) == 26
    assert after.recommend(users=["u3"], k=1, candidates=["i24"])["item"].to_list() == ["i24"]
    assert "i23" not in after.recommend(history=["i23", "i1"], k=24)["item"]
    with pytest.raises(QueryError, match="1 to 3"):
        after.recommend(users=["u3"], k=4, candidates="new")
    with pytest.raises(QueryError, match=r"empty: got 'new'"):
        run.recommend(users=["u3"], k=1, candidates="new")


def test_evaluation_ranks_the_data_set_without_the_added_items(run: Run) -> None:
    assert evaluate(extended(run)).pools["all"].metrics == evaluate(run).pools["all"].metrics


@pytest.mark.parametrize("kind", ["pandas", "lazy", "dicts", "csv", "parquet"])
def test_tables_of_every_kind(run: Run, kind: str, tmp_path: Path) -> None:
    table, features = new_items()
    table.write_csv(tmp_path / "new.csv")
    table.write_parquet(tmp_path / "new.parquet")
    given: Mapping[str, Any] = {
        "pandas": pd.DataFrame(table.to_dict(as_series=False)),
        "lazy": table.lazy(),
        "dicts": table.to_dicts(),
        "csv": str(tmp_path / "new.csv"),
        "parquet": tmp_path / "new.parquet",
    }
    after = run.add_items(given[kind], features=features)
    assert after.catalog.sha256 == extended(run).catalog.sha256
    assert after.catalog.titles([ITEMS]) == ["Item 23"]


def test_ids_and_titles_of_a_csv_stay_text(tmp_path: Path, run: Run) -> None:
    (tmp_path / "new.csv").write_text("item_id,title\n007,1.50\n8,True\n")
    after = run.add_items(tmp_path / "new.csv", features={"look": np.ones((2, 12))})
    assert after.catalog.items.ids([ITEMS, ITEMS + 1]) == ["007", "8"]
    assert after.catalog.titles([ITEMS, ITEMS + 1]) == ["1.50", "True"]


def test_features_from_files_in_their_own_order(run: Run, tmp_path: Path) -> None:
    table, features = new_items()
    np.save(tmp_path / "look.npy", features["look"][::-1])
    (tmp_path / "look.json").write_text('{"ids": ["i25", "i24", "i23"]}')
    after = run.add_items(table, features={"look": tmp_path / "look.npy", "words": features["words"]})
    assert after.catalog.sha256 == extended(run).catalog.sha256


def test_has_columns_of_the_table_count(run: Run) -> None:
    after = run.add_items(
        pl.DataFrame({"item": ["x", "y"], "has_look": [True, False]}),
        features={"look": np.ones((2, 12)), "words": np.ones((2, 7))},
    )
    assert after.catalog.modality("look").present[ITEMS:].tolist() == [True, False]


LOOK = {"look": np.ones((2, 12), dtype=np.float32)}


@pytest.mark.parametrize(
    ("table", "features", "message"),
    [
        ([{"item": "x"}, {"item": "x"}], LOOK, r"item id 'x' stands in several rows"),
        ([{"item": "x"}, {"item": "i3"}], LOOK, r"1 of 2 new items are in the catalogue already: got 'i3'"),
        ([{"thing": "x"}, {"thing": "y"}], LOOK, r"no item column"),
        ([{"item": "x"}, {"item": None}], LOOK, r"id in row 1 is empty"),
        ([{"item": "x"}, {"item": 3}], LOOK, r"several types: got int, str"),
        ([{"item": 2}, {"item": 3}], LOOK, r"got integers, expected text"),
        ([{"item": 2.5}, {"item": 3.5}], LOOK, r"dtype Float64"),
        ([], {}, r"no rows"),
        (pl.DataFrame({"item": []}), {}, r"no rows"),
        ({"item": "x"}, {}, r"got dict, expected a polars or pandas DataFrame"),
        (["x", "y"], LOOK, r"got list, expected a polars or pandas DataFrame"),
        ("nowhere.csv", LOOK, r"nowhere.csv is not there"),
        ([{"item": "x"}, {"item": "y"}], {"lok": LOOK["look"]}, r"'lok'.*Did you mean 'look'"),
        ([{"item": "x"}, {"item": "y"}], {"look": np.ones((2, 11))}, r"got dim 11, expected dim 12"),
        ([{"item": "x"}, {"item": "y"}], {"look": np.ones((3, 12))}, r"got 3 rows, expected 2 rows"),
        ([{"item": "x"}, {"item": "y"}], {"look": np.ones(12)}, r"shape \(12,\)"),
        ([{"item": "x"}, {"item": "y"}], {"look": np.ones((2, 12), dtype=int)}, r"dtype int64"),
        ([{"item": "x"}, {"item": "y"}], {"look": np.where(np.eye(2, 12), np.nan, 1)}, r"NaN or Inf in row 0"),
        ([{"item": "x"}, {"item": "y"}], {"look": "nowhere.npy"}, r"nowhere.npy is not there"),
        ([{"item": "x", "title": ["a"]}, {"item": "y", "title": "b"}], LOOK, r"cannot be read"),
        (pd.DataFrame({"item": [1, "a"]}), LOOK, r"cannot be read"),
    ],
)
def test_bad_input_is_named(run: Run, table: Any, features: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        run.add_items(table, features=features)


def test_files_for_features_of_unknown_origin_are_an_error(run: Run, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"modality 'image'.*Known: look, words"):
        run.add_items([{"item": "x"}], images=tmp_path)
    data = shop()
    catalog = replace(data.catalog, modalities={"image": replace(data.catalog.modality("look"), name="image")})
    given = fitted("contentmean", replace(data, catalog=catalog))
    with pytest.raises(DataError, match=r"unknown encoder.*features=\{'image': matrix\}"):
        given.add_items([{"item": "x"}], images=tmp_path)


@pytest.mark.parametrize("categories", [["c1"], ["c1", "c3"], ["c9"], None])
def test_a_new_item_may_have_other_categories_than_the_known_ones(categories: list[str] | None) -> None:
    run = fitted("cammsr", with_categories(shop()), heads=2)
    table = pl.DataFrame({"item": ["new"], "categories": pl.Series([categories], dtype=pl.List(pl.String))})
    bigger = run.add_items(table, features={name: x[-1:] for name, x in content().items()})
    assert bigger.recommend(history=["new", "i3"], k=5)["score"].is_finite().all()
