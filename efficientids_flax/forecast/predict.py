"""Forecasts of series of any lengths: arrays in, a mean and quantiles out.

    mean, quantiles = forecast(model, params, [sales, visits], 24, freq="D")

Letters: S series, h points ahead, Q quantiles.
"""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from efficientids_flax.config import TimesFMConfig
from efficientids_flax.forecast.frequency import kinds_of
from efficientids_flax.forecast.model import TimesFM
from efficientids_flax.forecast.series import parted, read_series, scaled, side_by_side
from efficientids_flax.forecast.statistics import ENOUGH
from efficientids_flax.forecast.steps import decode

MEDIAN = 0.5
FAR = 500  # in deviations; at such a mean, the variance by moments is off by a few percent
SHOWN = 5
Freq = int | str | Sequence[int | str] | None


class Forecasts(NamedTuple):
    """Forecasts of S series.

    Attributes:
        mean: [S, h], the point forecast: the mean, or the median if requested.
        quantiles: [S, h, Q], in the order of the requested levels. Beyond the first step they are
            conditioned on the mean forecast. They are not sorted, so they may cross.
    """

    mean: np.ndarray
    quantiles: np.ndarray


def forecast(
    model: TimesFM,
    params: Any,
    series: Sequence[Any] | Mapping[Any, Any] | np.ndarray,
    horizon: int,
    *,
    freq: Freq = None,
    quantiles: Sequence[float] | None = None,
    point: Literal["mean", "median"] = "mean",
    context_length: int | None = None,
    normalize: bool = False,
    truncate_negative: bool | Literal["series"] = False,
    window_size: int | None = None,
    on_context: bool = False,
    step_length: int | None = None,
    batch_size: int = 32,
) -> Forecasts:
    """Forecast each series, as `forecast` of the `timesfm` package does.

    Args:
        model, params: from `load_model`.
        series: 1-D arrays of any lengths, by position or by name. NaNs at the beginning are
            dropped, others interpolated linearly. Series shorter than the context are padded in
            front.
        horizon: h.
        freq: 0 up to daily, 1 weekly and monthly, 2 beyond; or a word such as 'D', 'W', 'MS'; for
            all series, or one for each. None: 0.
        quantiles: levels to return, of those of the model; None: all.
        point: which forecast is `mean`: the mean, or the quantile 0.5.
        context_length: use only the last so many points of each series; None: as configured.
        normalize: scale each series by its own mean and deviation, and the forecast back.
        truncate_negative: set negative forecasts to 0. True: if no series has a negative point, as
            in the original (so a forecast depends on the other series); 'series': for each series
            without a negative point.
        window_size: forecast a moving average over so many points and the remainder, and add both.
        on_context: also return the forecast of the context, in front: the configured
            context_length minus patch_length points before the h.
        step_length: points of each step, see `decode`.
        batch_size: series at a time, with one compiled program for all.

    Returns:
        float32 arrays; float64 with `normalize`.

    Raises:
        ValueError: an impossible horizon, frequency, level or length; every series that is empty,
            infinite or not numeric, by name.
    """
    config = model.config
    _check(config, horizon, context_length, window_size, batch_size)
    columns = _columns(config, quantiles)
    if point not in ("mean", "median"):
        raise ValueError(f"point: expected 'mean' or 'median', found {point!r}")
    first = 0 if point == "mean" else _columns(config, [MEDIAN])[0]
    read = read_series(series)
    kinds = kinds_of(freq, len(read.names), read.names)
    if len(kinds) and config.num_frequencies and kinds.max() >= config.num_frequencies:
        raise ValueError(f"freq: found {kinds.max()}, the model has {config.num_frequencies}")
    values, scales = list(read.values), []
    if normalize:
        values, *scales = zip(*map(scaled, values), strict=True)
    look = context_length or config.context_length
    parts = seen = [one[-look:] for one in values]
    if config.statistics == "moments":
        _warn_of_offsets(config.patch_length, read.names, seen)
    if window_size is not None:
        parts = [part for one in seen for part in parted(one, window_size)]
        kinds = np.repeat(kinds, 2)
    found = _decoded(model, params, parts, kinds, horizon, on_context, step_length, batch_size)
    if window_size is not None:
        found = found[0::2] + found[1::2]
    if scales:
        mean, deviation = (np.asarray(scale)[:, None, None] for scale in scales)
        found = found * deviation + mean
    if truncate_negative:
        positive = np.asarray([one[-look:].min() >= 0 for one in read.values])
        whole = positive if truncate_negative == "series" else np.full(len(seen), positive.all())
        found = np.where(whole[:, None, None], np.maximum(found, 0), found)
    return Forecasts(found[..., first], found[..., columns])


