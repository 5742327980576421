"""Rotary positions (arXiv 2104.09864) and the ways of stretching them for long contexts.

Praxis' `RotaryPositionalEmbedding` and `LLaMARotaryEmbedding`; the scalings are those of
HuggingFace's `modeling_rope_utils.py`, in its arithmetic. Letters: B batch, T time, N heads, H head
width, P pairs of the turned width (half of it).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.config import RotaryConfig, RotaryScalingConfig


class Turn(NamedTuple):
    """By how much each position turns: cosine and sine, float32 [B, T, 1, P]."""

    cosine: jax.Array
    sine: jax.Array


def turn(
    config: RotaryConfig, head_dim: int, positions: jax.Array, longest: jax.Array | None = None
) -> Turn:
    """The turn of each position.

    Args:
        config: time scales, share of the head that turns, scaling.
        head_dim: H.
        positions: int [B, T].
        longest: int [], what 'dynamic' and 'longrope' scaling go by; None: that of `positions`.
    """
    width = int(head_dim * config.fraction)
    longest = jnp.max(positions) if longest is None else longest
    scale, factor = timescales(config, width, longest)
    angles = positions[..., None, None].astype(jnp.float32) / scale
    return Turn(jnp.cos(angles) * factor, jnp.sin(angles) * factor)


def rotate(x: jax.Array, turned: Turn, config: RotaryConfig) -> jax.Array:
    """Turn pairs of a head's numbers.

    Args:
        x: [B, T, N, H].
        turned: of `turn`.
        config: how numbers are paired, and the dtype of the product.

    Returns:
        [B, T, N, H]; the first `fraction` of H is turned.
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


def timescales(
    config: RotaryConfig, width: int, longest: jax.Array
) -> tuple[jax.Array, float | jax.Array]:
    """Positions that each pair takes for one radian, and what cosine and sine are multiplied by.

    Args:
        config: of one kind of layer.
        width: 2 P.
        longest: int [], the highest position of the batch.

    Returns:
        (float32 [P], factor).
    """
    scaling = config.scaling
    exponent = jnp.arange(width // 2, dtype=jnp.float32) * (2.0 / width)
    low, base = config.min_timescale, config.max_timescale / config.min_timescale
    if scaling is None:
        return low * base**exponent, 1.0
    if scaling.kind == "dynamic":
        original = _original(scaling)
        length = jnp.maximum(longest + 1, original).astype(jnp.float32)
        stretch = scaling.factor * length / original - (scaling.factor - 1)
        return low * (base * stretch ** (width / (width - 2))) ** exponent, 1.0
    scale = low * base**exponent
    if scaling.kind == "linear":
        return scale * scaling.factor, 1.0
    if scaling.kind == "llama3":
        return _llama3(scale, scaling), 1.0
    if scaling.kind == "yarn":
        return scale / _yarn_shrink(scaling, base, width), attention_factor(scaling)
    short, long = jnp.asarray(scaling.short_factors), jnp.asarray(scaling.long_factors)
    chosen = jnp.where(longest + 1 > _original(scaling), long, short)
    return scale * chosen.astype(jnp.float32), attention_factor(scaling)


def attention_factor(scaling: RotaryScalingConfig) -> float:
    """What cosine and sine are multiplied by (and so the logits by its square)."""
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    if scaling.kind == "yarn":
        whole = scaling.mscale_all_dim
        if scaling.mscale and whole:
            return _magnitude(scaling.factor, scaling.mscale) / _magnitude(scaling.factor, whole)
        return _magnitude(scaling.factor, 1.0)
    if scaling.kind == "longrope" and scaling.factor > 1:
        return math.sqrt(1 + math.log(scaling.factor) / math.log(_original(scaling)))
    return 1.0


def _llama3(scale: jax.Array, scaling: RotaryScalingConfig) -> jax.Array:
    """Long waves are stretched, short ones are not, those between by a share of both."""
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    turns = _original(scaling) / (2 * math.pi * scale)  # of a pair, over the original length
    share = (turns - low) / (high - low)
    between = scale / ((1 - share) / scaling.factor + share)
    return jnp.where(turns < low, scale * scaling.factor, jnp.where(turns > high, scale, between))


def _yarn_shrink(scaling: RotaryScalingConfig, base: float, width: int) -> np.ndarray:
    """By what the frequency of each pair is multiplied (arXiv 2309.00071): float32 [P]."""
    ends = [
        width * math.log(_original(scaling) / (turns * 2 * math.pi)) / (2 * math.log(base))
        for turns in (scaling.beta_fast, scaling.beta_slow)
    ]
    if scaling.truncate:
        ends = [math.floor(ends[0]), math.ceil(ends[1])]
    first, last = max(ends[0], 0), min(ends[1], width - 1)
    if first == last:
        last += 0.001  # as HuggingFace: a step, and no division by zero
    ramp = np.clip((np.arange(width // 2, dtype=np.float32) - first) / (last - first), 0, 1)
    return (ramp / scaling.factor + (1 - ramp)).astype(np.float32)


def _magnitude(scale: float, weight: float) -> float:
    return 1.0 if scale <= 1 else 0.1 * weight * math.log(scale) + 1.0


def _original(scaling: RotaryScalingConfig) -> int:
    assert scaling.original_max_positions is not None
    return scaling.original_max_positions
