"""Content ridge: one kernel ridge a modality by scikit-learn, their mean over what an item has by hand."""

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.kernel_ridge import KernelRidge

from modalmix.data.catalog import Catalog
from modalmix.data.ids import IdMap
from modalmix.data.modality import Modality
from modalmix.data.split import TrainData
from modalmix.errors import ConfigError, ModelError
from modalmix.models import contentridge
from modalmix.models.contentridge import ContentRidge, ContentRidgeConfig
from modalmix.models.contract import Query, TeacherConfig, teach
from tests.models.conftest import Shop

USERS = Query(users=torch.arange(40))
TEACHER = {"dim": 5, "reg": 1.0}
ABSENT = {"image": [0, 3, 28, 29], "text": [3, 4, 29]}  # 3 (warm) and 29 (cold) have nothing


def fitted(data: TrainData, **settings: object) -> ContentRidge:
    model = ContentRidge(ContentRidgeConfig.parse({"teacher": TEACHER, **settings}), data)
    model.fit(data)
    return model


def unit_features(data: TrainData, name: str, standardize: bool = True) -> np.ndarray:
    modality = data.catalog.modality(name)
    x = modality.matrix().astype(np.float64)
    if standardize:
        learnt_on = x[data.warm & modality.present]
        x = (x - learnt_on.mean(axis=0)) / learnt_on.std(axis=0)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def factors(data: TrainData) -> tuple[np.ndarray, np.ndarray]:
    users, items = teach(data.interactions, TeacherConfig.model_validate(TEACHER), 2025)
    return users.double().numpy(), items.double().numpy()


def regression(data: TrainData, name: str, width: float, reg: float, standardize: bool = True) -> np.ndarray:
    """f of one modality for every item; rows without it say nothing."""
    x, rows = unit_features(data, name, standardize), data.warm & data.catalog.modality(name).present
    x = np.nan_to_num(x)
    return KernelRidge(kernel="rbf", gamma=width, alpha=reg).fit(x[rows], factors(data)[1][rows]).predict(x)


@pytest.mark.parametrize("standardize", [True, False])
def test_cold_items_are_the_mean_over_the_modalities_they_have(content_shop: Shop, standardize: bool) -> None:
    data = content_shop(absent=ABSENT)
    model = fitted(data, regs=[0.5], width=0.8, standardize=standardize)
    image, text = (regression(data, name, 0.8, 0.5, standardize) for name in ("image", "text"))
    predicted, present = model.predict(data.catalog)
    expected = (image + text) / 2
    expected[[0, 28]], expected[4] = text[[0, 28]], image[4]
    expected[[3, 29]] = 0.0
    np.testing.assert_allclose(predicted, expected, atol=2e-3)
    for place, name in enumerate(("image", "text")):
        assert torch.nonzero(~present[:, place]).flatten().tolist() == ABSENT[name]
    vectors = model.scorer(data.catalog).items
    np.testing.assert_allclose(vectors[24:29], expected[24:29], atol=2e-3)


def test_warm_items_keep_their_factors(content_shop: Shop) -> None:
    data = content_shop(absent=ABSENT)
    users, items = factors(data)
    scorer = fitted(data).scorer(data.catalog)
    np.testing.assert_allclose(scorer.items[:24], items[:24])
    np.testing.assert_allclose(scorer(USERS)[:, :24], users @ items[:24].T, atol=1e-5)


def test_the_strength_is_the_best_for_items_held_out(content_shop: Shop) -> None:
    """Each fold predicted by scikit-learn from the others, for every strength."""
    data, regs = content_shop(absent=ABSENT), (0.01, 0.1, 1.0, 10.0, 100.0)
    model = fitted(data, regs=regs, folds=3, width=0.8)
    fold = np.random.default_rng(2025).integers(3, size=30)
    for name in ("image", "text"):
        x, targets = unit_features(data, name), factors(data)[1]
        rows = np.flatnonzero(data.warm & data.catalog.modality(name).present)
        errors = []
        for reg in regs:
            squares = 0.0
            for part in range(3):
                out, rest = rows[fold[rows] == part], rows[fold[rows] != part]
                fit = KernelRidge(kernel="rbf", gamma=0.8, alpha=reg).fit(x[rest], targets[rest])
                squares += float(((fit.predict(x[out]) - targets[out]) ** 2).sum())
            errors.append(squares)
        assert model.reg_of[name] == pytest.approx(regs[int(np.argmin(errors))])