def _warn_of_offsets(patch: int, names: Sequence[str], seen: Sequence[np.ndarray]) -> None:
    """Warn of series whose deviation is inaccurate by the releases' formula in float32."""
    far = []
    for name, one in zip(names, seen, strict=True):
        front = len(one) % patch  # points in the first patch, after padding; 0: it is full
        first = one[:front] if front >= ENOUGH else one[front : front + patch]
        if len(first) and first.std() and abs(first.mean()) > FAR * first.std():
            far.append(name)
    if far:
        some = ", ".join(far[:SHOWN]) + (" ..." if len(far) > SHOWN else "")
        warnings.warn(
            f"{some}: the mean is more than {FAR} deviations from zero, where E[x^2] - mean^2 in"
            " float32 is mostly rounding; statistics 'centred' of the configuration is not",
            UserWarning,
            stacklevel=3,
        )


def _decoded(
    model: TimesFM,
    params: Any,
    series: Sequence[np.ndarray],
    kinds: np.ndarray,
    horizon: int,
    on_context: bool,
    step_length: int | None,
    batch_size: int,
) -> np.ndarray:
    """Forecasts in batches of one size, [S, h', 1 + Q]; h' includes the context if requested."""
    config, params = model.config, jax.device_put(params)  # once, not for every batch
    length = max(map(len, series))
    # The window can be shorter than the context: more would only be padding, without effect.
    patch, step = config.patch_length, step_length or config.horizon_length
    grown = length + step * ((horizon - 1) // step)
    window = min(config.context_length, -(-grown // patch) * patch)
    window = max(window, -(-length // patch) * patch)
    if on_context:
        length = window = max(config.context_length, window)
    size = min(batch_size, len(series))
    found = []
    for start in range(0, len(series), size):
        part = side_by_side(series[start : start + size], min(length, window))
        own = kinds[start : start + size]
        lacking = size - len(own)
        rows, holes = (np.pad(values, ((0, lacking), (0, 0)), "edge") for values in part)
        own = np.pad(own, (0, lacking), "edge")
        made = decode(
            model, params, rows, holes, own, horizon,
            step_length=step_length, max_length=window, on_context=on_context,
        )  # fmt: skip
        found.append(made[: size - lacking])
    return np.concatenate(found)


def _columns(config: TimesFMConfig, levels: Sequence[float] | None) -> list[int]:
    """The indices of levels among the model's outputs.

    Raises:
        ValueError: the model does not have a level.
    """
    if levels is None:
        return list(range(1, config.num_outputs))
    found = []
    for level in levels:
        near = [i for i, own in enumerate(config.quantiles) if abs(own - level) < 1e-9]
        if not near:
            known = ", ".join(map(str, config.quantiles)) or "none"
            raise ValueError(f"quantiles: the model has no {level}; it has {known}")
        found.append(1 + near[0])
    return found


def _check(
    config: TimesFMConfig,
    horizon: int,
    context_length: int | None,
    window_size: int | None,
    batch_size: int,
) -> None:
    """Raise `ValueError` for impossible numbers."""
    given = {"horizon": horizon, "context_length": context_length, "window_size": window_size}
    problems = [
        f"{name}: expected a whole number of at least 1, found {value!r}"
        for name, value in {**given, "batch_size": batch_size}.items()
        if value is not None and (isinstance(value, bool) or int(value) != value or value < 1)
    ]
    if not problems and (context_length or 0) > config.context_length:
        problems.append(
            f"context_length: found {context_length}, the model is configured for"
            f" {config.context_length} (--set context_length=... when it is converted)"
        )
    if problems:
        raise ValueError("; ".join(problems))
