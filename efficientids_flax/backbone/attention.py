"""Self-attention with every option of the configuration, in exact arithmetic.

Letters: B batch, T queries, S keys, D model width, N heads, J heads of keys and values, H head
width. See praxis/layers/attentions.py, `DotProductAttention`.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from efficientids_flax.backbone.layers import compute_dtype, param_dtype, soft_cap
from efficientids_flax.config import BackboneConfig, RelativeBiasConfig, RotaryConfig

MASKED = -0.7 * float(np.finfo(np.float32).max)  # Praxis' logit of what may not be seen
SOFTPLUS_OF_ZERO = 1.442695041  # 1 / softplus(0): a per-dim scale of zero leaves 1/sqrt(H)

LayerKind = Literal["full", "sliding"]


class Attention(nn.Module):
    """Multi-head, grouped or multi-query attention over one sequence.

    Attributes:
        config: of the decoder.
        rotary: how queries and keys are turned in this layer; None for not at all.
    """

    config: BackboneConfig
    rotary: RotaryConfig | None

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        mask: jax.Array,
        positions: jax.Array,
        deterministic: bool = True,
    ) -> jax.Array:
        """Attend.

        Args:
            x: [B, T, D].
            mask: bool [B, 1, T, T], True where the query (third axis) sees the key.
            positions: int [B, T], place of each token in its segment.
            deterministic: no dropout.

        Returns:
            [B, T, D].
        """
        config = self.config
        dtype = compute_dtype(config)
        query, key, value = self._project(x.astype(dtype))
        if self.rotary is not None:
            query = rotate(query, positions, self.rotary)
            key = rotate(key, positions, self.rotary)
        query = self._scale(query)
        groups = config.num_heads // config.num_kv_heads
        grouped = query.reshape(*query.shape[:2], config.num_kv_heads, groups, config.head_dim)
        logits = jnp.einsum("btjgh,bsjh->bjgts", grouped, key)
        logits = logits.reshape(logits.shape[0], config.num_heads, *logits.shape[3:])
        if config.relative_bias is not None:
            logits = logits + RelativeBias(config, name="relative_bias")(positions, deterministic)
        logits = soft_cap(logits, config.attention_logit_cap).astype(jnp.float32)
        weights = jax.nn.softmax(jnp.where(mask, logits, MASKED), axis=-1).astype(dtype)
        weights = nn.Dropout(config.attention_dropout)(weights, deterministic=deterministic)
        weights = weights.reshape(weights.shape[0], config.num_kv_heads, groups, *weights.shape[2:])
        mixed = jnp.einsum("bjgts,bsjh->btjgh", weights, value)
        mixed = mixed.reshape(*mixed.shape[:2], config.num_heads, config.head_dim)
        return Projection(
            (config.model_dims, config.num_heads, config.head_dim),
            "btnh,dnh->btd", (config.model_dims,), config.attention_out_bias, config, name="out",
        )(mixed)  # fmt: skip

    def _project(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries [B, T, N, H], keys and values [B, T, J, H]."""
        config = self.config
        width, heads, kv, size = (
            config.model_dims,
            config.num_heads,
            config.num_kv_heads,
            config.head_dim,
        )
        bias = config.qkv_bias
        if config.fused_qkv:
            fused = Projection(
                (3, width, heads, size), "btd,cdnh->cbtnh", (3, 1, 1, heads, size), bias, config,
                name="qkv",
            )(x)  # fmt: skip
            return fused[0], fused[1], fused[2]

        def project(name: str, count: int) -> jax.Array:
            if config.multi_query and name != "query":
                shape, equation, bias_shape = (width, size), "btd,dh->bth", (size,)
            else:
                shape, equation, bias_shape = (
                    (width, count, size), "btd,dnh->btnh", (count, size),
                )  # fmt: skip
            found = Projection(shape, equation, bias_shape, bias, config, name=name)(x)
            return found.reshape(*found.shape[:2], count, size)

        return project("query", heads), project("key", kv), project("value", kv)

    def _scale(self, query: jax.Array) -> jax.Array:
        config = self.config
        how, size = config.query_scaling, config.head_dim
        if how == "none":
            return query
        if how == "inverse_sqrt_head_dim":
            return query * size**-0.5
        if how == "per_dim_scale":
            scale = self.param("per_dim_scale", nn.initializers.zeros, (size,), param_dtype(config))
            factor = SOFTPLUS_OF_ZERO / math.sqrt(size) * jax.nn.softplus(scale)
            return query * factor.astype(query.dtype)
        return query * how


