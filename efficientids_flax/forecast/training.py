"""Fine-tuning: the loss of the original's script, and training windows of series.

Source: `PatchedDecoderFinetuneModel` of `timesfm` 1.x. Letters: B windows, T points of context, P
points of a patch, h points ahead (at most H), Q quantiles.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.config import TimesFMConfig
from efficientids_flax.forecast.series import read_series

SERIES, FUTURE, PADDING, FUTURE_PADDING, FREQUENCY = (
    "input_ts", "actual_ts", "input_padding", "actual_padding", "freq",
)  # fmt: skip


class ForecastLoss(NamedTuple):
    """The loss of a batch, and its parts.

    Attributes:
        loss: the squared error of the mean plus twice the pinball loss of each quantile, summed
            over quantiles, averaged over points ahead.
        squared_error: the squared error of the mean, averaged.
        quantile_loss: the rest of the loss.
        total_weight: number of points ahead that counted.
    """

    loss: jax.Array
    squared_error: jax.Array
    quantile_loss: jax.Array
    total_weight: jax.Array


def model_inputs(
    config: TimesFMConfig, batch: Mapping[str, Any]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(series [B, T'], paddings [B, T'], frequencies [B]) of a batch, T' a multiple of P.

    Args:
        config: has P.
        batch: `input_ts` [B, T]; optional `input_padding` [B, T]; optional `freq` int [B], else 0.
    """
    series = jnp.asarray(batch[SERIES], jnp.float32)
    holes = batch.get(PADDING)
    holes = jnp.zeros_like(series) if holes is None else jnp.asarray(holes, jnp.float32)
    kinds = batch.get(FREQUENCY)
    count = series.shape[0]
    kinds = jnp.zeros(count, jnp.int32) if kinds is None else jnp.asarray(kinds, jnp.int32)
    lacking = -series.shape[1] % config.patch_length
    front = ((0, 0), (lacking, 0))
    return (
        jnp.pad(series, front),
        jnp.pad(holes, front, constant_values=1.0),
        kinds.reshape(count),
    )


def forecast_loss(
    config: TimesFMConfig,
    values: jax.Array,
    future: jax.Array | np.ndarray,
    paddings: jax.Array | np.ndarray | None = None,
) -> ForecastLoss:
    """The loss of the forecast after the last patch.

    Args:
        config: has the quantiles.
        values: [B, n, H, 1 + Q], output of the model.
        future: [B, h], the true values.
        paddings: [B, h], 1 for points that do not count; None: all count, as in the original.

    Raises:
        ValueError: h is more than H.
    """
    future = jnp.asarray(future, jnp.float32)
    if future.shape[1] > config.horizon_length:
        raise ValueError(
            f"{FUTURE}: found {future.shape[1]} points, a step forecasts {config.horizon_length}"
        )
    made = values[:, -1, : future.shape[1]]
    weights = jnp.ones_like(future) if paddings is None else 1.0 - paddings
    total = jnp.maximum(jnp.sum(weights), 1e-6)
    levels = jnp.asarray(config.quantiles, jnp.float32)
    squares = jnp.square(made[..., 0] - future)
    off = future[..., None] - made[..., 1:]
    pinball = 2 * jnp.where(off * levels >= 0, off * levels, -off * (1 - levels))
    error = jnp.sum(squares * weights) / total
    rest = jnp.sum(jnp.sum(pinball, axis=-1) * weights) / total
    return ForecastLoss(error + rest, error, rest, total)


def training_windows(
    series: Sequence[Any] | Mapping[Any, Any],
    context_length: int,
    horizon: int,
    *,
    stride: int = 1,
    freq: int = 0,
) -> dict[str, np.ndarray]:
    """All windows of some series: a context and the points after it.

    `train.batches.ShuffledBatches(windows, batch_size)` makes batches of them.

    Args:
        series: series of any lengths, see `read_series`.
        context_length: T; shorter contexts at the beginning get padding in front, and have at
            least one point.
        horizon: h.
        stride: points from one window to the next, counted from the end of each series.
        freq: kind of frequency of all series.

    Returns:
        `input_ts`, `input_padding` float32 [W, T], `actual_ts` float32 [W, h], `freq` int32 [W].

    Raises:
        ValueError: a series cannot be used, or is not longer than the horizon.
    """
    read = read_series(series)
    contexts, holes, futures = [], [], []
    short = [n for n, one in zip(read.names, read.values, strict=True) if len(one) <= horizon]
    if short:
        raise ValueError(f"{', '.join(short[:5])}: not longer than the horizon of {horizon} points")
    for one in read.values:
        for end in range(len(one) - horizon, 0, -stride):
            seen = one[max(end - context_length, 0) : end]
            lacking = context_length - len(seen)
            contexts.append(np.pad(seen, (lacking, 0)))
            holes.append(np.pad(np.zeros(len(seen)), (lacking, 0), constant_values=1))
            futures.append(one[end : end + horizon])
    return {
        SERIES: np.asarray(contexts, np.float32),
        PADDING: np.asarray(holes, np.float32),
        FUTURE: np.asarray(futures, np.float32),
        FREQUENCY: np.full(len(contexts), freq, np.int32),
    }
