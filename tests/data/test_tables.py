import gzip

import numpy as np
import polars as pl
import pytest

from modalmix.data import Columns, ReadConfig, read_table, read_tables
from modalmix.errors import DataError


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.csv", b"user,item\n1,b\n2,a\n"),
        ("x.csv", b"\xef\xbb\xbfuser,item\n1,b\n2,a\n"),  # with a byte order mark
        ("x.csv", b"user,item\r\n1,b\r\n2,a\r\n"),
        ("x.tsv", b"user\titem\n1\tb\n2\ta\n"),
        ("x.csv.gz", gzip.compress(b"user,item\n1,b\n2,a\n", mtime=0)),
        ("x.jsonl", b'{"user": 1, "item": "b"}\n{"user": 2, "item": "a"}\n'),
    ],
)
def test_the_same_table_in_every_format(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    expected = pl.DataFrame({"user": [1, 2], "item": ["b", "a"]})
    assert read_table(tmp_path / name).equals(expected)
    expected.write_parquet(tmp_path / "x.parquet")
    assert read_table(tmp_path / "x.parquet").equals(expected)


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet", "t.csv.gz"])
def test_brackets_and_stars_in_a_path_are_letters(tmp_path, name):
    path = tmp_path / "shop [new] *" / name
    path.parent.mkdir()
    table = pl.DataFrame({"user": [1], "item": [2]})
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(b"user,item\n1,2\n", mtime=0))
    else:
        {"csv": table.write_csv, "jsonl": table.write_ndjson, "parquet": table.write_parquet}[name[2:]](path)
    assert read_table(path).equals(table)


def test_text_becomes_numbers_only_without_loss(tmp_path):
    (tmp_path / "x.csv").write_text("id,zeros,mixed,share,flag,none\n1,007,1,1.5,true,\n-2,8,a,2,False,\n")
    table = read_table(tmp_path / "x.csv")
    assert table.rows() == [(1, "007", "1", 1.5, True, None), (-2, "8", "a", 2.0, False, None)]


def test_quotes_and_separators_in_titles(tmp_path):
    (tmp_path / "x.csv").write_text('item,title\n1,"Say ""hi"", twice"\n')
    assert read_table(tmp_path / "x.csv")["title"].to_list() == ['Say "hi", twice']


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", b"", "x.csv is empty: got 0 bytes"),
        ("x.csv", b"user,item\n", "has no rows: got only the columns user, item"),
        ("x.csv", b"\n\n", "cannot be read as csv"),
        ("x.csv", b"user,item\n1,2,3\n", "cannot be read as csv"),
        ("x.csv", "user,title\n1,café\n".encode("latin-1"), "x.csv is not UTF-8 text. Save it again as UTF-8"),
        ("x.csv", "usér,title\n1,b\n".encode("latin-1"), "x.csv is not UTF-8 text"),
        ("x.csv", "user,title\n1,b\n".encode("utf-16"), "x.csv is not UTF-8 text"),
        ("x.jsonl", '{"user": "café"}\n'.encode("latin-1"), "x.jsonl is not UTF-8 text"),
        ("x.jsonl", b'{"user": 1,\n', "cannot be read as jsonl"),
        ("x.parquet", b"PAR1", "cannot be read as parquet"),
        ("x.csv.gz", gzip.compress(b"user,item\n" + b"1,2\n" * 999, mtime=0)[:30], "cannot be read as csv"),
        ("x.xlsx", b"x", "not a known kind of table"),
        ("x.parquet.gz", b"x", "not a known kind of table"),
    ],
)
def test_bad_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_table(tmp_path / name)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(DataError, match="is not there"):
        read_table(tmp_path / "x.csv")
    with pytest.raises(DataError, match="is not a file"):
        read_table(tmp_path)


def test_read_tables_with_a_column_mapping(tmp_path):
    (tmp_path / "log.csv").write_text("who,what,when,stars\n9,x,2020-01-01 00:00:10,5\n8,y,2020-01-01 00:00:00,1\n")
    (tmp_path / "shop.csv").write_text("what,title\ny,Yoke\nz,Zip\nx,1984\n")
    np.save(tmp_path / "pictures.npy", np.eye(3, dtype=np.float32))
    columns = Columns(user="who", item="what", timestamp="when", rating="stars")
    config = ReadConfig(columns=columns, modality_files={"image": tmp_path / "pictures.npy"})
    data = read_tables(tmp_path / "log.csv", tmp_path / "shop.csv", config)
    assert data.name == "log"
    assert data.users.series.to_list() == [8, 9]
    assert data.catalog.items.series.to_list() == ["y", "z", "x"]
    assert data.catalog.titles([2]) == ["1984"]
    assert data.interactions.user.tolist() == [1, 0]
    assert data.interactions.item.tolist() == [2, 0]
    assert data.interactions.time.tolist() == [1577836810, 1577836800]
    assert data.interactions.rating.tolist() == [5, 1]
    assert data.catalog.modality("image").matrix()[2].tolist() == [0, 0, 1]


def test_one_table_is_enough(tmp_path):
    (tmp_path / "log.tsv").write_text("user_id\titem_id\n2\t30\n1\t4\n1\t30\n")
    data = read_tables(tmp_path / "log.tsv")
    assert data.catalog.items.series.to_list() == [4, 30]
    assert data.interactions.item.tolist() == [1, 0, 1]
    assert data.interactions.time is None


def test_named_columns_stay_text(tmp_path):
    (tmp_path / "x.csv").write_text("item,title,price\n7,1.50,2\n8,True,3\n")
    table = read_table(tmp_path / "x.csv", as_text={"item", "title"})
    assert table.rows() == [("7", "1.50", 2), ("8", "True", 3)]


def test_ids_are_integers_or_stay_as_written(tmp_path):
    rows = ["1,12345678901234567890,0.50", "2,1e5,1.10"]
    (tmp_path / "x.csv").write_text("user,item,rating\n" + "\n".join(rows) + "\n")
    table = read_table(tmp_path / "x.csv")
    assert table.rows() == [(1, "12345678901234567890", 0.5), (2, "1e5", 1.1)]


@pytest.mark.parametrize("ids", [["1.10", "1.1"], ["true", "false"], ["1", "007"], ["1", "9223372036854775808"]])
def test_text_ids_of_a_named_column_stay_apart(tmp_path, ids):
    (tmp_path / "log.csv").write_text("who,what\n" + "".join(f"{row},{id}\n" for row, id in enumerate(ids)))
    (tmp_path / "shop.csv").write_text("what\n" + "".join(f"{id}\n" for id in ids))
    config = ReadConfig(columns=Columns(user="who", item="what"))
    data = read_tables(tmp_path / "log.csv", tmp_path / "shop.csv", config)
    assert data.catalog.items.series.to_list() == ids
    assert data.interactions.item.tolist() == [0, 1]
