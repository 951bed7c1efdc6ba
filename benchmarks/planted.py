"""Known answers: `python -m benchmarks.planted [--only TEXT ...] [--table]`. Rows grow in results/planted.jsonl.

Shops with planted truth, a fifth of the items cold. Does the gate find which modality is noise, what is left when items
lose a modality, does the published recipe behave as published, does CAMMSR weigh in each category what users follow
there? The robustness rows are repeated on movielens-posters, there on validation: its test split stays closed.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from time import process_time
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import logsumexp
from torch import Tensor

from benchmarks import planted_categories
from benchmarks.data import REAL
from benchmarks.planted_table import table
from benchmarks.rows import RESULTS, Task, read, run
from modalmix.data import Holdout, Interactions, Split
from modalmix.data.catalog import Catalog
from modalmix.data.shop import GROUPS, STATES, Shop, ShopConfig, Truth, plant
from modalmix.evaluation import EvaluateConfig, evaluate, robustness_curve
from modalmix.models.contract import Query, Scorer
from modalmix.models.mamex import Mamex
from modalmix.pipeline import fit, load_data, split_data
from modalmix.serve.recommender import Run
from modalmix.train import TrainConfig

FILE, TABLE = RESULTS / "planted.jsonl", RESULTS / "planted.md"
SEEDS = range(3)
NOISE: Mapping[str, Mapping[str, float]] = {"none": {}, "image": {"noise_image": 0.5}, "text": {"noise_text": 0.5}}
MISSING = ("zero", "mask", "mean", "learned")
DROPOUTS = (0.0, 0.5)
LOST, DRAWS = 0.8, 5
RECIPE = {  # of the preset paper, for the linear mean: the two differ by the model alone
    "standardize": False,
    "loss": "bpr",
    "negatives": "all",
    "lr": 1e-3,
    "batch_size": 2048,
    "epochs": 1000,
    "eval_every": 10,
    "patience": 200,
}
METRICS = EvaluateConfig(metrics=("recall", "ndcg"), ks=(20,), floors=False)
OURS, PUBLISHED = "recall@20", "ndcg@10"  # what selects the epoch: the library's default, and the paper's


def tasks() -> Iterator[Task]:
    """Every row there should be, the cheap ones first."""
    systems = [("mamex", "default", OURS), ("mamex", "default", PUBLISHED), ("mamex", "joint", OURS)]
    systems += [("mamex", "paper", PUBLISHED), ("contentmean", "paper", PUBLISHED)]
    for model, preset, selected_by in systems:
        for noise in NOISE if model == "mamex" else ("none",):
            for seed in SEEDS:
                key = {"model": model, "preset": preset, "selected_by": selected_by, "noise": noise, "seed": seed}
                yield _task(measure_shop, part="shop", **key)
    yield from (_task(measure_ceiling, part="ceiling", data="planted-shop", seed=s) for s in SEEDS)
    yield from (_task(planted_categories.measure, **key) for key in planted_categories.keys(SEEDS))
    for data, seeds in (("planted-shop", SEEDS), ("movielens-posters", range(1))):
        for missing in MISSING:
            for p in DROPOUTS:
                for seed in seeds:
                    yield _task(measure_loss, part="loss", data=data, missing=missing, modality_dropout=p, seed=seed)


def _task(measure: Callable[[Mapping[str, Any]], Mapping[str, Any]], **key: Any) -> Task:
    return Task(key, partial(measure, key))


def planted(noise: str, seed: int) -> tuple[Shop, Split]:
    """A shop where half the pictures, half the texts or nothing is noise, and its split."""
    shop = plant(ShopConfig.parse({**NOISE[noise], "seed": 2025 + seed}))
    return shop, split_data(shop.dataset_with_features(), "cold-item", seed=seed)


def measure_shop(key: Mapping[str, Any]) -> dict[str, Any]:
    """Gate weights by the state of the items' content, and the pools."""
    shop, split = planted(key["noise"], key["seed"])
    settings = {"seed": 2025 + key["seed"], **(RECIPE if key["model"] == "contentmean" else {})}
    preset = key["preset"] if key["model"] == "mamex" else "default"  # RECIPE instead
    started = process_time()
    if key["model"] == "mamex":
        settings["modality_dropout"] = 0.0  # dropout makes gates more even: here they are to speak for themselves
    fitted = fit(split, key["model"], preset=preset, train=_train(key["selected_by"]), **settings)
    seconds = round(process_time() - started, 2)
    holdout = split.testing()
    cold_only = replace(holdout, positives=_of_items(holdout.positives, ~holdout.warm))
    plain = fitted.model.eval().scorer(split.dataset.catalog)
    recall = {
        "cold": _recall(fitted.scorer, cold_only, "cold"),
        "cold in mixed": _recall(fitted.scorer, cold_only, "all"),
        "cold in mixed, not calibrated": _recall(plain, cold_only, "all"),
    }
    return {
        "recall@20": {name: one["model"] for name, one in recall.items()},
        "random": {name: one["random"] for name, one in recall.items()},
        "gate": gates(fitted.model, shop, holdout.warm) if isinstance(fitted.model, Mamex) else None,
        **_facts(fitted, split, seconds),
    }


