"""Queries, keys and values from narrow latents (DeepSeek's multi-head latent attention).

`DeepseekV3Attention`; arXiv 2405.04434, section 2.1. Letters: B batch, T queries, S keys, D model
width, N heads, H head width, R its rotated part, C width of the latent, O width of a value.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp

from efficientids_flax.backbone.layers import Dense, Norm
from efficientids_flax.backbone.positions import Turn, rotate
from efficientids_flax.backbone.projection import Projection
from efficientids_flax.config import BackboneConfig, RotaryConfig


def latents(
    config: BackboneConfig, rotary: RotaryConfig | None, x: jax.Array, turned: Turn | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Queries, and the latents of keys and values; call it within the attention module.

    Args:
        config: the layer's.
        rotary: how the last R numbers of heads are rotated; None: not at all.
        x: [B, T, D], in the compute dtype.
        turned: the rotation of each position.

    Returns:
        Queries [B, T, N, H], latents [B, T, 1, C], the rotated part of keys [B, T, 1, R].
    """
    own = config.latent_attention
    assert own is not None
    given = x
    if own.query_dims is not None:
        given = _latent(config, own.query_dims, "query_latent", x)
        given = _norm(config, "query_latent_norm", given)
    shape = (given.shape[-1], config.num_heads, config.head_dim)
    query = Projection(shape, "in", shape[1:], False, config, name="query")(given)
    both = _latent(config, own.latent_dims + own.rotary_dims, "latent", x)
    latent, shared = both[..., : own.latent_dims], both[..., None, own.latent_dims :]
    if rotary is not None and turned is not None:
        still = config.head_dim - own.rotary_dims
        end = rotate(query[..., still:], turned, rotary)
        query = jnp.concatenate([query[..., :still], end], axis=-1)
        shared = rotate(shared, turned, rotary)
    return query, _norm(config, "latent_norm", latent)[..., None, :], shared


def expanded(
    config: BackboneConfig, latent: jax.Array, shared: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Keys [B, S, N, H] and values [B, S, N, O] from what `latents` returned."""
    own, heads = config.latent_attention, config.num_heads
    assert own is not None
    latent = latent[:, :, 0]
    still, values = ((own.latent_dims, heads, width) for width in
                     (config.head_dim - own.rotary_dims, own.value_dims))  # fmt: skip
    key = Projection(still, "in", still[1:], False, config, name="key")(latent)
    value = Projection(values, "in", values[1:], False, config, name="value")(latent)
    shared = jnp.broadcast_to(shared, (*key.shape[:-1], shared.shape[-1]))
    return jnp.concatenate([key, shared.astype(key.dtype)], axis=-1), value


def _latent(config: BackboneConfig, width: int, name: str, x: jax.Array) -> jax.Array:
    return Dense(width, config.qkv_bias, config, name=name)(x)


def _norm(config: BackboneConfig, name: str, x: jax.Array) -> jax.Array:
    assert config.latent_attention is not None
    epsilon = config.latent_attention.norm_epsilon
    own = replace(config, norm="rms_norm", norm_bias=False, norm_epsilon=epsilon, norms=None)
    return Norm(own, name=name)(x).astype(x.dtype)
