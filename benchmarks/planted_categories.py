"""Shops where users follow words in even categories and looks in odd ones: which modality weighs more in CAMMSR?"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from time import process_time
from typing import Any

import numpy as np
import torch

from benchmarks.sequences import with_label_noise
from modalmix.data import Dataset, Modality, Split
from modalmix.data.shop import Shop, ShopConfig, plant
from modalmix.data.shop.attributes import one_hot
from modalmix.evaluation import EvaluateConfig, evaluate
from modalmix.models.cammsr import Cammsr
from modalmix.models.contract import Query
from modalmix.pipeline import fit, split_data
from modalmix.train import TrainConfig

SHOP = {"category_modality": "alternate", "look_share": 0.5, "word_share": 0.5, "behaviour_share": 0.0}
SHOP |= {"users": 400, "items": 400}
SETTINGS = {"dim": 16, "layers": 1, "hidden": 32, "dropout": 0.2, "init_std": 0.1, "lr": 5e-3, "batch_size": 512}
SETTINGS |= {"epochs": 20, "patience": 20, "eval_every": 20}  # the last epoch: in early ones weights are still even
METRICS = EvaluateConfig(metrics=("ndcg",), ks=(10,), mask="none", pools=("all",))
ROWS = (  # which modality shows the category, weighting, share of wrong labels
    ("decisive", "agreement", 0.0),
    ("decisive", "agreement", 0.2),
    ("decisive", "confidence", 0.0),
    ("both", "agreement", 0.0),
    ("text", "agreement", 0.0),
    ("decisive", "learned", 0.0),
    ("both", "learned", 0.0),
)


def keys(seeds: range) -> Iterator[dict[str, Any]]:
    """The key of every row."""
    for shows, weighting, wrong in ROWS:
        for seed in seeds:
            yield {"part": "categories", "shows": shows, "weighting": weighting, "label_noise": wrong, "seed": seed}


def shown(shop: Shop, by: str) -> Dataset:
    """The shop with features that show the category in the text alone (as planted), in both, or only in the modality
    that is decisive in that category: the other one is noise of the same mean length there."""
    if by == "text":
        return shop.dataset_with_features()
    truth, rng = shop.truth, np.random.default_rng(shop.config.seed)
    category = one_hot(truth.category[:, None], [shop.config.categories])
    modalities = {}
    for parity, (name, codes) in enumerate((("text", truth.word_codes), ("image", truth.look_codes))):
        x, other = np.concatenate([codes, category], axis=1), truth.category % 2 != parity
        if by == "decisive":
            x[other] = np.sqrt((x**2).mean()) * rng.standard_normal(x[other].shape, dtype=np.float32)
        x += shop.config.feature_noise * rng.standard_normal(x.shape, dtype=np.float32)
        modalities[name] = Modality.from_matrix(name, x)
    return replace(shop.dataset, catalog=replace(shop.dataset.catalog, modalities=modalities))


def planted(key: Mapping[str, Any]) -> tuple[Shop, Split]:
    """The shop and its split."""
    shop = plant(ShopConfig.parse({**SHOP, "seed": 2025 + key["seed"]}))
    dataset = with_label_noise(shown(shop, key["shows"]), key["label_noise"], key["seed"])
    return shop, split_data(dataset, "leave-last-two-out")


def measure(key: Mapping[str, Any]) -> dict[str, Any]:
    """Mean weight of each stream in the categories of words and in those of looks, and NDCG@10 on the test split."""
    shop, split = planted(key)
    started = process_time()
    settings = {**SETTINGS, "category_weighting": key["weighting"], "seed": 2025 + key["seed"]}
    fitted = fit(split, "cammsr", train=TrainConfig(progress=False, metric="ndcg@10", mask="none"), **settings)
    seconds = round(process_time() - started, 2)
    model = fitted.model
    assert isinstance(model, Cammsr)
    routed = model.routing(Query(users=torch.arange(1)), torch.arange(model.n_items))["modality"].numpy()
    means = {
        name: dict(zip(model.streams, routed[shop.truth.category % 2 == parity].mean(axis=0).tolist(), strict=True))
        for parity, name in enumerate(("words", "looks"))
    }
    found = evaluate(model.scorer(split.dataset.catalog), split.testing(), METRICS).pools["all"]
    return {
        "weights": means,
        "ndcg@10": found.metrics["ndcg@10"].mean,
        "random": found.floors["random"]["ndcg@10"],
        "config": model.config.model_dump(mode="json"),
        "shop": shop.config.model_dump(mode="json"),
        "cpu_s": seconds,
        "split_sha256": split.sha256,
        "command": "python -m benchmarks.planted --only categories",
        "versions": {"torch": torch.__version__, "numpy": np.__version__},
    }