def gates(model: Mamex, shop: Shop, warm: np.ndarray) -> dict[str, dict[str, float | None]]:
    """Mean weight of text minus that of image: state of the item's content -> which items -> mean.

    Items: all, cold, warm (`routing`); "held out": warm ones by what experts say of them that were fitted without
    them, as the gate of a taught MAMEX has learnt it.
    """
    everything = torch.arange(len(warm))
    routed = model.routing(Query(users=torch.arange(1)), everything)["modality"]
    noise = STATES.index("noise")
    noisy = (shop.truth.image == noise) | (shop.truth.text == noise)
    ahead = {
        name: (of, _text_ahead(model, routed)) for name, of in (("all", warm | ~warm), ("cold", ~warm), ("warm", warm))
    }
    if model.taught:
        with model.frozen():
            held_out = model.weigh(model.unseen, model.train_content.present).weights
        ahead["held out"] = (warm, _text_ahead(model, held_out))
    return {
        state: {name: float(by[of & to].mean()) if (of & to).any() else None for name, (of, by) in ahead.items()}
        for state, to in {"all": noisy | ~noisy, "noise": noisy, "clean": ~noisy}.items()
    }


def _text_ahead(model: Mamex, weights: Float[Tensor, "items modalities"]) -> Float[np.ndarray, " items"]:
    of = dict(zip(model.modalities, weights.unbind(dim=1), strict=True))
    return (of["text"] - of["image"]).numpy()


def measure_loss(key: Mapping[str, Any]) -> dict[str, Any]:
    """What MAMEX keeps of the cold pool when most items lose one of their modalities after training."""
    split = planted("none", key["seed"])[1] if key["data"] == "planted-shop" else _movielens(key["seed"])
    holdout = split.testing() if key["data"] == "planted-shop" else split.validation()
    settings = {name: key[name] for name in ("missing", "modality_dropout")}
    started = process_time()
    fitted = fit(split, "mamex", train=_train(OURS), seed=2025 + key["seed"], **settings)
    seconds = round(process_time() - started, 2)
    return {**_curve(fitted.scorer_of, holdout), **_facts(fitted, split, seconds)}


def measure_ceiling(key: Mapping[str, Any]) -> dict[str, Any]:
    """The same for one who knows every taste and reads content without error: no model can expect a higher recall."""
    shop, split = planted("none", key["seed"])
    return {**_curve(partial(Oracle, shop.truth), split.testing()), "split_sha256": split.sha256}


