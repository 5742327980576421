"""What all layers share: masks, and by how much positions turn, made once.

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
        masks: bool [B, 1, T, S] of each kind of layer, True where the query sees the key.
        turns: by how much queries and new keys are turned, of each kind of layer.
        positions, key_positions: int [B, T], [B, S], place of each token in its segment.
        paddings: float32 [B, T].
        start: int [], where the new keys begin in a cache.
    """

    masks: dict[LayerKind, jax.Array]
    turns: dict[LayerKind, Turn]
    positions: jax.Array
    key_positions: jax.Array
    paddings: jax.Array
    start: jax.Array

    def at(self, places: jax.Array | None) -> "Surroundings":
        """Those of the queries at `places` [B, M] of T; turns stay, they are the keys' as well."""
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
    """Masks and turns of all layers.

    Args:
        config: of the decoder.
        tokens: those that are read now.
        queries, keys: what their masks need to know.
        key_positions: int [B, S], place of each key in its segment.
        start: see `Surroundings`; None where there is no cache.
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
            # In one array behind a barrier: else XLA makes them in every layer, for each head.
            turns[kind] = Turn(*jax.lax.optimization_barrier(jnp.stack(turned)))
    if start is None:
        start = jnp.zeros((), int)
    return Surroundings(masks, turns, tokens.positions, key_positions, tokens.paddings, start)


def rotary_of(config: BackboneConfig, index: int) -> RotaryConfig | None:
    """How a layer turns its queries and keys, by its own configuration."""
    sliding = slides(config, index) and config.sliding_rotary is not None
    return config.sliding_rotary if sliding else config.rotary
