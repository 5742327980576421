"""Forecasting of time series: TimesFM in Flax, and what makes forecasts of series with it.

Read `statistics`, then `model`.
"""

from typing import TYPE_CHECKING

from efficientids_flax.lazy_names import lazy_names

if TYPE_CHECKING:
    from efficientids_flax.forecast.model import Forecast, TimesFM
    from efficientids_flax.forecast.statistics import Statistics

__all__ = ["Forecast", "Statistics", "TimesFM"]

__getattr__ = lazy_names(__name__)
