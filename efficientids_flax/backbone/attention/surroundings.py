"""What all layers share, computed once: masks and rotations.

Letters: B batch, T queries, S keys.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from efficientids_flax.backbone.inputs import Tokens, rows_at
from efficientids_flax.backbone.masks import LayerKind, Marks, attention_mask, layer_kind, slides
from efficientids_flax.backbone.positions import Turn, turn
from efficientids_flax.config import BackboneConfig, RotaryConfig


class Surroundings(NamedTuple):
    """What all layers share.

    Attributes:
        masks: kind of layer -> bool [B, 1, T, S], True where the query sees the key.
        turns: kind of layer -> rotation of queries and new keys.
        positions, key_positions: int [B, T], [B, S], position of each token in its segment.
        paddings: float32 [B, T], 1 on padding.
        start: int [], where the new keys begin in the cache.
    """

    masks: dict[LayerKind, jax.Array]
    turns: dict[LayerKind, Turn]
    positions: jax.Array
    key_positions: jax.Array
    paddings: jax.Array
    start: jax.Array

    def at(self, places: jax.Array | None) -> "Surroundings":
        """Restrict to the queries at `places` [B, M] of T; not the turns, which keys need too."""
        if places is None:
            return self
        masks = {
            kind: jnp.take_along_axis(mask, places[:, None, :, None], axis=2)
            for kind, mask in self.masks.items()
        }
        return self._replace(
            masks=masks,
            positions=rows_at(self.positions, places),
            paddings=rows_at(self.paddings, places),
        )


def make_surroundings(
    config: BackboneConfig,
    tokens: Tokens,
    queries: Marks,
    keys: Marks,
    key_positions: jax.Array,
    start: jax.Array | None = None,
) -> Surroundings:
    """Masks and rotations of all layers.

    Args:
        config: the decoder's.
        tokens: the tokens to read now.
        queries, keys: their marks, for masks.
        key_positions: int [B, S], position of each key in its segment.
        start: see `Surroundings`; None without a cache.
    """
    longest = jnp.maximum(jnp.max(tokens.positions), jnp.max(key_positions))
    masks: dict[LayerKind, jax.Array] = {}
    turns: dict[LayerKind, Turn] = {}
    for index in range(config.num_layers):
        own, kind = config.of_layer(index), layer_kind(config, index)
        if kind in masks:
            continue
        masks[kind] = attention_mask(own, slides(own, index), queries, keys)
        rotary = rotary_of(own, index)
        if rotary is not None:
            turned = turn(rotary, own.rotary_width, tokens.positions, longest)
            # One array behind a barrier; otherwise XLA recomputes them in every layer and head.
            turns[kind] = Turn(*jax.lax.optimization_barrier(jnp.stack(turned)))
    if start is None:
        start = jnp.zeros((), int)
    return Surroundings(masks, turns, tokens.positions, key_positions, tokens.paddings, start)


def rotary_of(config: BackboneConfig, index: int) -> RotaryConfig | None:
    """The rotation of a layer's queries and keys, from the layer's own configuration."""
    sliding = slides(config, index) and config.sliding_rotary is not None
    return config.sliding_rotary if sliding else config.rotary
