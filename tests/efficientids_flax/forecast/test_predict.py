"""Forecasts of series as users have them.

Numbers of the options are in the recordings, which `tests/parity_tests/forecasters` compares.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from efficientids_flax.config import TimesFMConfig
from efficientids_flax.forecast import Forecasts, TimesFM, forecast
from efficientids_flax.parameters import parameter_shapes
from efficientids_flax.tree import unflatten

CONFIG = TimesFMConfig(
    2, 12, 16, 3, 4, patch_length=4, horizon_length=8, quantiles=(0.1, 0.5, 0.9), context_length=24
)
MODEL = TimesFM(CONFIG)
RANDOM = np.random.default_rng(0)
SERIES = [RANDOM.normal(size=length) + 5 for length in (30, 24, 9, 3, 17)]
NEAR = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(scope="module")
def params() -> Any:
    rng, shapes = np.random.default_rng(1), parameter_shapes(CONFIG)
    drawn = {path: rng.normal(0.05, 0.3, shapes[path]) for path in sorted(shapes)}
    return unflatten({path: values.astype(np.float32) for path, values in drawn.items()})


@pytest.fixture(scope="module")
def plain(params: Any) -> Forecasts:
    return forecast(MODEL, params, SERIES, 20, freq="D")


def test_shapes(plain: Forecasts):
    mean, quantiles = plain
    assert mean.shape == (5, 20)
    assert quantiles.shape == (5, 20, 3)
    assert mean.dtype == quantiles.dtype == np.float32
    assert np.isfinite(quantiles).all()


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_forecast_does_not_depend_on_its_neighbours(params: Any, plain: Forecasts, size: int):
    found = forecast(MODEL, params, SERIES, 20, freq="D", batch_size=size)
    np.testing.assert_allclose(found.mean, plain.mean, **NEAR)
    one = forecast(MODEL, params, SERIES[3:4], 20)  # a window of another length
    np.testing.assert_allclose(one.mean[0], plain.mean[3], **NEAR)


def test_a_shorter_horizon_is_the_beginning_of_a_longer(params: Any, plain: Forecasts):
    found = forecast(MODEL, params, SERIES, 3)
    np.testing.assert_allclose(found.quantiles, plain.quantiles[:, :3], **NEAR)


def test_only_the_context_is_looked_at(params: Any, plain: Forecasts):
    found = forecast(MODEL, params, [np.r_[99.0, SERIES[0]]], 20)
    np.testing.assert_allclose(found.mean[0], plain.mean[0], **NEAR)
    short = forecast(MODEL, params, SERIES[:1], 20, context_length=10)
    cut = forecast(MODEL, params, [SERIES[0][-10:]], 20)
    np.testing.assert_allclose(short.mean, cut.mean, **NEAR)


def test_gaps_are_filled_and_nan_in_front_left_out(params: Any):
    whole = np.arange(1.0, 12.0)
    holes = np.r_[[np.nan] * 3, whole]
    holes[6:8] = np.nan
    masked = np.ma.array(np.nan_to_num(holes, nan=99).astype(int), mask=np.isnan(holes))
    found, other, wanted = (forecast(MODEL, params, [one], 8) for one in (holes, masked, whole))
    np.testing.assert_allclose(found.mean, wanted.mean, **NEAR)
    np.testing.assert_array_equal(other.mean, found.mean)


def test_levels_are_chosen_by_name(params: Any, plain: Forecasts):
    found = forecast(MODEL, params, SERIES, 20, quantiles=[0.9, 0.1], point="median")
    np.testing.assert_allclose(found.quantiles, plain.quantiles[..., [2, 0]], **NEAR)
    np.testing.assert_allclose(found.mean, plain.quantiles[..., 1], **NEAR)
    with pytest.raises(ValueError, match=r"the model has no 0\.2; it has 0\.1, 0\.5, 0\.9"):
        forecast(MODEL, params, SERIES, 20, quantiles=[0.2])


def test_negative_forecasts_become_zero_where_no_series_is_negative(params: Any):
    small = [np.abs(np.sin(np.arange(20.0))) * 1e-3, np.r_[np.ones(19), 0.0]]
    free = forecast(MODEL, params, small, 20)
    assert free.quantiles.min() < 0
    for how in (True, "series"):
        cut = forecast(MODEL, params, small, 20, truncate_negative=how)
        np.testing.assert_allclose(cut.quantiles, np.maximum(free.quantiles, 0), **NEAR)
    beside = [*small, np.r_[-1.0, np.ones(9)]]
    cut = forecast(MODEL, params, beside, 20, truncate_negative=True)
    np.testing.assert_allclose(cut.quantiles[:2], free.quantiles, **NEAR)
    own = forecast(MODEL, params, beside, 20, truncate_negative="series")
    np.testing.assert_allclose(own.quantiles[:2], np.maximum(free.quantiles, 0), **NEAR)


def test_series_scaled_before_are_scaled_back(params: Any, plain: Forecasts):
    found = forecast(MODEL, params, [3 * one + 100 for one in SERIES], 20, normalize=True)
    wanted = forecast(MODEL, params, SERIES, 20, normalize=True)
    assert found.mean.dtype == np.float64
    np.testing.assert_allclose(found.mean, 3 * wanted.mean + 100, rtol=1e-4)


def test_a_dict_and_a_matrix_are_series_too(params: Any):
    rows = np.stack([SERIES[1], SERIES[1] + 1])
    first = forecast(MODEL, params, rows, 5)
    second = forecast(MODEL, params, {"a": rows[0], "b": rows[1]}, 5, freq=[0, 0])
    np.testing.assert_allclose(first.mean, second.mean, **NEAR)


def test_frequencies_matter_one_a_series(params: Any, plain: Forecasts):
    found = forecast(MODEL, params, SERIES, 20, freq=["D", "W", "D", "Q", 0])
    same = np.isclose(found.mean, plain.mean, rtol=1e-4).all(1)
    assert same.tolist() == [True, False, True, False, True]


@pytest.mark.parametrize(
    ("series", "options", "text"),
    [([], {}, "series: found none"),
     ({"sales": []}, {}, "sales: is empty"),
     ({"sales": [1.0], "visits": [1, np.inf]}, {}, "visits: point 1 is inf"),
     ([[1.0], [np.nan, np.nan]], {}, "series 1: is all NaN"),
     ([[[1.0, 2.0]]], {}, r"series 0: found shape \[1, 2\]"),
     ([["a", "b"]], {}, "series 0: holds no numbers"),
     ([[1.0]], {"horizon": 0}, "horizon: expected a whole number of at least 1, found 0"),
     ([[1.0]], {"horizon": 2.5}, "horizon: expected a whole number"),
     ([[1.0]], {"freq": 3}, "freq: all series: found 3"),
     ({"x": [1.0], "y": [1.0]}, {"freq": [0, "fortnight"]}, "no frequency 'fortnight'"),
     ([[1.0]], {"freq": [0, 1]}, "freq: found 2 for 1 series"),
     ([[1.0]], {"context_length": 48}, "context_length: found 48, the model is configured for 24"),
     ([[1.0]], {"window_size": 0}, "window_size: expected a whole number"),
     ([[1.0]], {"step_length": 9}, "step_length: expected 1 to 8"),
     ([[1.0]], {"point": "mode"}, "expected 'mean' or 'median'")],
)  # fmt: skip
def test_bad_input_is_told_by_name(params: Any, series: Any, options: dict, text: str):
    with pytest.raises(ValueError, match=text):
        forecast(MODEL, params, series, options.pop("horizon", 4), **options)


def test_every_series_that_cannot_be_used_is_listed(params: Any):
    with pytest.raises(ValueError, match=r"2 series cannot be used") as told:
        forecast(MODEL, params, {"a": [], "b": [1.0], "c": [np.inf]}, 4)
    assert "a: is empty" in str(told.value)
    assert "c: point 0" in str(told.value)


def test_a_series_far_from_zero_is_told(params: Any):
    far = 1e5 + np.sin(np.arange(20.0))
    with pytest.warns(UserWarning, match="prices: the mean is more than 500 deviations from zero"):
        forecast(MODEL, params, {"prices": far, "near": far - 1e5}, 4)
    centred = TimesFM(replace(CONFIG, statistics="centred"))
    forecast(centred, params, {"prices": far}, 4)
    forecast(MODEL, params, {"constant": np.full(20, 1e5), "near": far - 1e5}, 4)