def _curve(scorer_of: Callable[[Catalog], Scorer], holdout: Holdout) -> dict[str, Any]:
    config = METRICS.replace(pools=("cold",))
    modalities = tuple(holdout.catalog.modalities)
    curve = robustness_curve(scorer_of, modalities, holdout, "any", (0.0, LOST), DRAWS, config=config)
    return {"holdout": holdout.name, "curve": {k: v for k, v in curve.to_dict().items() if k != "full"}}


def _movielens(seed: int) -> Split:
    dataset = load_data(REAL / "movielens-posters", features="raw", modalities=("image", "text"))
    return split_data(dataset, "cold-item", seed=seed)


def _train(selected_by: str) -> TrainConfig:
    return TrainConfig(progress=False, metric=selected_by)


def _recall(scorer: Scorer, holdout: Holdout, pool: Literal["all", "cold"]) -> dict[str, float]:
    """Of the model, and of random scores."""
    result = evaluate(scorer, holdout, METRICS.replace(pools=(pool,), floors=True)).pools[pool]
    return {"model": result.metrics["recall@20"].mean, "random": result.floors["random"]["recall@20"]}


def _of_items(events: Interactions, chosen: np.ndarray) -> Interactions:
    """The events with a chosen item."""
    kept = chosen[events.item]
    return Interactions(events.user[kept], events.item[kept], events.n_users, events.n_items)


def _facts(fitted: Run, split: Split, seconds: float) -> dict[str, Any]:
    assert fitted.result is not None
    return {
        "config": fitted.model.config.model_dump(mode="json"),
        "epochs": fitted.result.epochs,
        "best_epoch": fitted.result.best_epoch,
        "cpu_s": seconds,
        "split_sha256": split.sha256,
        "command": "python -m benchmarks.planted",
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }


class Oracle:
    """log of how likely a cold item is chosen, given the user's taste and the content that is there.

    score = sharpness * taste(u, i) where the item shows what the user's group looks at, log mean_j exp(sharpness *
    taste(u, j)) where it does not. Whoever goes by hidden clusters cannot be told.
    """

    def __init__(self, truth: Truth, catalog: Catalog) -> None:
        self.scores = torch.zeros(len(truth.group), len(catalog))
        tastes = {"look": truth.look_taste @ truth.look_codes.T, "word": truth.word_taste @ truth.word_codes.T}
        for (group, taste), modality in zip(tastes.items(), ("image", "text"), strict=True):
            known = truth.config.sharpness * taste
            unknown = logsumexp(known, axis=1, keepdims=True) - np.log(known.shape[1])
            members = truth.group == GROUPS.index(group)
            scores = np.where(catalog.modality(modality).present, known, unknown)[members]
            self.scores[torch.from_numpy(members)] = torch.from_numpy(scores.astype(np.float32))

    def __call__(self, query: Query) -> Float[Tensor, "batch items"]:
        assert query.users is not None
        return self.scores[query.users]


def show(row: Mapping[str, Any]) -> None:
    """One line a finished row."""
    figures = row.get("recall@20") or row.get("weights")
    figures = figures or [one["pools"]["cold"]["recall@20"]["mean"] for one in row["curve"]["points"]]
    key = ["model", "preset", "selected_by", "noise", "data", "missing", "modality_dropout"]
    key += ["shows", "weighting", "label_noise", "seed"]
    print(*(row[name] for name in key if name in row), figures, row.get("cpu_s"), flush=True)


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[], help="run only rows whose key contains all these texts")
    parser.add_argument("--table", action="store_true", help="only write the table")
    options = parser.parse_args()
    if not options.table:
        torch.set_num_threads(1)
        wanted = [one for one in tasks() if all(text in str(dict(one.key)) for text in options.only)]
        if not REAL.is_dir():
            print(f"without movielens-posters: no folder {REAL.name}/; set MODALMIX_DATA to the folder that has it")
            wanted = [one for one in wanted if one.key.get("data") != "movielens-posters"]
        run(wanted, FILE, show)
    TABLE.write_text(table(list(read(FILE).values())), encoding="utf-8")


if __name__ == "__main__":
    main()
