"""MAMEX learnt jointly: the acceptance tests of its specification, and the published step as an oracle.

MAMEX taught by a teacher is in test_mamex_taught.py.
"""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest
import torch

from modalmix.data.catalog import Catalog
from modalmix.data.ids import IdMap
from modalmix.data.interactions import Interactions
from modalmix.data.modality import Modality
from modalmix.data.split import TrainData
from modalmix.errors import ConfigError, ModelError
from modalmix.models.contentmean import ContentMean, ContentMeanConfig
from modalmix.models.contract import Query, Triples
from modalmix.models.mamex import Mamex, MamexConfig
from tests.models.conftest import Shop

USERS = Query(users=torch.arange(40))


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "reference_mamex.py"
    spec = importlib.util.spec_from_file_location("reference_mamex", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def model(data: TrainData, **settings: object) -> Mamex:
    torch.manual_seed(0)
    return Mamex(MamexConfig.preset("joint", **{"dim": 16, "loss": "softmax", "missing": "mask", **settings}), data)


def batch(data: TrainData, of: Mamex, size: int = 64) -> Triples:
    return next(iter(of.batches(data, size, np.random.default_rng(0))))


def empty_shop(dims: dict[str, int], users: int, items: int = 3) -> TrainData:
    """Sizes are all that matters here."""
    modalities = {m: Modality.from_matrix(m, np.eye(items, dim, dtype=np.float32)) for m, dim in dims.items()}
    events = Interactions(np.zeros(1, np.int32), np.zeros(1, np.int32), users, items)
    return TrainData(IdMap(np.arange(users), "user"), Catalog(IdMap(np.arange(items)), modalities), events)


@pytest.mark.parametrize(
    ("dims", "count"), [({"image": 512, "text": 512}, 3_051_530), ({"image": 4096, "text": 384}, 4_834_826)]
)
def test_parameter_count_of_the_paper(dims: dict[str, int], count: int) -> None:
    of = Mamex(MamexConfig.preset("paper"), empty_shop(dims, users=19_445))
    assert sum(p.numel() for p in of.parameters()) == count


def test_terms_and_gradients_equal_the_published_step(content_shop: Shop, reference: ModuleType) -> None:
    """The reference shares no code: E separate linears, three encodings, plain KL."""
    data = content_shop()
    ours = Mamex(MamexConfig.preset("paper", dim=16, dropout=0.0), data).double()
    features = [torch.from_numpy(m.matrix()).double() for m in data.catalog.modalities.values()]
    theirs = reference.ReferenceMamex(
        [x / x.norm(dim=1, keepdim=True) for x in features], data.n_users, dim=16, dropout=0.0
    ).double()
    pairs = _pairs(ours, theirs)
    for mine, other in pairs:
        other.data.copy_(mine.data)
    triples = batch(data, ours)
    got, expected = ours.loss(triples), theirs.terms(*triples)
    assert [value.item() for value in got.values()] == pytest.approx([v.item() for v in expected.values()], rel=1e-5)
    sum(got.values()).backward()
    sum(expected.values()).backward()
    for mine, other in pairs:
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-5, atol=1e-7)


def _pairs(ours: Mamex, theirs: torch.nn.Module) -> list[tuple[torch.nn.Parameter, torch.nn.Parameter]]:
    """The same parameter in both, by module."""
    pairs = [(ours.users, theirs.user), (ours.fusion.hidden, theirs.W1), (ours.fusion.out, theirs.W2)]
    for m, mixture in enumerate(ours.experts):
        pairs.append((mixture.gate, theirs.gates[m]))
        pairs.extend(zip(mixture.experts, theirs.experts[m], strict=True))
    found = [pair for a, b in pairs for pair in zip(a.parameters(), b.parameters(), strict=True)]
    assert len(found) == len(list(ours.parameters())) == len(list(theirs.parameters()))
    return found


