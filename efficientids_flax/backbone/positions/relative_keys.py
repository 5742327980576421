"""Transformer-XL's relative attention (arXiv 1901.02860, section 3.3).

Praxis' `DotProductAttentionXL` and `LocalSelfAttentionXL`. A logit is (q + u) k + (q + v) W r, with
sinusoids r of the distance from key to query. Letters: B batch, T queries, S keys, N heads, H
head width, P width of the sinusoids, L = T + S - 1 distances.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from efficientids_flax.backbone.kernels import parameter, product
from efficientids_flax.backbone.layers import (
    INTERMEDIATES,
    compute_dtype,
    param_dtype,
    sinusoids,
)
from efficientids_flax.config import BackboneConfig


class RelativeKeys(nn.Module):
    """Keys for each distance, and with `qkv_bias` the two query biases u and v."""

    config: BackboneConfig

    @nn.compact
    def __call__(
        self, query: jax.Array, start: jax.Array, keys: int
    ) -> tuple[jax.Array, jax.Array]:
        """Queries with bias u, to be multiplied with keys, and the logits of the distances.

        Args:
            query: [B, T, N, H], scaled.
            start: int [], index of the first query among the keys.
            keys: S.

        Returns:
            [B, T, N, H], float32 [B, N, T, S].
        """
        config, dtype = self.config, compute_dtype(self.config)
        assert config.relative_key_dims is not None
        heads = (config.num_heads, config.head_dim)
        shape = (config.relative_key_dims, *heads)
        init = nn.initializers.xavier_uniform()
        kernel = parameter(self, "kernel", init, shape, param_dtype(config)).astype(dtype)
        times = query.shape[1]
        places = start + jnp.arange(1 - keys, times)
        waves = sinusoids(places, shape[0]).astype(dtype)
        self.sow(INTERMEDIATES, "waves", waves)
        relative = product(waves, kernel)
        self.sow(INTERMEDIATES, "keys", relative)
        near = far = query
        if config.qkv_bias:
            stored, zeros = param_dtype(config), nn.initializers.zeros
            near, far = (
                query + parameter(self, name, zeros, heads, stored).astype(dtype)
                for name in ("key_bias", "distance_bias")
            )
        logits = jnp.einsum("btnh,lnh->bntl", far, relative, preferred_element_type=jnp.float32)
        return near, by_key(logits, keys)


def by_key(logits: jax.Array, keys: int) -> jax.Array:
    """Convert logits by distance to logits by key: [B, N, T, L] -> [B, N, T, S].

    Index l of query t belongs to key t - l + S - 1. Padding each row by one element and reshaping
    shifts each row by one more than the row before, which aligns the keys (the relative shift).
    """
    batch, heads, times, count = logits.shape
    flat = jnp.pad(logits.reshape(batch, heads, -1), ((0, 0), (0, 0), (0, times)))
    return flat.reshape(batch, heads, times, count + 1)[..., keys - 1 :: -1]
