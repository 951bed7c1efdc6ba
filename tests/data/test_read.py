import pytest

from modalmix.data import detect_format, read_dataset
from modalmix.errors import DataError


def test_formats_are_told_apart(folder, tmp_path):
    assert detect_format(folder) == "folder"
    assert read_dataset(folder).name == "small"
    mmrec, recbole = tmp_path / "m", tmp_path / "r"
    mmrec.mkdir()
    recbole.mkdir()
    (mmrec / "m.inter").write_text("userID\titemID\tx_label\n0\t0\t0\n")
    (recbole / "r.inter").write_text("user_id:token\titem_id:token\nann\tcup\n")
    assert detect_format(mmrec) == "mmrec"
    assert read_dataset(mmrec).labels.tolist() == ["train"]
    assert detect_format(recbole) == "recbole"
    assert read_dataset(recbole).users.series.to_list() == ["ann"]
    assert read_dataset(recbole / "r.inter").users.series.to_list() == ["ann"]
    (tmp_path / "log.csv").write_text("user,item\nann,cup\n")
    assert detect_format(tmp_path / "log.csv") == "file"
    assert read_dataset(str(tmp_path / "log.csv")).catalog.items.series.to_list() == ["cup"]


def test_what_is_no_data_set(tmp_path):
    with pytest.raises(DataError, match="is not there"):
        read_dataset(tmp_path / "nothing")
    with pytest.raises(DataError, match="is not a data set: got an empty folder, expected interactions.parquet"):
        read_dataset(tmp_path)
    (tmp_path / "train.txt").write_text("0 1 2")
    with pytest.raises(DataError, match=r"is not a data set: got train.txt"):
        read_dataset(tmp_path)
