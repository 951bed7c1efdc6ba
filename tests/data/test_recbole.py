import numpy as np
import pytest

from modalmix.data import ReadConfig, make_split, read_recbole
from modalmix.errors import DataError

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n22\t51\t1\t881251000\n"
ITEM = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\tscores:float_seq\n"
    '51\tLegends of "the Fall\t1994\tDrama War\t0.5 1\n'
    "7\tTwelve Monkeys\t1995\t\t\n"
)


@pytest.fixture
def ml(tmp_path):
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    (folder / "ml-100k.inter").write_text(INTER)
    (folder / "ml-100k.item").write_text(ITEM)
    (folder / "ml-100k.user").write_text("user_id:token\tage:token\n196\t49\n")
    return folder


def test_typed_fields(ml):
    data = read_recbole(ml)
    assert data.name == "ml-100k"
    assert data.users.series.to_list() == [22, 196]
    assert data.catalog.items.series.to_list() == [51, 7, 242]  # 242 is named by the interactions only
    assert data.interactions.user.tolist() == [1, 0]
    assert data.interactions.item.tolist() == [2, 0]
    assert data.interactions.time.tolist() == [881250949, 881251000]
    assert data.interactions.rating.tolist() == [3, 1]
    assert data.catalog.titles(range(3)) == ['Legends of "the Fall', "Twelve Monkeys", "242"]
    assert data.catalog.table["class"].to_list() == [["Drama", "War"], [], None]
    assert data.catalog.table["scores"].to_list() == [[0.5, 1.0], [], None]


def test_tokens_that_are_words(ml):
    (ml / "ml-100k.inter").write_text(INTER.replace("242", "tt42"))
    data = read_recbole(ml)
    assert data.catalog.items.series.to_list() == ["51", "7", "tt42"]


def test_without_items_and_with_filters(ml):
    (ml / "ml-100k.item").unlink()
    data = read_recbole(ml, ReadConfig(min_rating=2))
    assert data.catalog.items.series.to_list() == [51, 242]
    assert len(data.interactions) == 1


def test_benchmark_parts(ml):
    (ml / "ml-100k.inter").unlink()
    header, first, second = INTER.splitlines()
    (ml / "ml-100k.train.inter").write_text(f"{header}\n{first}\n{second}\n")
    (ml / "ml-100k.valid.inter").write_text(f"{header}\n196\t51\t3\t881250950\n")
    (ml / "ml-100k.test.inter").write_text(f"{header}\n22\t242\t3.5\t881250960\n")
    data = read_recbole(ml)
    assert data.name == "ml-100k"
    assert data.labels.tolist() == ["train", "train", "valid", "test"]
    assert len(make_split(data).train) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id\titem_id\n1\t2\n", "header 'user_id': expected name:type"),
        ("user_id:token\titem_id:word\n1\t2\n", "header 'item_id:word'"),
        ("user_id:token\titem_id:token\trating:float\n1\t2\tgood\n", "field 'rating': got text, expected numbers"),
        ("user_id:token\tname:token\n1\t2\n", "no item column"),
        ("", "is empty"),
    ],
)
def test_bad_atomic_files(tmp_path, text, message):
    (tmp_path / "x.inter").write_text(text)
    with pytest.raises(DataError, match=message):
        read_recbole(tmp_path)


def test_features_by_setting(ml, tmp_path):
    np.save(tmp_path / "image.npy", np.ones((3, 2)))
    config = ReadConfig(modality_files={"image": tmp_path / "image.npy"})
    assert read_recbole(ml, config).catalog.modality("image").present.all()


def test_tokens_that_look_like_numbers_stay_as_written(ml):
    (ml / "ml-100k.item").unlink()
    (ml / "ml-100k.inter").write_text(INTER.replace("242", "1.10").replace("51\t1", "1e5\t1"))
    assert read_recbole(ml).catalog.items.series.to_list() == ["1.10", "1e5"]
