"""Tables of series: read, forecast, written; against `forecast` of the same arrays."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from efficientids_flax.config import TimesFMConfig
from efficientids_flax.forecast import TimesFM, forecast, forecast_frame
from efficientids_flax.forecast.frames import read_csv, read_frame, write_csv

CONFIG = TimesFMConfig(
    1, 8, 8, 2, 4, patch_length=4, horizon_length=8, quantiles=(0.1, 0.9), context_length=16
)
MODEL = TimesFM(CONFIG)
DAYS = np.arange("2024-02-20", "2024-03-11", dtype="datetime64[D]")
VALUES = np.sin(np.arange(20.0))


class Frame:
    """What pandas and polars have in common."""

    def __init__(self, columns: dict[str, Any]) -> None:
        self._columns = columns
        self.columns = list(columns)

    def __getitem__(self, name: str) -> Any:
        return self._columns[name]


@pytest.fixture(scope="module")
def params() -> Any:
    return jax.jit(MODEL.init)(jax.random.key(0), np.zeros((1, 16), np.float32))["params"]


def table() -> dict[str, Any]:
    """Two series, rows in a muddle."""
    order = np.random.default_rng(0).permutation(40)
    return {
        "unique_id": np.repeat(["b", "a"], 20)[order],
        "ds": np.tile(DAYS, 2)[order],
        "y": np.r_[VALUES, VALUES + 3][order],
    }


def test_a_table_is_forecast_series_by_series(params: Any):
    found = forecast_frame(MODEL, params, Frame(table()), 3, freq="D")
    assert isinstance(found, Frame)
    assert found.columns == ["unique_id", "ds", "timesfm", "timesfm-q-0.1", "timesfm-q-0.9"]
    values = {"b": VALUES, "a": VALUES + 3}
    names = list(dict.fromkeys(found["unique_id"]))
    wanted = forecast(MODEL, params, [values[name] for name in names], 3, freq="D")
    np.testing.assert_allclose(found["timesfm"], wanted.mean.reshape(-1), rtol=1e-6)
    np.testing.assert_allclose(
        found["timesfm-q-0.9"], wanted.quantiles[..., 1].reshape(-1), rtol=1e-6
    )
    ahead = np.asarray(["2024-03-11", "2024-03-12", "2024-03-13"] * 2, "datetime64[D]")
    np.testing.assert_array_equal(found["ds"], ahead)


def test_steps_are_told_by_the_dates_or_are_numbers(params: Any):
    columns = {"ds": DAYS, "y": VALUES}
    found = forecast_frame(MODEL, params, columns, 2, quantiles=[0.9])
    assert found["unique_id"].tolist() == ["series", "series"]
    assert found["ds"].astype("datetime64[D]").tolist() == [
        *np.arange("2024-03-11", "2024-03-13", dtype="datetime64[D]").tolist()
    ]
    assert "timesfm-q-0.1" not in found
    found = forecast_frame(MODEL, params, {"ds": np.arange(0, 40, 2), "y": VALUES}, 2)
    assert found["ds"].tolist() == [40, 42]


def test_dates_that_are_missing_are_told(params: Any):
    columns = {"ds": np.delete(DAYS, 5), "y": np.delete(VALUES, 5)}
    with pytest.warns(UserWarning, match="series: dates are missing"):
        forecast_frame(MODEL, params, columns, 2, freq="D")
    with pytest.raises(ValueError, match="series: dates are not evenly spread; give freq"):
        forecast_frame(MODEL, params, {"ds": np.delete(DAYS, 15), "y": np.delete(VALUES, 5)}, 2)


@pytest.mark.parametrize(
    ("columns", "text"),
    [({"ds": [1, 2]}, "has no column y"),
     ({"ds": [1, 1], "y": [1.0, 2.0]}, "series: ds 1 comes twice"),
     ({"ds": ["then", "now"], "y": [1.0, 2.0]}, "column ds: holds no dates"),
     ({"ds": [1, 2], "y": ["a", "b"]}, "column y: holds no numbers"),
     ({"ds": [], "y": []}, "the table has no rows"),
     ({"ds": [1], "y": [1.0]}, "one point tells no step")],
)  # fmt: skip
def test_tables_that_cannot_be_used(params: Any, columns: dict, text: str):
    with pytest.raises(ValueError, match=text):
        forecast_frame(MODEL, params, columns, 2)


def test_a_file_is_read_and_written(tmp_path: Path):
    file = tmp_path / "data.csv"
    file.write_text("ds,y\n2024-01-01,1.5\n2024-01-02,\n2024-01-03,2\n")
    (one,) = read_frame(read_csv(file))
    np.testing.assert_array_equal(one.values, [1.5, np.nan, 2])
    text = write_csv(tmp_path / "out.csv", {"ds": one.dates, "y": one.values})
    assert text.splitlines()[1] == "2024-01-01,1.5"
    assert (tmp_path / "out.csv").read_text() == text
    file.write_text("ds,y\n1\n")
    with pytest.raises(ValueError, match=r"data\.csv:2: 1 cells, the first line has 2"):
        read_csv(file)
