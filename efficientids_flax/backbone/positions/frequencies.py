"""Frequencies of rotary positions as in HuggingFace, and their scaling for long contexts.

Follows `modeling_rope_utils.py` operation by operation in float32, since an error in the last bit
of a frequency becomes p * 6e-8 radians at position p. Letters: P pairs (half of the rotated width).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.config import RotaryConfig, RotaryScalingConfig


def frequencies(
    config: RotaryConfig, width: int, longest: jax.Array
) -> tuple[np.ndarray | jax.Array, float]:
    """Radians per position of each pair, and the factor of cosine and sine.

    Args:
        config: configuration of one kind of layer.
        width: 2 P.
        longest: int [], the highest position of the batch.

    Returns:
        (float32 [P], factor).
    """
    scaling, scale = config.scaling, _scale(config, width)
    plain = 1 / scale
    if scaling is None:
        return plain, 1.0
    if scaling.kind == "linear":
        return plain / np.float32(scaling.factor), 1.0
    if scaling.kind == "proportional":
        turns = np.arange(width // 2) < int(scaling.share * width // 2)
        return np.where(turns, plain, np.float32(0)) / np.float32(scaling.factor), 1.0
    if scaling.kind == "llama3":
        return _llama3(plain, scaling), 1.0
    if scaling.kind == "yarn":
        base = config.max_timescale / config.min_timescale
        return _yarn(scale, scaling, base, width), attention_factor(scaling)
    original = _original(scaling)
    if scaling.kind == "dynamic":
        length = jnp.maximum(longest + 1, original).astype(jnp.float32)
        stretch = scaling.factor * length / original - (scaling.factor - 1)
        grown = _scale(config, width, stretch ** (width / (width - 2)))
        return jnp.where(longest + 1 > original, 1 / grown, plain), 1.0
    factors = (scaling.long_factors, scaling.short_factors)
    long, short = (1 / (np.asarray(given, np.float32) * scale) for given in factors)
    return jnp.where(longest + 1 > original, long, short), attention_factor(scaling)


def attention_factor(scaling: RotaryScalingConfig) -> float:
    """The factor of cosine and sine (logits are multiplied by its square)."""
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


def _scale(config: RotaryConfig, width: int, grown: jax.Array | None = None) -> Any:
    """Positions per radian of each pair, float32 [P]; the base is multiplied by `grown`.

    The power is rounded only once. So it equals PyTorch's in all but one of a hundred numbers,
    while XLA's own power differs in one of three.
    """
    exponent = np.arange(0, width, 2).astype(np.float32) / np.float32(width)
    low, base = config.min_timescale, config.max_timescale / config.min_timescale
    if grown is not None:
        return low * (base * grown) ** exponent
    return (low * base ** exponent.astype(np.float64)).astype(np.float32)


def _llama3(plain: np.ndarray, scaling: RotaryScalingConfig) -> np.ndarray:
    """Scale long waves, keep short ones, and interpolate between."""
    low, high, original = scaling.low_freq_factor, scaling.high_freq_factor, _original(scaling)
    wave = np.float32(2 * math.pi) / plain
    stretched = plain / np.float32(scaling.factor)
    share = (np.float32(original) / wave - np.float32(low)) / np.float32(high - low)
    between = (1 - share) * plain / np.float32(scaling.factor) + share * plain
    is_long, is_short = wave > np.float32(original / low), wave < np.float32(original / high)
    return np.where(is_long, stretched, np.where(is_short, plain, between)).astype(np.float32)


def _yarn(scale: np.ndarray, scaling: RotaryScalingConfig, base: float, width: int) -> np.ndarray:
    """Keep fast pairs, scale slow ones, with a linear ramp between (arXiv 2309.00071)."""
    ends = [
        width * math.log(_original(scaling) / (turns * 2 * math.pi)) / (2 * math.log(base))
        for turns in (scaling.beta_fast, scaling.beta_slow)
    ]
    if scaling.truncate:
        ends = [math.floor(ends[0]), math.ceil(ends[1])]
    first, last = max(ends[0], 0), min(ends[1], width - 1)
    if first == last:
        last += 0.001  # as HuggingFace does, to avoid a division by zero
    places = np.arange(width // 2, dtype=np.float32)
    ramp = np.clip((places - np.float32(first)) / np.float32(last - first), 0, 1)
    kept = 1 - ramp
    stretched = 1 / (np.float32(scaling.factor) * scale)
    return stretched * (1 - kept) + kept / scale


def _magnitude(scale: float, weight: float) -> float:
    return 1.0 if scale <= 1 else 0.1 * weight * math.log(scale) + 1.0


def _original(scaling: RotaryScalingConfig) -> int:
    assert scaling.original_max_positions is not None
    return scaling.original_max_positions