def test_batch_scope_has_the_same_ranking_gradients(content_shop: Shop) -> None:
    data = content_shop()
    settings = {"dropout": 0.0, "align": 0.0, "balance": 0.0, "fusion_balance": 0.0, "loss": "bpr", "reg": 0.1}
    scopes = [model(data, aux_scope=scope, **settings) for scope in ("batch", "all")]
    for of in scopes:
        sum(of.loss(batch(data, scopes[0])).values()).backward()
    for one, other in zip(scopes[0].parameters(), scopes[1].parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("scope", ["batch", "all"])
@pytest.mark.parametrize("negatives", ["warm", "all"])
def test_softmax_runs_over_the_candidates(content_shop: Shop, scope: str, negatives: str) -> None:
    data = content_shop()
    of = model(data, aux_scope=scope, negatives=negatives, loss="softmax", dropout=0.0)
    triples = batch(data, of)
    h, e = of.encode(of.train_content).vectors, of.users(triples.user)
    scores = e @ h.T
    if negatives == "warm":
        scores = scores.masked_fill(~torch.from_numpy(data.warm), -torch.inf)
    expected = torch.nn.functional.cross_entropy(scores, triples.positive)
    torch.testing.assert_close(of.loss(triples)["softmax"], expected)


def test_permuting_the_items_permutes_the_vectors(content_shop: Shop) -> None:
    data = content_shop(absent={"image": [1, 4, 29]})
    of = model(data).eval()
    content, order = of.train_content, torch.randperm(data.n_items)
    shuffled = type(content)(tuple(x[order] for x in content.features), content.present[order])
    torch.testing.assert_close(of.encode(shuffled).vectors, of.encode(content).vectors[order])


def test_a_cold_vector_depends_on_no_id(content_shop: Shop) -> None:
    """A new item with the content of a warm one gets the same vector, and the same scores."""
    data = content_shop(absent={"image": [2]})
    of = model(data)
    for row in (0, 2):
        twin = {name: m.matrix([row]) for name, m in data.catalog.modalities.items()}
        bigger = data.catalog.extend(pl.DataFrame({"item": [999]}), twin)
        scores = of.scorer(bigger)(USERS)
        torch.testing.assert_close(scores[:, -1], scores[:, row])
        torch.testing.assert_close(scores[:, :-1], of.scorer(data.catalog)(USERS))


def test_one_expert_and_an_even_gate_are_the_linear_mean(content_shop: Shop) -> None:
    data = content_shop()
    of, mean = model(data, experts=1, top_k=1), ContentMean(ContentMeanConfig(dim=16), data)
    for parameter in of.fusion.out.parameters():
        torch.nn.init.zeros_(parameter)
    for mixture, linear in zip(of.experts, mean.maps, strict=True):
        linear.load_state_dict(mixture.experts[0].state_dict())
    assert torch.equal(of.routing(USERS, torch.arange(3))["modality"], torch.full((3, 2), 0.5))
    torch.testing.assert_close(of.encode(of.train_content).vectors, mean.item_vectors(mean.train_content, None)[0])


@pytest.mark.parametrize("negatives", ["warm", "all"])
def test_cold_items_among_the_triples(content_shop: Shop, negatives: str) -> None:
    data = content_shop()
    of = model(data, negatives=negatives, loss="bpr")
    cold = torch.from_numpy(~data.warm)
    drawn = [next(iter(of.batches(data, 10_000, np.random.default_rng(seed)))) for seed in range(5)]
    assert not any(bool(cold[triples.positive].any()) for triples in drawn)
    assert any(bool(cold[triples.negative].any()) for triples in drawn) == (negatives == "all")


@pytest.mark.parametrize("loss", ["bpr", "softmax"])
@pytest.mark.parametrize("scope", ["batch", "all"])
@pytest.mark.parametrize("missing", ["mask", "zero", "mean", "learned"])
def test_missing_modalities(content_shop: Shop, loss: str, scope: str, missing: str) -> None:
    """Some items lack one modality, two lack both (one warm, one cold)."""
    data = content_shop(absent={"image": [0, 1, 2, 29], "text": [2, 3, 29]})
    of = model(data, loss=loss, aux_scope=scope, missing=missing)
    terms = of.loss(batch(data, of, 300))
    sum(terms.values()).backward()
    assert all(bool(value.isfinite()) for value in terms.values())
    assert all(bool(p.grad.isfinite().all()) for p in of.parameters() if p.grad is not None)
    weights = of.routing(USERS, torch.tensor([0, 3, 2, 5]))["modality"]
    if missing == "mask":
        assert weights[:3].tolist() == [[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]]
    else:
        assert bool((weights > 0).all())
    scorer = of.scorer(data.catalog)
    assert scorer.without_content is not None
    assert scorer.without_content.nonzero().flatten().tolist() == [2, 29]
    assert bool(scorer(USERS).isfinite().all())
    if missing == "mask":
        known = torch.from_numpy(data.warm) & ~scorer.without_content
        torch.testing.assert_close(scorer.items[[2, 29]], scorer.items[known].mean(dim=0).expand(2, -1))


def test_the_absent_part_reaches_no_score(content_shop: Shop) -> None:
    """What lies in the place of a missing picture does not matter."""
    data = content_shop(absent={"image": [0]})
    of = model(data).eval()
    content = of.train_content
    before = of.encode(content).vectors
    image = content.features[0].clone()
    image[0] = 1e3
    torch.testing.assert_close(of.encode(content._replace(features=(image, content.features[1]))).vectors, before)


def test_modality_dropout_is_for_training_only(content_shop: Shop) -> None:
    of = model(content_shop(), modality_dropout=0.5)
    assert not bool(of.train().encode(of.train_content).present.all())
    assert bool(of.eval().encode(of.train_content).present.all())


@pytest.mark.parametrize("names", [("audio",), ("audio", "image", "text", "video")])
def test_any_number_of_modalities_learns(content_shop: Shop, names: tuple[str, ...]) -> None:
    data = content_shop({name: 6 + 2 * k for k, name in enumerate(names)}, absent={"audio": [0, 7]})
    of = model(data)
    optimizer, losses = torch.optim.Adam(of.parameters(), lr=0.02), []
    for seed in range(25):
        (triples,) = of.batches(data, 1000, np.random.default_rng(seed))
        optimizer.zero_grad()
        terms = of.loss(triples)
        sum(terms.values()).backward()
        optimizer.step()
        losses.append(float(terms["softmax"].detach()))
    assert losses[-1] < 0.8 * losses[0]
    routing = of.routing(USERS, torch.arange(5))
    assert list(routing) == ["modality", *(f"experts/{name}" for name in names)]
    assert routing["modality"].shape == (5, len(names))
    assert routing["experts/audio"].shape == (5, 4)
    sums = routing["modality"].sum(dim=1)
    torch.testing.assert_close(sums, torch.ones(5) if len(names) > 1 else torch.tensor([0.0, 1, 1, 1, 1]))
    assert routing["experts/audio"].count_nonzero(dim=1).tolist() == [0, 2, 2, 2, 2]


@pytest.mark.parametrize("settings", [{"experts": 1, "top_k": 1}, {"expert_hidden": 5}, {"experts": 3, "top_k": 3}])
def test_other_numbers_of_experts_run(content_shop: Shop, settings: dict[str, int]) -> None:
    data = content_shop()
    of = model(data, **settings)
    terms = of.loss(batch(data, of))
    sum(terms.values()).backward()
    assert all(bool(p.grad.isfinite().all()) for p in of.parameters())
    if settings.get("experts") == 1:
        assert terms["balance/image"].item() == pytest.approx(0.0, abs=1e-6)


def test_constant_features_and_modalities_by_name(content_shop: Shop) -> None:
    data = content_shop()
    same = Modality.from_matrix("same", np.full((data.n_items, 3), 0.7, dtype=np.float32))
    catalog = Catalog(data.catalog.items, {**data.catalog.modalities, "same": same})
    data = TrainData(data.users, catalog, data.interactions)
    of = model(data, modalities=("text", "same"))
    terms = of.loss(batch(data, of))
    assert set(terms) == {"softmax", "reg", "align", "balance/text", "balance/same", "balance/fusion"}
    assert all(bool(value.isfinite()) for value in terms.values())
    assert bool(of.scorer(catalog)(USERS).isfinite().all())
    with pytest.raises(ModelError, match="text"):
        model(data, modalities=("texts",))


@pytest.mark.parametrize(
    "settings",
    [
        {"top_k": 5},
        {"experts": 0},
        {"experts": 1},  # top_k stays 2
        {"top_k": 0},
        {"dropout": 1.0},
        {"folds": 1},
        {"folds": -1},
        {"landmarks": 0},
        {"components": 0},
        {"missing": "median"},
        {"modality_dropout": 1.0},
        {"learn": "jointly", "missing": "zero", "modality_dropout": 0.2},
        {"strengths": ()},
        {"strengths": (0.0, 1.0)},
        {"teacher_regs": (-1.0,)},
        {"teacher": {"dim": 0}},
    ],
)
def test_impossible_settings(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        MamexConfig.parse(settings)


def test_the_paper_preset_is_the_paper() -> None:
    paper = MamexConfig.preset("paper").model_dump()
    of_the_teacher = "teacher teacher_regs strengths landmarks folds profiles content_of_warm components gate_hidden"
    assert {name: value for name, value in paper.items() if name not in of_the_teacher.split()} == {
        **{"learn": "jointly", "gate": "learned", "noise": False, "load": 0.0},
        **{"dim": 128, "experts": 4, "top_k": 2, "expert_hidden": 0, "dropout": 0.1, "modalities": None},
        **{"balance": 1.0, "fusion_balance": 1.0, "align": 1.0, "reg": 1e-6, "loss": "bpr", "weight_decay": 0.0},
        **{"aux_scope": "all", "negatives": "all", "missing": "zero", "modality_dropout": 0.0, "standardize": False},
        **{"lr": 1e-3, "batch_size": 2048, "epochs": 1000, "eval_every": 10, "patience": 200, "seed": 2025},
    }


@pytest.mark.parametrize("missing", ["mean", "learned"])
def test_a_missing_modality_is_its_typical_vector(content_shop: Shop, missing: str) -> None:
    """h = pi_1 t_1 + pi_2 h_2 where the picture is missing; what lies in its place reaches nothing."""
    of = model(content_shop(absent={"image": [0]}), missing=missing).eval()
    assert of.typical is not None
    of.typical.data.normal_()
    encoding = of.encode(of.train_content)
    weights, text = encoding.weights[0], encoding.mixtures[1].vectors[0]
    assert bool((weights > 0).all())
    torch.testing.assert_close(encoding.vectors[0], weights[0] * of.typical[0] + weights[1] * text)


def test_the_mean_follows_the_vectors_of_those_that_have_it(content_shop: Shop) -> None:
    """A tenth of the way at each step of training, none of it in evaluation."""
    of = model(content_shop(absent={"image": [0, 5]}), missing="mean", dropout=0.0)
    of.eval().encode(of.train_content)
    assert not bool(of.typical.any())
    encoding = of.train().encode(of.train_content)
    image = encoding.mixtures[0].vectors[of.train_content.present[:, 0]].mean(dim=0)
    torch.testing.assert_close(of.typical[0], 0.1 * image)
    of.encode(of.train_content)
    torch.testing.assert_close(of.typical[0], 0.19 * image)
    assert not of.typical.requires_grad


def test_a_learnt_missing_modality_gets_gradient(content_shop: Shop) -> None:
    data = content_shop(absent={"image": [0, 1, 2]})
    of = model(data, missing="learned")
    sum(of.loss(batch(data, of, 300)).values()).backward()
    assert bool(of.typical.grad[0].any())
    assert not bool(of.typical.grad[1].any()), "no item lacks a text"


def test_an_even_gate_weighs_present_modalities_alike(content_shop: Shop) -> None:
    of = model(content_shop(absent={"image": [0]}), gate="mean")
    weights = of.routing(USERS, torch.tensor([0, 1]))["modality"]
    assert weights.tolist() == [[0.0, 1.0], [0.5, 0.5]]


def test_the_load_term_is_one_when_even(content_shop: Shop) -> None:
    """With as many chosen as there are experts, and a gate of zeros, f = P = 1/E: E sum f P = 1."""
    data = content_shop()
    of = model(data, experts=3, top_k=3, load=0.5)
    for mixture in of.experts:
        torch.nn.init.zeros_(mixture.gate.weight)
        torch.nn.init.zeros_(mixture.gate.bias)
    terms = of.loss(batch(data, of))
    assert terms["load/image"].item() == pytest.approx(0.5)
    assert terms["load/text"].item() == pytest.approx(0.5)


def test_noise_reaches_training_only(content_shop: Shop) -> None:
    data = content_shop()
    of = model(data, noise=True, dropout=0.0).train()
    first, second = (of.encode(of.train_content).mixtures[0].logits for _ in range(2))
    assert not torch.allclose(first, second)
    torch.testing.assert_close(of.scorer(data.catalog).items, of.scorer(data.catalog).items)


def test_users_start_small_and_items_have_no_embedding(content_shop: Shop) -> None:
    data = content_shop(users=400)
    of = model(data, dim=64)
    assert float(of.users.weight.detach().std()) == pytest.approx(0.1, rel=0.05)
    assert [name for name, p in of.named_parameters() if data.n_items in p.shape] == []


def test_scoring_leaves_training_mode_and_has_no_dropout(content_shop: Shop) -> None:
    data = content_shop()
    of = model(data, dropout=0.5, modality_dropout=0.5).train()
    torch.testing.assert_close(of.scorer(data.catalog).items, of.scorer(data.catalog).items)
    assert of.training
