"""Forecasts longer than one step: the mean of each step is appended to the series for the next.

Letters: B series, T points, P points of a patch, H points that a step can forecast, Q quantiles.
"""

from typing import Any

import jax
import numpy as np

from efficientids_flax.forecast.model import TimesFM
from efficientids_flax.forecast.program import values_at_patches
from efficientids_flax.forecast.statistics import Statistics


def decode(
    model: TimesFM,
    params: Any,
    series: np.ndarray | jax.Array,
    paddings: np.ndarray | jax.Array,
    frequencies: np.ndarray | jax.Array,
    horizon: int,
    *,
    step_length: int | None = None,
    max_length: int | None = None,
    on_context: bool = False,
    statistics: Statistics | None = None,
) -> np.ndarray:
    """The forecast of a batch, as `PatchedTimeSeriesDecoder.decode`.

    Compiled once per shape of the window, for any horizon. Nothing is cached between steps: each
    step computes new statistics, so that all normalised patches change.

    Args:
        model: the forecaster.
        params: its parameters.
        series: [B, T]; missing points have the pad value.
        paddings: [B, T], 1 for padding.
        frequencies: int [B] or [B, 1].
        horizon: number of points to forecast.
        step_length: points taken from each step, at most H; None: H.
        max_length: how many of the last points are read, a multiple of P; None: as configured.
        on_context: prepend the forecast on the context: from each patch but the last, the P points
            after it, T - P in all. T must be a multiple of P.
        statistics: statistics for the first step, instead of the series' own.

    Returns:
        float32 [B, horizon, 1 + Q], with `on_context` [B, T - P + horizon, 1 + Q].

    Raises:
        ValueError: a length is not possible.
    """
    config = model.config
    step = config.horizon_length if step_length is None else step_length
    window = config.context_length if max_length is None else max_length
    length = np.shape(series)[1]
    _check(config.patch_length, config.horizon_length, horizon, step, window)
    if on_context and length % config.patch_length:
        raise ValueError(
            f"on_context: needs a multiple of patch_length = {config.patch_length} points, found"
            f" {length}"
        )
    # Between the programs all is NumPy's: JAX would compile each slice of each length.
    values, holes = np.asarray(series, np.float32), np.asarray(paddings, np.float32)
    kinds = np.asarray(frequencies, np.int32).reshape(-1)
    found: list[np.ndarray] = []
    if on_context:  # no padding in front, which would only add patches that nobody attends to
        width = min(length, window)
        parts = values[:, -width:], holes[:, -width:]
    else:
        parts = _window(values, window, 0.0), _window(holes, window, 1.0)
    count = -(-horizon // step)
    for number in range(count):
        every = on_context and number == 0
        made = np.asarray(
            values_at_patches(model, params, *parts, kinds, statistics=statistics, last=not every)
        )
        statistics = None
        if every:
            before = made[:, :-1, : config.patch_length]
            found.append(before.reshape(before.shape[0], -1, before.shape[-1]))
        ahead = made[:, -1, :step]
        found.append(ahead)
        if number + 1 < count:
            values = np.concatenate([values, ahead[..., 0]], axis=1)[:, -window:]
            holes = np.pad(holes, ((0, 0), (0, step)))[:, -window:]
            parts = _window(values, window, 0.0), _window(holes, window, 1.0)
    total = horizon + (found[0].shape[1] if on_context else 0)
    return np.concatenate(found, axis=1)[:, :total]


def _check(patch: int, most: int, horizon: int, step: int, window: int) -> None:
    """Raise `ValueError` for impossible lengths."""
    problems = []
    if horizon < 1:
        problems.append(f"horizon: expected at least 1, found {horizon}")
    if not 1 <= step <= most:
        problems.append(f"step_length: expected 1 to {most} (horizon_length), found {step}")
    if window < patch or window % patch:
        problems.append(
            f"max_length: expected a multiple of patch_length = {patch}, found {window}"
        )
    if problems:
        raise ValueError("; ".join(problems))


def _window(values: np.ndarray, length: int, fill: float) -> np.ndarray:
    """The last `length` points, with padding in front if there are fewer."""
    lacking = length - values.shape[1]
    if lacking <= 0:
        return values[:, -length:]
    return np.pad(values, ((0, 0), (lacking, 0)), constant_values=fill)