def test_a_cold_item_without_content_is_the_typical_prediction_and_flagged(content_shop: Shop) -> None:
    data = content_shop(absent=ABSENT)
    model = fitted(data)
    scorer, (predicted, _) = model.scorer(data.catalog), model.predict(data.catalog)
    assert scorer.without_content is not None
    assert scorer.without_content.nonzero().flatten().tolist() == [29]  # 3 has its factor to go by
    with_content = [row for row in range(24) if row != 3]
    torch.testing.assert_close(scorer.items[29], predicted[with_content].mean(dim=0))


def test_a_new_item_is_predicted_as_a_cold_one_with_its_content(content_shop: Shop) -> None:
    data = content_shop(absent=ABSENT)
    model = fitted(data)
    rows = np.array([26, 2])  # a cold item and a warm one
    features = {name: m.matrix(rows) for name, m in data.catalog.modalities.items()}
    bigger = data.catalog.extend(pl.DataFrame({"item": [1000, 1001]}), features)
    known, scorer = model.scorer(data.catalog), model.scorer(bigger)
    torch.testing.assert_close(scorer.items[:30], known.items)
    torch.testing.assert_close(scorer.items[30], known.items[26])
    torch.testing.assert_close(scorer.items[31], model.predict(data.catalog)[0][2])  # its content, not a factor


def test_fewer_landmarks_than_items(content_shop: Shop) -> None:
    data = content_shop(items=150, users=80)
    exact, few = fitted(data, regs=[1.0]), fitted(data, regs=[1.0], landmarks=50)
    assert few.get_buffer("weights_0").shape == (50, 5)
    assert bool(torch.isin(few.get_buffer("landmarks_0"), torch.arange(144)).all()), "a cold item was a landmark"
    (ours, _), (theirs, _) = few.predict(data.catalog), exact.predict(data.catalog)
    assert 0 < (ours - theirs).norm() < 0.3 * theirs.norm()


def test_a_big_catalogue_is_predicted_in_blocks(content_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    data = content_shop(absent=ABSENT)
    model = fitted(data)
    whole, _ = model.predict(data.catalog)
    monkeypatch.setattr(contentridge, "_BLOCK", 7)
    torch.testing.assert_close(model.predict(data.catalog)[0], whole)


def test_restored_buffers_give_the_same_scores(content_shop: Shop) -> None:
    data = content_shop(absent=ABSENT)
    model = fitted(data)
    restored = ContentRidge(model.config, data)
    restored.restore(model.state_dict())
    assert restored.reg_of == model.reg_of
    assert torch.equal(restored.scorer(data.catalog)(USERS), model.scorer(data.catalog)(USERS))


def test_modalities_are_chosen_by_name(content_shop: Shop) -> None:
    data = content_shop(absent=ABSENT)
    model = fitted(data, modalities=["text"], regs=[0.5])
    assert (model.modalities, model.reg_of) == (("text",), {"text": 0.5})
    predicted, _ = model.predict(data.catalog)
    has = data.catalog.modality("text").present
    np.testing.assert_allclose(predicted[has], regression(data, "text", 1.0, 0.5)[has], atol=2e-3)


def test_a_name_with_a_dot(content_shop: Shop) -> None:
    data = content_shop({"clip.vit": 12, "text": 8})
    assert set(fitted(data).reg_of) == {"clip.vit", "text"}


def test_unknown_and_missing_modalities_are_errors(content_shop: Shop) -> None:
    data = content_shop()
    with pytest.raises(ModelError, match="Did you mean 'text'"):
        fitted(data, modalities=["texts"])
    with pytest.raises(ModelError, match="no modality"):
        fitted(TrainData(data.users, data.catalog.select(()), data.interactions))
    with pytest.raises(ModelError, match=r"no item with a train interaction has modality 'image'.*Leave it out"):
        fitted(content_shop(absent={"image": range(24)}))


def test_another_catalogue_is_an_error(content_shop: Shop) -> None:
    data = content_shop()
    model = fitted(data)
    with pytest.raises(ModelError, match="training items first"):
        model.scorer(Catalog(IdMap(np.arange(100, 130)), data.catalog.modalities))
    wider = {name: Modality.from_matrix(name, np.ones((30, 99), np.float32)) for name in ("image", "text")}
    with pytest.raises(ModelError, match=r"features of 'image'.*dim 99.*dim 12"):
        model.scorer(Catalog(data.catalog.items, wider))
    with pytest.raises(ModelError, match="image"):
        model.scorer(data.catalog.select(("text",)))


@pytest.mark.parametrize(
    ("name", "value"), [("regs", []), ("regs", [0.0]), ("width", 0), ("landmarks", 0), ("folds", 1)]
)
def test_impossible_settings(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name):
        ContentRidgeConfig.parse({name: value})
