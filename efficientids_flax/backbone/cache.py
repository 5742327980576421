"""The KV cache: keys and values of earlier tokens, kept while a decoder generates.

A cache has room for a fixed number of tokens, so that one compiled step serves all. Letters: B
batch, S places (for all tokens, including padding), J heads of keys and values, H head width, L
layers.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from efficientids_flax.array_checks import has_values
from efficientids_flax.backbone.inputs import Tokens
from efficientids_flax.backbone.masks import Marks
from efficientids_flax.config import BackboneConfig

EMPTY = -1  # segment of an unused place; no token has this segment


class LayerCache(struct.PyTreeNode):
    """Keys (rotated) and values of one layer, [B, S, J, H]; of scanned layers [L, B, S, J, H].

    Latent attention stores instead the latents [B, S, 1, C], and the part of the keys that all
    heads share.
    """

    keys: jax.Array
    values: jax.Array


class KVCache(struct.PyTreeNode):
    """The cache of keys and values that `Decoder.extend` takes and returns.

    Attributes:
        layers: one entry for each layer; for scanned layers one for each place in the block, with
            an axis L / places.
        segments, positions: int32 [B, S], those of the tokens read.
        prefix: bool [B, S], with `attention_mask='prefix'`; else None.
        used: int32 [], number of used places, the same in all rows.
    """

    layers: tuple[LayerCache, ...]
    segments: jax.Array
    positions: jax.Array
    prefix: jax.Array | None
    used: jax.Array

    @property
    def size(self) -> int:
        """S."""
        return self.segments.shape[1]

    def marks(self) -> Marks:
        """What attention masks need to know of the keys."""
        return Marks(jnp.arange(self.size), self.segments, self.prefix)


def make_cache(config: BackboneConfig, batch: int, size: int, dtype: Any = None) -> KVCache:
    """An empty cache.

    Args:
        config: configuration of the decoder.
        batch: B.
        size: S, the most tokens. More are an error outside of jit; inside jit this is not checked.
        dtype: dtype of keys and values; None: the compute dtype.

    Raises:
        ValueError: the decoder is not causal, so it cannot read token by token.
    """
    if config.attention_mask == "bidirectional":
        raise ValueError(
            "attention_mask 'bidirectional' cannot use a cache: tokens attend to later ones"
        )
    leading: tuple[int, ...] = ()
    count = config.num_layers
    if config.scan_layers:
        count = config.layers_per_block
        leading = (config.num_layers // count,)
    dtype = jnp.dtype(config.dtype if dtype is None else dtype)

    def empty(layer: BackboneConfig) -> LayerCache:
        shapes = ((*leading, batch, size, *shape) for shape in layer.cached)
        return LayerCache(*(jnp.zeros(shape, dtype) for shape in shapes))

    own = map(config.of_layer, range(count))
    return KVCache(
        layers=tuple(empty(layer) for layer in own),
        segments=jnp.full((batch, size), EMPTY, jnp.int32),
        positions=jnp.zeros((batch, size), jnp.int32),
        prefix=jnp.zeros((batch, size), bool) if config.attention_mask == "prefix" else None,
        used=jnp.zeros((), jnp.int32),
    )


def count_tokens(cache: KVCache) -> jax.Array:
    """Number of tokens of each row so far, without padding: int [B]."""
    return jnp.sum(cache.segments > 0, axis=1, dtype=jnp.int32)


def note_tokens(cache: KVCache, tokens: Tokens) -> KVCache:
    """The cache with segments and positions of new tokens; each layer adds keys and values later.

    Raises:
        ValueError: more tokens than places. Inside jit the used places count as 0.
    """
    time = tokens.segments.shape[1]
    used = int(cache.used) if has_values(cache.used) else 0
    if used + time > cache.size:
        after = f" after {used}" if used else ""
        raise ValueError(f"{time} tokens{after} do not fit a cache of {cache.size}")

    def put(row: jax.Array, new: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice(row, new.astype(row.dtype), (0, cache.used))

    prefix = cache.prefix
    if prefix is not None and tokens.prefix is not None:
        prefix = put(prefix, tokens.prefix)
    return cache.replace(
        segments=put(cache.segments, tokens.segments),
        positions=put(cache.positions, tokens.positions),
        prefix=prefix,
        used=cache.used + time,
    )


def put_keys(cache: LayerCache, keys: jax.Array, values: jax.Array, start: jax.Array) -> LayerCache:
    """Write keys and values [B, T, J, H] into a layer's cache, from place `start` on."""

    def put(row: jax.Array, new: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_slice(row, new.astype(row.dtype), (0, start, 0, 0))

    return LayerCache(put(cache.keys, keys), put(cache.values, values))
