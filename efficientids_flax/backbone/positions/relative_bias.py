"""T5's bias on the attention logits by bucketed distance (Praxis `RelativeBias`).

Letters: B batch, T queries, S keys, N heads, R buckets.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from efficientids_flax.backbone.kernels import parameter
from efficientids_flax.backbone.layers import compute_dtype, param_dtype
from efficientids_flax.config import BackboneConfig, RelativeBiasConfig


class RelativeBias(nn.Module):
    """A learned bias for each head and distance bucket, [N, R]."""

    config: BackboneConfig

    @nn.compact
    def __call__(
        self, positions: jax.Array, key_positions: jax.Array, deterministic: bool
    ) -> jax.Array:
        """int [B, T], [B, S] -> [B, N, T, S]."""
        config = self.config
        assert config.relative_bias is not None
        shape = (config.num_heads, config.relative_bias.num_buckets)
        init = nn.initializers.normal(math.prod(shape) ** -0.5)
        table = parameter(self, "embedding", init, shape, param_dtype(config))
        if config.relative_bias.use_length_as_position and not deterministic:
            positions = key_positions = jnp.arange(positions.shape[1])[None]
        distance = key_positions[:, None, :] - positions[:, :, None]
        bucket = distance_bucket(distance, config.relative_bias)
        return jnp.moveaxis(table.T[bucket], -1, 1).astype(compute_dtype(config))


def distance_bucket(distance: jax.Array, config: RelativeBiasConfig) -> jax.Array:
    """Bucket of each distance (key minus query), int: exact when near, logarithmic when far."""
    count = config.num_buckets
    offset = jnp.zeros_like(distance)
    behind = -distance
    if config.bidirectional:
        count //= 2
        offset = jnp.where(behind < 0, count, 0)
        behind = jnp.abs(behind)
    else:
        behind = jnp.maximum(behind, 0)
    exact = count // 2
    ratio = jnp.log(behind.astype(jnp.float32) / exact) / math.log(config.max_distance / exact)
    # The logarithm is -inf if `behind` is zero, where its branch is not selected.
    far = exact + jnp.where(behind > 0, ratio * (count - exact), 0).astype(jnp.int32)
    return offset + jnp.where(behind < exact, behind, jnp.minimum(far, count - 1))
