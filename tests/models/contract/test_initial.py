"""What id tables start from."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from modalmix.data.split import TrainData
from modalmix.errors import ModelError
from modalmix.models import names
from modalmix.models.contract import Query, Recommender, SequentialConfig, find_model
from modalmix.models.contract.initial import InitialConfig, initial_items
from tests.models.conftest import Shop
from tests.models.sequences import with_days

DIM = 4


def xavier(users: int, items: int) -> Tensor:
    """The random item table of a model that draws the users' first."""
    nn.init.xavier_uniform_(torch.empty(users, DIM))
    return nn.init.xavier_uniform_(torch.empty(items, DIM))


def beside_wider_users(users: int, items: int) -> Tensor:
    """The same where users have twice the length."""
    nn.init.xavier_uniform_(torch.empty(users, 2 * DIM))
    return nn.init.xavier_uniform_(torch.empty(items, DIM))


def embeddings(users: int, items: int) -> Tensor:
    """The same of a model whose tables are Embeddings, which draw for themselves before."""
    tables = nn.Embedding(users, DIM), nn.Embedding(items, DIM)
    return [nn.init.xavier_uniform_(table.weight) for table in tables][1].detach()


def normal(users: int, items: int) -> Tensor:
    """The same of Embeddings with N(0, .1^2)."""
    nn.init.normal_(nn.Embedding(users, DIM).weight, std=0.1)
    return nn.init.normal_(nn.Embedding(items, DIM).weight, std=0.1).detach()


def vectors(model: Any) -> Tensor:
    return model.items.detach()  # type: ignore[no-any-return]


def weights(model: Any) -> Tensor:
    return model.items.weight.detach()  # type: ignore[no-any-return]


def nodes(model: Any) -> Tensor:
    return model.nodes.detach()[model.n_users :]  # type: ignore[no-any-return]


# name -> its item table, the random numbers it starts from
TABLES: dict[str, tuple[Callable[[Any], Tensor], Callable[[int, int], Tensor]]] = {
    "bprmf": (vectors, xavier),
    "vbpr": (vectors, beside_wider_users),
    "lightgcn": (nodes, xavier),
    "clcrec": (weights, normal),
    **dict.fromkeys(("bm3", "freedom", "lattice", "magnet", "mgcn", "smore"), (weights, embeddings)),
}


def build(name: str, data: TrainData, **settings: Any) -> Recommender[Any]:
    model = find_model(name)
    torch.manual_seed(0)
    return model.recommender(model.config.parse({"dim": DIM, **settings}), data)


def table(name: str, data: TrainData, **settings: Any) -> Tensor:
    return TABLES[name][0](build(name, data, **settings))


def start(data: TrainData, kind: str, dim: int = 4, **given: object) -> torch.Tensor:
    torch.manual_seed(0)
    return initial_items(data, dim, 0.1, kind, **given)  # type: ignore[arg-type]


