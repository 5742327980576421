"""Rotary positions (arXiv 2104.09864): Praxis' `RotaryPositionalEmbedding`, `LLaMARotaryEmbedding`,
and HuggingFace's.

Letters: B batch, T time, N heads, H head width, P pairs (half of the rotated width).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from efficientids_flax.backbone.positions.frequencies import frequencies
from efficientids_flax.config import RotaryConfig


class Turn(NamedTuple):
    """The rotation of each position: cosine and sine, float32 [B, T, 1, P]."""

    cosine: jax.Array
    sine: jax.Array


def turn(
    config: RotaryConfig, head_dim: int, positions: jax.Array, longest: jax.Array | None = None
) -> Turn:
    """The rotation of each position.

    Args:
        config: time scales, rotated share of the head, scaling.
        head_dim: H.
        positions: int [B, T].
        longest: int [], longest position, for 'dynamic' and 'longrope' scaling; None: that of
            `positions`.
    """
    width = int(head_dim * config.fraction)
    longest = jnp.max(positions) if longest is None else longest
    places = positions[..., None, None].astype(jnp.float32)
    if config.scaling is None and not config.by_frequency:
        angles, factor = places / timescales(config, width), 1.0
    else:
        frequency, factor = frequencies(config, width, longest)
        angles = places * frequency
    return Turn(jnp.cos(angles) * factor, jnp.sin(angles) * factor)


def rotate(x: jax.Array, turned: Turn, config: RotaryConfig) -> jax.Array:
    """Rotate pairs of a head's numbers.

    Args:
        x: [B, T, N, H].
        turned: from `turn`.
        config: how numbers are paired, and the dtype of the product.

    Returns:
        [B, T, N, H]; the first `fraction` of H is rotated.
    """
    cosine, sine = turned
    if not config.in_float32:
        cosine, sine = cosine.astype(x.dtype), sine.astype(x.dtype)
    width = 2 * cosine.shape[-1]
    active, rest = x[..., :width], x[..., width:]
    if config.pairing == "half_split":
        first, second = jnp.split(active, 2, axis=-1)
        pairs = [first * cosine - second * sine, second * cosine + first * sine]
        active = jnp.concatenate(pairs, axis=-1)
    else:
        first, second = active[..., ::2], active[..., 1::2]
        pairs = [first * cosine - second * sine, second * cosine + first * sine]
        active = jnp.stack(pairs, axis=-1).reshape(active.shape)
    return jnp.concatenate([active.astype(x.dtype), rest], axis=-1)


def timescales(config: RotaryConfig, width: int) -> jax.Array:
    """Positions per radian of each pair, float32 [P], as in Praxis.

    Args:
        config: configuration of one kind of layer.
        width: 2 P.
    """
    exponent = jnp.arange(width // 2, dtype=jnp.float32) * (2.0 / width)
    low, base = config.min_timescale, config.max_timescale / config.min_timescale
    return low * base**exponent
