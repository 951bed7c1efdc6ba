"""The Python way in: folders and frames, fit, evaluate, load, recommend."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch

import modalmix
from modalmix.data import SplitConfig
from modalmix.data.shop import ShopConfig, plant
from modalmix.errors import ConfigError, DataError, ModelError, RunError
from modalmix.evaluation import EvaluateConfig
from modalmix.models.contract import Calibration, Query
from modalmix.models.itemknn import ItemKNNConfig
from modalmix.pipeline import RunConfig, train_run

SMALL = {"epochs": 2, "dim": 8, "batch_size": 128}


@pytest.fixture(scope="module")
def frames() -> tuple[pl.DataFrame, pl.DataFrame, np.ndarray]:
    dataset = plant(ShopConfig(users=40, items=50)).dataset
    events = dataset.interactions
    frame = pl.DataFrame(
        {
            "user": dataset.users.ids(events.user),
            "item": dataset.catalog.items.ids(events.item),
            "timestamp": events.time,
        }
    )
    items = dataset.catalog.table.select("item", "title")
    features = np.random.default_rng(0).standard_normal((len(items), 6)).astype(np.float32)
    return frame, items, features


def test_frames_in_frames_out(frames: tuple[pl.DataFrame, pl.DataFrame, np.ndarray]) -> None:
    frame, items, features = frames
    data = modalmix.load_data(frame, items=items, features={"look": features})
    run = modalmix.fit(data, "contentmean", split="cold-item", **SMALL)
    recommended = run.recommend(users=[frame["user"][0]], k=4)
    assert recommended.columns == ["user", "rank", "item", "title", "score"]
    assert set(recommended["title"]) <= set(items["title"])
    assert set(modalmix.evaluate(run).pools) == {"cold", "warm", "all"}


def test_pandas_frames_give_the_same_data(frames: tuple[pl.DataFrame, pl.DataFrame, np.ndarray]) -> None:
    frame, items, _ = frames
    given = pd.DataFrame(frame.to_dict(as_series=False)), pd.DataFrame(items.to_dict(as_series=False))
    ours = modalmix.load_data(frame, items=items, features="none")
    theirs = modalmix.load_data(given[0], items=given[1], features="none")
    assert ours.sha256 == theirs.sha256


def test_a_run_folder_gives_the_same_recommendations(
    frames: tuple[pl.DataFrame, pl.DataFrame, np.ndarray], tmp_path: Path
) -> None:
    frame, items, features = frames
    data = modalmix.load_data(frame, items=items, features={"look": features})
    run = modalmix.fit(data, "mamex", split="random", run=tmp_path / "run", **SMALL)
    users = frame["user"].unique().to_list()[:5]
    again = modalmix.load_run(tmp_path / "run", data)
    assert again.recommend(users=users).equals(run.recommend(users=users))


def test_a_loaded_run_keeps_its_calibration_added_items_included(
    frames: tuple[pl.DataFrame, pl.DataFrame, np.ndarray], tmp_path: Path
) -> None:
    frame, items, features = frames
    data = modalmix.load_data(frame, items=items, features={"look": features})
    run = modalmix.fit(data, "contentridge", split="cold-item", run=tmp_path / "run")
    again = modalmix.load_run(tmp_path / "run", data)
    assert run.result is not None
    assert again.result is not None
    assert again.result.calibration == run.result.calibration != Calibration()
    new = pl.DataFrame({"item": ["new"], "title": ["New"]})
    query = Query(users=torch.arange(5))
    ours, theirs = (one.add_items(new, features={"look": features[:1]}).scorer(query) for one in (run, again))
    assert torch.equal(theirs, ours)
    with torch.no_grad():
        raw = run.model.scorer(run.catalog)(query)
    lifted = run.result.calibration.scale * raw + run.result.calibration.offset
    warm = torch.from_numpy(run.split.train_data().warm)
    torch.testing.assert_close(ours[:, :-1], torch.where(warm, raw, lifted))
    with pytest.raises(RunError, match="data"):
        modalmix.load_run(tmp_path / "run")
    other = modalmix.load_data(frame, items=items, features={"look": features + 1})
    with pytest.raises(RunError, match="another data set"):
        modalmix.load_run(tmp_path / "run", other)


def test_evaluation_of_a_random_split_ranks_all_items(frames: tuple[pl.DataFrame, pl.DataFrame, np.ndarray]) -> None:
    run = modalmix.fit(modalmix.load_data(frames[0]), "popularity", split="random")
    assert set(modalmix.evaluate(run, ks=(5,)).pools) == {"all"}


def test_matrices_need_a_frame_of_items_and_heed_its_has_column(
    frames: tuple[pl.DataFrame, pl.DataFrame, np.ndarray],
) -> None:
    frame, items, features = frames
    with pytest.raises(DataError, match="rows of features 'look' belong to no known items.*Give items="):
        modalmix.load_data(frame, features={"look": features})
    has = np.arange(len(items)) % 2 == 0
    data = modalmix.load_data(frame, items=items.with_columns(has_look=has), features={"look": features})
    assert data.catalog.modality("look").present.tolist() == has.tolist()


def test_settings_win_over_those_of_an_object(frames: tuple[pl.DataFrame, pl.DataFrame, np.ndarray]) -> None:
    run = modalmix.fit(modalmix.load_data(frames[0]), "popularity", split=SplitConfig(kind="random", seed=7))
    assert (run.split.kind, run.split.settings["seed"]) == ("random", 7)
    config = EvaluateConfig(floors=False, ks=(5,), mask="seen")
    assert modalmix.evaluate(run, config, mask="none").to_dict()["config"] == config.replace(mask="none").model_dump(
        mode="json"
    )
    with pytest.raises(ConfigError, match="no setting 'masc'"):
        modalmix.evaluate(run, config, masc="none")
    with pytest.raises(ConfigError, match="split: got one beside a Split"):
        modalmix.fit(run.split, "popularity", split="random")


def test_a_cold_split_without_warm_events_is_evaluated_in_the_pools_there_are(
    frames: tuple[pl.DataFrame, pl.DataFrame, np.ndarray],
) -> None:
    """The MAMEX paper holds out items alone."""
    split = SplitConfig.parse({"kind": "cold-item", "warm_valid": 0.0, "warm_test": 0.0})
    run = modalmix.fit(modalmix.load_data(frames[0]), "popularity", split=split)
    assert set(modalmix.evaluate(run, ks=(5,)).pools) == {"cold", "all"}


def test_a_run_without_settings_has_those_of_its_preset(
    frames: tuple[pl.DataFrame, pl.DataFrame, np.ndarray], tmp_path: Path
) -> None:
    frames[0].write_csv(tmp_path / "interactions.csv")
    config = RunConfig(model="itemknn", split=SplitConfig(kind="random"))
    assert train_run(tmp_path, config).model.config == ItemKNNConfig()
    given = config.replace(settings=ItemKNNConfig(neighbors=3))
    assert train_run(tmp_path, given).model.config == ItemKNNConfig(neighbors=3)
    assert given.replace(preset="paper").settings == ItemKNNConfig(neighbors=3)


def test_mistakes_are_our_errors(frames: tuple[pl.DataFrame, pl.DataFrame, np.ndarray]) -> None:
    frame, items, features = frames
    with pytest.raises(DataError, match="rows"):
        modalmix.load_data(frame, items=items, features={"look": features[:-1]})
    with pytest.raises(ModelError, match="modalit"):
        modalmix.fit(modalmix.load_data(frame), "mamex", split="random")
    with pytest.raises(AttributeError):
        modalmix.nothing  # noqa: B018


def test_paths_where_data_or_runs_belong_are_our_errors(
    frames: tuple[pl.DataFrame, pl.DataFrame, np.ndarray], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="load_data"):
        modalmix.fit("shop", "popularity")  # type: ignore[arg-type]
    with pytest.raises(RunError, match="load_run"):
        modalmix.evaluate("runs/first")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="frame"):
        modalmix.load_data(tmp_path, items=frames[1])
    frames[0].write_parquet(tmp_path / "interactions.parquet")
    modalmix.fit(modalmix.load_data(tmp_path), "popularity", split="random", run=tmp_path / "run")
    (tmp_path / "interactions.parquet").rename(tmp_path / "moved.parquet")
    assert modalmix.load_run(tmp_path / "run", tmp_path / "moved.parquet").split.train
    tmp_path.rename(tmp_path.with_name("elsewhere"))
    with pytest.raises(RunError, match="--data"):
        modalmix.load_run(tmp_path.with_name("elsewhere") / "run")


def test_robustness_of_a_run_is_kept_beside_it_and_opens_the_test_split_once(
    frames: tuple[pl.DataFrame, pl.DataFrame, np.ndarray], tmp_path: Path
) -> None:
    frame, items, features = frames
    data = modalmix.load_data(frame, items=items, features={"look": features, "words": features[:, :4] + 1})
    run = modalmix.fit(data, "contentmean", split="cold-item", run=tmp_path / "run", **SMALL)
    plain = modalmix.evaluate(run)
    assert run.folder is not None
    assert run.folder.record["test_opened"] == 1
    curve = modalmix.robustness(run, "any", (0.5, 1), seeds=2)
    assert run.folder.record["test_opened"] == 2
    kept = json.loads((tmp_path / "run" / "drop.json").read_text())
    assert kept == {"test_opened": 2, **curve.to_dict()}
    assert (tmp_path / "run" / "drop.png").read_bytes().startswith(b"\x89PNG")
    assert curve.full.to_dict() == plain.to_dict()
    for pool, result in plain.pools.items():
        assert curve.full.pools[pool].per_user.equals(result.per_user)
        first, half = (point.pools[pool]["recall@20"] for point in curve.points[:2])
        assert first.mean == result.metrics["recall@20"].mean
        assert half.n == 2
    changed = [
        point.pools["all"]["ndcg@20"].mean != plain.pools["all"].metrics["ndcg@20"].mean for point in curve.points
    ]
    assert changed == [False, True, True]


def test_robustness_of_what_reads_no_modality(frames: tuple[pl.DataFrame, pl.DataFrame, np.ndarray]) -> None:
    frame, items, features = frames
    data = modalmix.load_data(frame, items=items, features={"look": features})
    run = modalmix.fit(data, "popularity", split="random")
    with pytest.raises(ModelError, match="the model reads no modality"):
        modalmix.robustness(run, "look")
    with pytest.raises(RunError, match="load_run"):
        modalmix.robustness("runs/first", "look")  # type: ignore[arg-type]
