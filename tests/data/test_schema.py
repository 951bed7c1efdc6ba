import polars as pl
import pytest

from modalmix.data import Columns, ReadConfig
from modalmix.errors import ConfigError, DataError

TABLE = pl.DataFrame({"user_id": [1], "asin": ["a"], "rating": [1.0]})


def test_columns_by_setting_and_by_usual_name():
    columns = Columns(item="asin")
    assert columns.require(TABLE, "user", "x.csv") == "user_id"
    assert columns.require(TABLE, "item", "x.csv") == "asin"
    assert columns.find(TABLE, "timestamp", "x.csv") is None


def test_missing_columns():
    with pytest.raises(DataError, match=r"x.csv has no item column: got columns user_id, asin.*columns.item"):
        Columns().require(TABLE, "item", "x.csv")
    with pytest.raises(DataError, match="x.csv has no column 'asins'. Did you mean 'asin'?"):
        Columns(item="asins").find(TABLE, "item", "x.csv")


def test_cores():
    assert ReadConfig(k_core=5).cores == (5, 5)
    assert ReadConfig(k_core=5, item_core=2).cores == (5, 2)
    assert ReadConfig(user_core=3).cores == (3, 0)
    assert ReadConfig().cores == (0, 0)


@pytest.mark.parametrize(
    "settings",
    [{"k_core": 0}, {"duplicates": "sum"}, {"min_ratings": 3}, {"modalities": ["a"], "modality_files": {"b": "b.npy"}}],
)
def test_bad_settings(settings):
    with pytest.raises(ConfigError):
        ReadConfig.parse(settings)
