"""A plot of series, their forecasts, and the range of the quantiles."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from efficientids_flax.forecast.frames import Series
from efficientids_flax.forecast.predict import Forecasts

MOST = 8  # series in one plot
BEFORE = 4  # points of the series shown for each forecast point


def plot_forecasts(
    path: str | Path,
    read: Sequence[Series],
    found: Forecasts,
    dates: Sequence[np.ndarray],
    *,
    baseline: np.ndarray | None = None,
) -> None:
    """Draw the first `MOST` series, one below the other.

    Args:
        path: path of the image; its suffix sets the format.
        read: the series.
        found: their forecasts.
        dates: for each series, the dates [h] of its forecast.
        baseline: [S, h], the seasonal naive forecast, drawn for comparison.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "a plot needs matplotlib: pip install efficientids-flax[plots]"
        ) from error
    count = min(len(read), MOST)
    figure = Figure(figsize=(9, 2.8 * count), layout="constrained")
    for place, one in enumerate(read[:count]):
        axes = figure.add_subplot(count, 1, place + 1)
        horizon = len(dates[place])
        seen = slice(-BEFORE * horizon, None)
        axes.plot(one.dates[seen], one.values[seen], color="0.3", label="series")
        ahead = found.quantiles[place, -horizon:]
        if ahead.shape[-1] > 1:
            low, high = ahead.min(-1), ahead.max(-1)
            axes.fill_between(dates[place], low, high, alpha=0.25, label="quantiles")
        axes.plot(dates[place], found.mean[place, -horizon:], label="forecast")
        if baseline is not None:
            axes.plot(dates[place], baseline[place], ":", label="last season again")
        axes.set_title(one.name, loc="left", fontsize="medium")
        axes.legend(loc="upper left", fontsize="small")
    figure.savefig(path, dpi=120)


def dates_of(table: dict[str, np.ndarray], column: str, count: int) -> list[np.ndarray]:
    """The forecast dates of each of the `count` series in a table of forecasts."""
    return list(np.asarray(table[column]).reshape(count, -1))
