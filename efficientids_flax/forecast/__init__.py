"""Forecasting of time series: TimesFM in Flax, and the functions that forecast with it.

Read `predict`, which users call, with `series` and `frequency`, then `steps`, `program`, `model`
and `statistics`. `covariates` adds a linear regression, `frames` reads and writes tables, `plot`
draws, `training` has the loss and the windows of fine-tuning.
"""

from typing import TYPE_CHECKING

from efficientids_flax.lazy_names import lazy_names

if TYPE_CHECKING:
    from efficientids_flax.forecast.covariates import (
        CovariateForecasts,
        Covariates,
        forecast_with_covariates,
    )
    from efficientids_flax.forecast.frames import forecast_frame
    from efficientids_flax.forecast.frequency import Frequency, dates_ahead, read_frequency
    from efficientids_flax.forecast.model import Forecast, TimesFM
    from efficientids_flax.forecast.predict import Forecasts, forecast
    from efficientids_flax.forecast.statistics import Statistics, series_statistics
    from efficientids_flax.forecast.steps import decode
    from efficientids_flax.forecast.training import (
        ForecastLoss,
        forecast_loss,
        model_inputs,
        training_windows,
    )

__all__ = [
    "CovariateForecasts",
    "Covariates",
    "Forecast",
    "ForecastLoss",
    "Forecasts",
    "Frequency",
    "Statistics",
    "TimesFM",
    "dates_ahead",
    "decode",
    "forecast",
    "forecast_frame",
    "forecast_loss",
    "forecast_with_covariates",
    "model_inputs",
    "read_frequency",
    "series_statistics",
    "training_windows",
]

__getattr__ = lazy_names(__name__)
