"""Attention with linear biases by distance (ALiBi, arXiv 2108.12409).

A head's logits decrease by its slope with each position between query and key. Softmax is invariant
to a constant for all keys of a query, so it suffices to add `slope * position of the key`, as
bloom, MPT and Falcon do. Letters: B batch, S keys, N heads.
"""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from efficientids_flax.config import AlibiConfig


def linear_biases(config: AlibiConfig, heads: int, positions: jax.Array) -> jax.Array:
    """The bias to add to scaled logits: int [B, S] -> float32 [B, N, 1, S]."""
    slopes, places = head_slopes(heads, config.max_bias), positions[:, None, None, :]
    if config.in_bfloat16:
        rounded = jnp.asarray(slopes.astype(ml_dtypes.bfloat16))[:, None, None]
        biases = (rounded * places.astype(jnp.bfloat16)).astype(jnp.float32)
    else:
        biases = jnp.asarray(slopes)[:, None, None] * places.astype(jnp.float32)
    return biases * config.scale


def head_slopes(heads: int, max_bias: float) -> np.ndarray:
    """Slopes float32 [N]: 2^(-max_bias / N), its square, its cube, ... if N is a power of two.

    Other numbers of heads take the slopes for the next lower power of two, then every other one for
    the next higher power, as ALiBi's authors do.
    """
    below = 1 << (heads.bit_length() - 1)
    steps = max_bias / below * np.arange(1, below + 1)
    between = max_bias / (2 * below) * np.arange(1, 2 * below + 1, 2)
    return (2.0 ** -np.concatenate([steps, between])[:heads]).astype(np.float32)
