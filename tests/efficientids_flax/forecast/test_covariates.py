"""Regression beside the model: what is linear in covariates is found, what is left is forecast."""

from typing import Any

import jax
import numpy as np
import pytest

from efficientids_flax.config import TimesFMConfig
from efficientids_flax.forecast import Covariates, TimesFM, forecast, forecast_with_covariates

CONFIG = TimesFMConfig(
    1, 8, 8, 2, 4, patch_length=4, horizon_length=8, quantiles=(0.1, 0.9), context_length=16
)
MODEL = TimesFM(CONFIG)
RANDOM = np.random.default_rng(0)
HEAT = [RANDOM.normal(size=length + 6) for length in (14, 20)]
DAY = [np.arange(length + 6) % 3 for length in (14, 20)]
REST = [0.1 * RANDOM.normal(size=length) for length in (14, 20)]
SERIES = [
    4 * heat[:-6] + np.array([0.0, 5.0, -2.0])[day[:-6]] + rest
    for heat, day, rest in zip(HEAT, DAY, REST, strict=True)
]
GIVEN = Covariates(dynamic_numerical={"heat": HEAT}, dynamic_categorical={"day": DAY})


@pytest.fixture(scope="module")
def params() -> Any:
    return jax.jit(MODEL.init)(jax.random.key(0), np.zeros((1, 16), np.float32))["params"]


def test_what_is_linear_in_covariates_is_found(params: Any):
    found = forecast_with_covariates(MODEL, params, SERIES, 6, GIVEN, normalize_targets=False)
    wanted = [4 * heat[-6:] + np.array([0.0, 5.0, -2.0])[day[-6:]]
              for heat, day in zip(HEAT, DAY, strict=True)]  # fmt: skip
    np.testing.assert_allclose(found.regression, wanted, atol=0.3)  # of noise of 0.1
    assert found.mean.shape == (2, 6)


def test_what_is_left_is_forecast(params: Any):
    """With residuals by another least-squares solver."""
    found = forecast_with_covariates(MODEL, params, SERIES, 6, GIVEN, normalize_targets=False)
    heat = np.concatenate([one[:-6] for one in HEAT])
    day = np.concatenate([one[:-6] for one in DAY])
    columns = np.stack([np.ones_like(heat), heat, day == 1, day == 2], axis=1).astype(float)
    targets = np.concatenate(SERIES)
    weights = np.linalg.solve(columns.T @ columns, columns.T @ targets)
    rest = np.split(targets - columns @ weights, [14])
    left = forecast(MODEL, params, rest, 6).mean
    np.testing.assert_allclose(found.mean, left + found.regression, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["xreg + timesfm", "timesfm + xreg"])
def test_both_modes_with_all_kinds(params: Any, mode: Any):
    more = Covariates(
        {"heat": HEAT}, {"day": DAY}, {"size": [1.0, 2.0]}, {"town": ["north", "south"]}
    )
    for ridge in (0.0, 1.0):
        found = forecast_with_covariates(MODEL, params, SERIES, 6, more, mode=mode, ridge=ridge)
        assert np.isfinite(found.mean).all()
    twice = forecast_with_covariates(
        MODEL, params, [2 * one + 1 for one in SERIES], 6, GIVEN, mode=mode
    )
    once = forecast_with_covariates(MODEL, params, SERIES, 6, GIVEN, mode=mode)
    np.testing.assert_allclose(twice.mean, 2 * once.mean + 1, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("given", "text"),
    [(Covariates(), "there are none"),
     (Covariates({"heat": HEAT[:1]}), "dynamic_numerical heat: found 1 for 2 series"),
     (Covariates({"heat": [HEAT[0], HEAT[1][1:]]}), "heat: series 1: found 25 values, expected 26"),
     (Covariates({"heat": [HEAT[0], HEAT[1] * np.nan]}), "heat: holds values that are not finite"),
     (Covariates(static_numerical={"size": [1.0]}), "static_numerical size: found 1")],
)  # fmt: skip
def test_covariates_that_do_not_fit(params: Any, given: Covariates, text: str):
    with pytest.raises(ValueError, match=text):
        forecast_with_covariates(MODEL, params, SERIES, 6, given)
    with pytest.raises(ValueError, match="mode: expected"):
        forecast_with_covariates(MODEL, params, SERIES, 6, given, mode="both")  # type: ignore[arg-type]
