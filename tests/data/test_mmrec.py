import numpy as np
import pytest

from modalmix.data import Columns, ReadConfig, make_split, read_mmrec
from modalmix.errors import DataError

INTER = """userID\titemID\trating\ttimestamp\tx_label
0\t2\t5.0\t1300000000\t0
1\t0\t4.0\t1300000100\t0
0\t0\t3.0\t1300000200\t1
1\t2\t5.0\t1300000300\t2
"""


@pytest.fixture
def baby(tmp_path):
    folder = tmp_path / "baby"
    folder.mkdir()
    (folder / "baby.inter").write_text(INTER)
    np.save(folder / "image_feat.npy", np.arange(1, 9, dtype=np.float64).reshape(4, 2))
    np.save(folder / "text_feat.npy", np.ones((4, 3), dtype=np.float32))
    np.save(folder / "neighbours.npy", np.ones(7))
    return folder


def test_rows_are_ids_without_a_mapping(baby):
    data = read_mmrec(baby)
    assert data.name == "baby"
    assert data.catalog.items.series.to_list() == [0, 1, 2, 3]
    assert data.users.series.to_list() == [0, 1]
    assert data.interactions.item.tolist() == [2, 0, 0, 2]
    assert data.interactions.time[3] == 1_300_000_300
    assert data.interactions.rating.tolist() == [5, 4, 3, 5]
    assert data.labels.tolist() == ["train", "train", "valid", "test"]
    assert set(data.catalog.modalities) == {"image", "text"}
    assert data.catalog.modality("image").matrix()[3].tolist() == [7, 8]
    assert isinstance(data.catalog.modality("image").features, np.memmap)
    split = make_split(data)
    assert (len(split.train), len(split.valid), len(split.test)) == (2, 1, 1)


@pytest.mark.parametrize("separator", ["\t", ","])
def test_mappings_give_the_original_ids(baby, separator):
    rows = [("asin", "itemID"), ("B00", "0"), ("B03", "3"), ("B02", "2"), ("B01", "1")]
    (baby / "i_id_mapping.csv").write_text("\n".join(separator.join(row) for row in rows) + "\n")
    (baby / "u_id_mapping.csv").write_text(f"user_id{separator}userID\nzoe{separator}0\nann{separator}1\n")
    data = read_mmrec(baby)
    assert data.catalog.items.series.to_list() == ["B00", "B01", "B02", "B03"]
    assert data.catalog.table["itemID"].to_list() == [0, 1, 2, 3]
    assert data.users.series.to_list() == ["ann", "zoe"]
    assert data.interactions.user.tolist() == [1, 0, 1, 0]
    assert data.catalog.modality("image").matrix()[3].tolist() == [7, 8]


def test_bad_mmrec_folders(baby, tmp_path):
    (baby / "i_id_mapping.csv").write_text("asin\titemID\nB00\t0\n")
    with pytest.raises(DataError, match=r"does not give each itemID one id: got 3 without an id"):
        read_mmrec(baby)
    (baby / "i_id_mapping.csv").write_text("asin\titemID\n" + "".join(f"B{row}\t{row % 4}\n" for row in range(5)))
    with pytest.raises(DataError, match="a number twice"):
        read_mmrec(baby)
    (baby / "i_id_mapping.csv").unlink()
    (baby / "baby.inter").write_text(INTER.replace("\t2\n", "\t3\n"))
    with pytest.raises(DataError, match="column x_label: got 3, expected 0"):
        read_mmrec(baby)
    (baby / "baby.inter").write_text(INTER.replace("userID", "user"))
    with pytest.raises(DataError, match="no column userID"):
        read_mmrec(baby)
    (baby / "baby.inter").write_text(INTER)
    np.save(baby / "text_feat.npy", np.ones((5, 3)))
    with pytest.raises(DataError, match="features of 'image': got 4 rows, expected 5 rows"):
        read_mmrec(baby)
    with pytest.raises(DataError, match="needs one .inter file: got none"):
        read_mmrec(tmp_path)


def test_items_and_features_of_different_length(baby):
    (baby / "baby.inter").write_text(INTER + "1\t9\t1.0\t1300000400\t0\n")
    with pytest.raises(DataError, match="got 4 rows, expected 10 rows"):
        read_mmrec(baby)


def test_mapped_ids_stay_as_written(baby):
    ids = ["1.10", "1e5", "007", "7"]
    (baby / "i_id_mapping.csv").write_text("asin\titemID\n" + "".join(f"{id}\t{row}\n" for row, id in enumerate(ids)))
    assert read_mmrec(baby).catalog.items.series.to_list() == ids


def test_row_numbers_are_written_as_integers(baby):
    (baby / "baby.inter").write_text(INTER.replace("0\t2\t5.0", "0\t02\t5.0"))
    with pytest.raises(DataError, match="column itemID: expected row numbers from 0"):
        read_mmrec(baby)


def test_columns_cannot_be_chosen(baby):
    with pytest.raises(DataError, match=r"setting columns.rating with the MMRec folder .*: got 'stars'. Leave it out"):
        read_mmrec(baby, ReadConfig(columns=Columns(rating="stars")))


def test_a_mapping_of_other_numbers(baby):
    (baby / "u_id_mapping.csv").write_text("user_id\tuserID\nzoe\t00\nann\t01\n")
    with pytest.raises(DataError, match="column userID: got String, expected Int64, as in the .inter file"):
        read_mmrec(baby)