def test_content_has_the_variance_of_random_columns_on_warm_items(content_shop: Shop) -> None:
    data = content_shop({"image": 12, "text": 8})
    table = start(data, "content")[torch.from_numpy(data.warm)]
    torch.testing.assert_close(table.mean(dim=0), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(table.T @ table / len(table), 0.01 * torch.eye(4), atol=1e-5, rtol=0)


def test_it_follows_content(content_shop: Shop) -> None:
    """Content has two directions: nearest neighbours by it are nearest neighbours in the table."""
    data = content_shop({"image": 12})
    x = torch.from_numpy(data.catalog.modality("image").matrix())
    near = torch.cdist(x, x).fill_diagonal_(torch.inf).argmin(dim=1)
    found = start(data, "content", dim=2)
    distance = torch.cdist(found, found)
    rank = (distance < distance.gather(1, near.unsqueeze(1))).sum(dim=1) - 1  # itself is nearest
    assert rank.float().mean() < 3


def test_columns_beyond_the_content_and_rows_without_any_stay_random(content_shop: Shop) -> None:
    data = content_shop({"image": 3}, absent={"image": [2, 5]})
    random, found = start(data, "normal", dim=6), start(data, "content", dim=6)
    assert torch.equal(found[:, 3:], random[:, 3:])
    assert torch.equal(found[[2, 5]], random[[2, 5]])
    others = [row for row in range(30) if row not in (2, 5)]
    assert not (found[others, :3] == random[others, :3]).any()


def test_modalities_by_name(content_shop: Shop) -> None:
    data = content_shop({"image": 12, "text": 8})
    text = start(data, "content", modalities=("text",))
    assert torch.equal(text, start(content_shop({"image": 12, "text": 8}), "content", modalities=("text",)))
    assert not torch.equal(text, start(data, "content", modalities=("image",)))
    with pytest.raises(ModelError, match="no modality 'sound'"):
        start(data, "content", modalities=("sound",))


def test_without_content_there_is_nothing_to_start_from(content_shop: Shop) -> None:
    data = content_shop()
    bare = replace(data, catalog=replace(data.catalog, modalities={}))
    assert start(bare, "normal").shape == (30, 4)
    with pytest.raises(ModelError, match="no modality"):
        start(bare, "content")


def test_every_model_with_an_id_table_of_items_has_the_setting() -> None:
    having = {name for name in names() if issubclass(find_model(name).config, InitialConfig)}
    assert {name for name in having if not issubclass(find_model(name).config, SequentialConfig)} == set(TABLES)
    for name in having:
        config = find_model(name).config
        published = config.presets.keys() & {"paper", "field"}
        assert {config.preset(preset).id_init for preset in published} <= {"normal"}
        reads_content_in_sequence = name in {"cammsr", "fdsa", "hm4sr", "sasreccontent", "unisrec"}
        assert config().id_init == ("content" if reads_content_in_sequence else "normal")


@pytest.mark.parametrize("name", TABLES)
def test_without_it_a_model_starts_from_the_same_bits_as_ever(name: str, content_shop: Shop) -> None:
    data = content_shop()
    found = table(name, data)
    torch.manual_seed(0)
    assert torch.equal(found, TABLES[name][1](data.n_users, data.n_items))


@pytest.mark.parametrize("name", TABLES)
def test_with_it_a_model_starts_from_content_and_everything_else_from_the_same_bits(
    name: str, content_shop: Shop
) -> None:
    data = content_shop()
    random, started = build(name, data), build(name, data, id_init="content")
    before, found = TABLES[name][0](random), TABLES[name][0](started)
    warm, deviation = torch.from_numpy(data.warm), before.square().mean().sqrt()
    assert deviation.item() == pytest.approx({normal: 0.1}.get(TABLES[name][1], (2 / (30 + DIM)) ** 0.5), rel=0.15)
    torch.testing.assert_close(found[warm].mean(dim=0), torch.zeros(DIM), atol=1e-4, rtol=0)
    torch.testing.assert_close(
        found[warm].T @ found[warm] / warm.sum(), deviation**2 * torch.eye(DIM), atol=1e-5, rtol=0
    )
    expected = initial_items(data, DIM, float(deviation), "content")  # cold rows among them
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(found[~warm], before[~warm])
    # nothing else is drawn in another way, and what is saved and served has the same form
    saved, same = started.state_dict(), random.state_dict()
    assert saved.keys() == same.keys()
    others = [key for key in same if not torch.equal(saved[key], same[key])]
    assert len(others) == 1
    assert torch.equal(saved[others[0]][: -data.n_items], same[others[0]][: -data.n_items])
    for model in (random, started):
        model.eval()
    scores = [model.scorer(data.catalog)(Query(users=torch.arange(3))) for model in (random, started)]
    assert scores[1].isfinite().all()
    assert not torch.equal(*scores)


@pytest.mark.parametrize("name", TABLES)
def test_of_the_named_modalities_rows_without_content_stay_random(name: str, content_shop: Shop) -> None:
    data = content_shop({"image": 12, "text": 3}, absent={"text": [2, 29]})
    before, found = table(name, data), table(name, data, id_init="content", init_modalities=("text",))
    assert torch.equal(found[[2, 29]], before[[2, 29]])
    assert torch.equal(found[:, 3:], before[:, 3:])
    others = [row for row in range(30) if row not in (2, 29)]
    assert not (found[others, :3] == before[others, :3]).any()
    with pytest.raises(ModelError, match="no modality 'sound'"):
        table(name, data, id_init="content", init_modalities=("sound",))


@pytest.mark.filterwarnings("ignore:the items have no column")
@pytest.mark.parametrize("name", [name for name in names() if issubclass(find_model(name).config, SequentialConfig)])
def test_the_ids_of_a_sequential_model_start_as_asked(name: str, content_shop: Shop) -> None:
    data = with_days(content_shop())
    random, started = (
        build(name, data, init_std=0.1, id_init=kind, init_modalities=("text",)).get_parameter("table")
        for kind in ("normal", "content")
    )
    assert torch.equal(random, start(data, "normal"))
    assert torch.equal(started, start(data, "content", modalities=("text",)))
    assert not torch.isclose(random, started).any()


@pytest.mark.parametrize("name", ["bprmf", "lightgcn"])
def test_a_model_without_content_needs_it_to_start_from(name: str, content_shop: Shop) -> None:
    data = content_shop()
    bare = replace(data, catalog=replace(data.catalog, modalities={}))
    assert torch.equal(table(name, bare), table(name, data))
    with pytest.raises(ModelError, match="no modality"):
        build(name, bare, id_init="content")
