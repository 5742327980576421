"""Statistics that normalise a series: mean and deviation of one of its patches.

Letters: B series, T points, P points of a patch, n = T / P patches.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from efficientids_flax.config import TimesFMConfig

ENOUGH = 3  # points that a patch needs for its statistics to be used


class Statistics(NamedTuple):
    """Mean and deviation of each series, float32 [B]."""

    mean: jax.Array
    deviation: jax.Array


class Patches(NamedTuple):
    """A batch cut into patches.

    Attributes:
        values: float32 [B, n, P], 0 for padding; missing points have the pad value.
        paddings: float32 [B, n, P], 1 for padding and missing points.
    """

    values: jax.Array
    paddings: jax.Array

    @property
    def padded(self) -> jax.Array:
        """float32 [B, n], 1 for patches whose points are all padding."""
        return jnp.min(self.paddings, axis=-1)


def cut(config: TimesFMConfig, series: jax.Array, paddings: jax.Array) -> Patches:
    """Cut a batch into patches.

    Args:
        config: has P, and the value that marks missing points.
        series: [B, T].
        paddings: [B, T], 1 for padding.

    Raises:
        ValueError: T is not a multiple of P, or the shapes differ.
    """
    batch, length = jnp.shape(series)
    if jnp.shape(paddings) != (batch, length):
        raise ValueError(f"paddings: found {jnp.shape(paddings)}, expected {(batch, length)}")
    if length % config.patch_length:
        raise ValueError(
            f"series: found {length} points, expected a multiple of patch_length ="
            f" {config.patch_length}; put padding in front"
        )
    shape = (batch, length // config.patch_length, config.patch_length)
    values = jnp.asarray(series, jnp.float32).reshape(shape)
    holes = jnp.asarray(paddings, jnp.float32).reshape(shape)
    values = jnp.where(holes == 1, 0.0, values)
    return Patches(values, jnp.where(values == jnp.float32(config.pad_value), 1.0, holes))


def statistics_of(config: TimesFMConfig, patches: Patches) -> Statistics:
    """Statistics of the first patch with at least `ENOUGH` points, or of the last patch.

    `config.statistics` selects the formula.
    """
    present = 1.0 - patches.paddings
    enough = jnp.sum(present, axis=-1) >= ENOUGH  # [B, n]
    chosen = jnp.where(jnp.any(enough, axis=1), jnp.argmax(enough, axis=1), enough.shape[1] - 1)
    rows = jnp.arange(enough.shape[0])
    values, mask = patches.values[rows, chosen], present[rows, chosen]  # [B, P]
    count = jnp.maximum(jnp.sum(mask, axis=-1), 1.0)
    mean = jnp.sum(values * mask, axis=-1) / count
    if config.statistics == "centred":
        squares = jnp.sum(jnp.square((values - mean[:, None]) * mask), axis=-1)
        deviation = jnp.maximum(jnp.sqrt(squares / count), config.tolerance)
    else:
        variance = jnp.sum(jnp.square(values * mask), axis=-1) / count - jnp.square(mean)
        deviation = jnp.sqrt(jnp.maximum(variance, 0.0))
        deviation = jnp.where(deviation < config.tolerance, 1.0, deviation)
    return Statistics(mean, deviation)


def series_statistics(config: TimesFMConfig, series: jax.Array, paddings: jax.Array) -> Statistics:
    """Statistics by which the model normalises series [B, T] with `paddings` [B, T]."""
    return statistics_of(config, cut(config, series, paddings))


def normalised(patches: Patches, statistics: Statistics) -> jax.Array:
    """Normalised patches, float32 [B, n, P], 0 for padding."""
    mean, deviation = (value[:, None, None] for value in statistics)
    return jnp.where(patches.paddings == 1, 0.0, (patches.values - mean) / deviation)
