"""Self-attention with every option of the configuration, in exact arithmetic or by a fused kernel.

Letters: B batch, T queries, S keys, D model width, N heads, J heads of keys and values, H head
width. See praxis/layers/attentions.py, `DotProductAttention`.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from efficientids_flax.backbone.attention.latents import expanded, latents
from efficientids_flax.backbone.attention.softmax import softmax, softmax_beside
from efficientids_flax.backbone.attention.surroundings import Surroundings
from efficientids_flax.backbone.cache import LayerCache, put_keys
from efficientids_flax.backbone.inputs import rows_at
from efficientids_flax.backbone.kernels import parameter
from efficientids_flax.backbone.layers import (
    INTERMEDIATES,
    Norm,
    compute_dtype,
    param_dtype,
    soft_cap,
)
from efficientids_flax.backbone.masks import LayerKind
from efficientids_flax.backbone.positions import (
    RelativeBias,
    RelativeKeys,
    linear_biases,
    rotate,
)
from efficientids_flax.backbone.projection import Projection
from efficientids_flax.config import BackboneConfig, RotaryConfig
from efficientids_flax.sharding import constrain

MASKED = -0.7 * float(np.finfo(np.float32).max)  # Praxis' logit of masked keys
SOFTPLUS_OF_ZERO = 1.442695041  # 1 / softplus(0): a per-dim scale of zero leaves 1/sqrt(H)
# einsum of queries with keys, and of probabilities with values. If heads do not share keys, the
# axis of groups is left out: XLA's CPU backend takes three times as long for arrays of five axes.
UNGROUPED = "btnh,bsnh->bnts", "bnts,bsnh->btnh"
GROUPED = "btjgh,bsjh->bjgts", "bjgts,bsjh->btjgh"
# Number of trailing axes of [..., N, H] that are normed together, and that the scale has.
QK_NORM_AXES = {"per_head": (1, 1), "each_head": (1, 2), "full": (2, 2)}


class Attention(nn.Module):
    """Multi-head, grouped or multi-query attention over one sequence.

    Attributes:
        config: the layer's.
        kind: kind of the layer, see `layer_kind`.
        rotary: rotation of queries and keys in this layer; None: no rotation.
    """

    config: BackboneConfig
    kind: LayerKind
    rotary: RotaryConfig | None

    def __call__(
        self,
        x: jax.Array,
        around: Surroundings,
        deterministic: bool = True,
        at: jax.Array | None = None,
    ) -> jax.Array:
        """[B, T, D] -> [B, T, D], or [B, M, D] only for the queries at int [B, M] places `at`.

        `deterministic`: no dropout.
        """
        return self.run(x, around, deterministic, at=at)[0]

    def extend(
        self,
        x: jax.Array,
        around: Surroundings,
        cache: LayerCache,
        at: jax.Array | None = None,
    ) -> tuple[jax.Array, LayerCache]:
        """The same over the tokens in a cache and new ones, which are added to the cache."""
        out, grown = self.run(x, around, True, cache, at)
        assert grown is not None
        return out, grown

    @nn.compact
    def run(
        self,
        x: jax.Array,
        around: Surroundings,
        deterministic: bool,
        cache: LayerCache | None = None,
        at: jax.Array | None = None,
    ) -> tuple[jax.Array, LayerCache | None]:
        """Both of the above."""
        config, dtype = self.config, compute_dtype(self.config)
        x, latent = x.astype(dtype), config.latent_attention is not None
        if latent:  # the cache stores latents; keys and values are computed from them here
            query, key, value = latents(config, self.rotary, x, around.turns.get(self.kind))
        else:
            query, key, value = self._of_input(x, around)
        query = constrain(self._scale(query, around.positions), "B T N H")
        self.sow(INTERMEDIATES, "scaled_query", query)
        if cache is not None:
            cache = put_keys(cache, key, value, around.start)
            key, value = cache.keys.astype(dtype), cache.values.astype(dtype)
        if latent:
            key, value = expanded(config, key, value)
        query, around = rows_at(query, at), around.at(at)
        return self._attend(query, key, value, around, deterministic), cache

    def _of_input(
        self, x: jax.Array, around: Surroundings
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries [B, T, N, H], keys and values [B, T, J, H]: clipped, normed and rotated."""
        config = self.config
        query, key, value = self._project(x)
        if not config.qkv_clip_after_norm:
            query, key, value = self._clip(query, key, value)
        if config.qk_norm_after_rotary:
            return (*self._norm(*self._turn(query, key, around)), value)
        query, key = self._norm(query, key)
        if config.qkv_clip_after_norm:
            query, key, value = self._clip(query, key, value)
        return (*self._turn(query, key, around), value)

    def _attend(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        around: Surroundings,
        deterministic: bool,
    ) -> jax.Array:
        """[B, T, N, H], keys and values of all tokens -> [B, T, D]."""
        config = self.config
        key, value = constrain(key, "B S J H"), constrain(value, "B S J H")
        bias = None
        if config.relative_bias is not None:
            distances = RelativeBias(config, name="relative_bias")
            bias = distances(around.positions, around.key_positions, deterministic)
        if config.alibi is not None:
            linear = linear_biases(config.alibi, config.num_heads, around.key_positions)
            bias = linear if bias is None else bias + linear
        mask = around.masks[self.kind]
        if config.attention_implementation == "exact":
            far = None
            if config.relative_key_dims is not None:
                relative = RelativeKeys(config, name="relative_key")
                query, far = relative(query, around.start, key.shape[1])
            mixed = self._mix(query, key, value, bias, mask, deterministic, far)
        else:
            if bias is not None:
                bias = jnp.broadcast_to(bias, (*bias.shape[:2], *mask.shape[-2:]))
            mixed = mix_by_kernel(config, query, key, value, bias, mask)
        self.sow(INTERMEDIATES, "mixed", mixed)
        return Projection(
            (config.model_dims, config.num_heads, mixed.shape[-1]),
            "out", (config.model_dims,), config.attention_out_bias, config, name="out",
        )(mixed)  # fmt: skip

    def _mix(
        self,
        query: jax.Array,
        key: jax.Array,
        value: jax.Array,
        bias: jax.Array | None,
        mask: jax.Array,
        deterministic: bool,
        distances: jax.Array | None,
    ) -> jax.Array:
        """Values weighted by attention probabilities: [B, T, N, H].

        `bias` [B, N, T, S] is added after the logits are sown as intermediates, `distances` before.
        """
        config = self.config
        scores, mixes = GROUPED if config.num_heads > config.num_kv_heads else UNGROUPED
        if scores is GROUPED[0]:
            query = query.reshape(*query.shape[:2], config.num_kv_heads, -1, config.head_dim)
        logits = jnp.einsum(scores, query, key, preferred_element_type=jnp.float32)
        logits = logits.reshape(logits.shape[0], config.num_heads, *logits.shape[-2:])
        if distances is not None:
            logits = logits + distances
        self.sow(INTERMEDIATES, "logits", logits)
        if bias is not None:
            logits = logits + bias
        logits = soft_cap(logits, config.attention_logit_cap)
        logits = jnp.where(mask, logits, MASKED)
        if config.attention_sinks:
            sinks = parameter(
                self, "sinks", nn.initializers.zeros, (config.num_heads,), param_dtype(config)
            )
            probs = softmax_beside(logits, sinks.astype(jnp.float32)).astype(query.dtype)
        else:
            probs = softmax(logits, config.attention_extra_logit).astype(query.dtype)
        self.sow(INTERMEDIATES, "probs", probs)
        probs = nn.Dropout(config.attention_dropout)(probs, deterministic=deterministic)
        if scores is GROUPED[0]:
            probs = probs.reshape(probs.shape[0], config.num_kv_heads, -1, *probs.shape[2:])
        mixed = jnp.einsum(mixes, probs, value)
        return mixed.reshape(*mixed.shape[:2], config.num_heads, -1)

    def _project(self, x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries [B, T, N, H], keys and values [B, T, J, H]."""
        config = self.config
        width, size = config.model_dims, config.head_dim
        heads, kv = config.num_heads, config.num_kv_heads
        bias = config.qkv_bias
        if config.fused_qkv:
            fused = Projection(
                (3, width, heads, size), "fused", (3, heads, size), bias, config,
                bias_axes=(1, 2), name="qkv",
            )(x)  # fmt: skip
            return fused[0], fused[1], fused[2]

        def project(name: str, count: int) -> jax.Array:
            if config.multi_query and name != "query":
                shape, bias_shape = (width, size), (size,)
            else:
                shape, bias_shape = (width, count, size), (count, size)
            found = Projection(shape, "in", bias_shape, bias, config, name=name)(x)
            return found.reshape(*found.shape[:2], count, size)

        return project("query", heads), project("key", kv), project("value", kv)

    def _turn(
        self, query: jax.Array, key: jax.Array, around: Surroundings
    ) -> tuple[jax.Array, jax.Array]:
        if self.rotary is not None:
            turned = around.turns[self.kind]
            query, key = rotate(query, turned, self.rotary), rotate(key, turned, self.rotary)
            self.sow(INTERMEDIATES, "rotated_query", query)
            self.sow(INTERMEDIATES, "rotated_key", key)
        return query, key

    def _norm(self, query: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        if self.config.qk_norm == "none":
            return query, key
        axes, scaled = QK_NORM_AXES[self.config.qk_norm]
        own = self.config.of_norm("query_key")
        return (
            Norm(own, axes, scaled, name="query_norm")(query).astype(query.dtype),
            Norm(own, axes, scaled, name="key_norm")(key).astype(key.dtype),
        )

    def _clip(self, *arrays: jax.Array) -> tuple[jax.Array, ...]:
        clip = self.config.qkv_clip
        return arrays if clip is None else tuple(jnp.clip(x, -clip, clip) for x in arrays)

    def _scale(self, query: jax.Array, positions: jax.Array) -> jax.Array:
        """Scale queries as configured, and by their positions."""
        config = self.config
        if (growth := config.query_position_scaling) is not None:
            lengths = jnp.floor(positions.astype(jnp.float32) / growth.length)
            factor = 1 + growth.beta * jnp.log1p(lengths)
            query = query * factor[..., None, None].astype(query.dtype)
        how, size = config.query_scaling, config.head_dim
        if how == "none":
            return query
        if how == "inverse_sqrt_head_dim":
            return query * size**-0.5
        if how == "per_dim_scale":
            scale = parameter(
                self, "per_dim_scale", nn.initializers.zeros, (size,), param_dtype(config)
            )
            factor = SOFTPLUS_OF_ZERO / math.sqrt(size) * jax.nn.softplus(scale)
            return query * factor.astype(query.dtype)
        return query * how


def mix_by_kernel(
    config: BackboneConfig,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    bias: jax.Array | None,
    mask: jax.Array,
) -> jax.Array:
    """`jax.nn.dot_product_attention`: [B, T, N, H], [B, S, J, H] twice -> [B, T, N, H].

    Args:
        config: names the implementation; it was checked to support all other options.
        query: scaled queries.
        key, value: keys and values of all tokens.
        bias: [B, N, T, S], added to the logits.
        mask: bool [B, 1, T, S].

    Raises:
        RuntimeError: 'cudnn' without a GPU.
    """
    how = config.attention_implementation
    if how == "cudnn" and jax.default_backend() != "gpu":
        raise RuntimeError(
            "attention_implementation 'cudnn' needs a GPU, and JAX runs on"
            f" {jax.default_backend()}; take 'exact' or 'xla'"
        )
    assert how != "exact"
    return jax.nn.dot_product_attention(
        query, key, value, bias, mask, scale=1.0, implementation=how
    )