class Projection(nn.Module):
    """An einsum with a kernel and, where asked for, a bias that is added to the result.

    Attributes:
        shape: of the kernel.
        equation: of (input, kernel).
        bias_shape: as it is added; axes of 1 are not stored.
    """

    shape: tuple[int, ...]
    equation: str
    bias_shape: tuple[int, ...]
    use_bias: bool
    config: BackboneConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The product, of the configuration's compute dtype."""
        config, dtype = self.config, compute_dtype(self.config)
        kernel = self.param(
            "kernel", nn.initializers.xavier_uniform(), self.shape, param_dtype(config)
        )
        x = jnp.einsum(self.equation, x, kernel.astype(dtype))
        if self.use_bias:
            stored = tuple(size for size in self.bias_shape if size != 1) or self.bias_shape
            bias = self.param("bias", nn.initializers.zeros, stored, param_dtype(config))
            x = x + bias.astype(dtype).reshape(self.bias_shape)
        return x


class RelativeBias(nn.Module):
    """T5's bias on the logits by bucketed distance (Praxis `RelativeBias`)."""

    config: BackboneConfig

    @nn.compact
    def __call__(self, positions: jax.Array, deterministic: bool) -> jax.Array:
        """int [B, T] -> [B, N, T, T]."""
        config = self.config
        assert config.relative_bias is not None
        shape = (config.num_heads, config.relative_bias.num_buckets)
        table = self.param("embedding", nn.initializers.normal(0.02), shape, param_dtype(config))
        if config.relative_bias.use_length_as_position and not deterministic:
            positions = jnp.arange(positions.shape[1])[None]
        distance = positions[:, None, :] - positions[:, :, None]  # key minus query
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
    # Where `behind` is zero the logarithm is -inf; that branch is not taken.
    far = exact + jnp.where(behind > 0, ratio * (count - exact), 0).astype(jnp.int32)
    return offset + jnp.where(behind < exact, behind, jnp.minimum(far, count - 1))


def rotate(x: jax.Array, positions: jax.Array, config: RotaryConfig) -> jax.Array:
    """Rotary positions (Praxis `RotaryPositionalEmbedding`; interleaved: its LLaMA variant).

    Args:
        x: [B, T, N, H].
        positions: int [B, T].
        config: pairing and timescales.

    Returns:
        [B, T, N, H]; the first `fraction` of H is turned.
    """
    if config.scaling is not None:
        raise ValueError(f"rotary scaling {config.scaling} is not computed by this decoder yet")
    turned = int(x.shape[-1] * config.fraction)
    exponent = jnp.arange(turned // 2, dtype=jnp.float32) * (2.0 / turned)
    scale = config.min_timescale * (config.max_timescale / config.min_timescale) ** exponent
    angles = positions[..., None, None].astype(jnp.float32) / scale
    sine, cosine = jnp.sin(angles), jnp.cos(angles)
    if not config.in_float32:
        sine, cosine = sine.astype(x.dtype), cosine.astype(x.dtype)
    active, rest = x[..., :turned], x[..., turned:]
    if config.pairing == "half_split":
        first, second = jnp.split(active, 2, axis=-1)
        pairs = [first * cosine - second * sine, second * cosine + first * sine]
        active = jnp.concatenate(pairs, axis=-1)
    else:
        first, second = active[..., ::2], active[..., 1::2]
        pairs = [first * cosine - second * sine, second * cosine + first * sine]
        active = jnp.stack(pairs, axis=-1).reshape(active.shape)
    return jnp.concatenate([active.astype(x.dtype), rest], axis=-1)


def attention_mask(
    segment_ids: jax.Array,
    config: BackboneConfig,
    kind: LayerKind,
    prefix: jax.Array | None = None,
) -> jax.Array:
    """Who sees whom: keys of the same segment, and not later ones unless they are a prefix.

    Args:
        segment_ids: int [B, T]; padding is a segment of its own, 0.
        config: of the decoder.
        kind: whether the layer's window slides.
        prefix: [B, T], 1 where a key may be seen by all queries of its segment.

    Returns:
        bool [B, 1, T, T].
    """
    same = segment_ids[:, :, None] == segment_ids[:, None, :]
    place = jnp.arange(segment_ids.shape[1])
    ahead = place[None, :] > place[:, None]  # the key lies after the query
    if config.attention_mask == "bidirectional":
        ahead = jnp.zeros_like(ahead)
    seen = same & ~ahead[None]
    if config.attention_mask == "prefix":
        if prefix is None:
            raise ValueError("attention_mask 'prefix' needs the batch's inputs_indicator")
        seen = same & (~ahead[None] | (prefix[:, None, :] > 0))
    if kind == "sliding" and config.sliding_window is not None:
        seen = seen & (place[None, :] > place[:, None] - config.sliding_window)[None]
    return seen[:, None]
