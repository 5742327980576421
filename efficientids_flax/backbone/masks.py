"""Attention masks; positions and segments derived from paddings and positions.

Letters: B batch, T queries, S keys.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from efficientids_flax.config import BackboneConfig

LayerKind = str  # 'full' or 'sliding', plus a layer number if layers differ in SIGHT fields
# Configuration fields that layers of one kind share.
SIGHT = ("sliding_window", "sliding_window_ahead", "rotary", "sliding_rotary")


class Marks(NamedTuple):
    """What an attention mask needs to know of tokens.

    Attributes:
        places: int [S], index of a token in its row, from 0.
        segments: int [B, S]; padding is a segment of its own, 0.
        prefix: bool [B, S], whether all queries of the segment see the token; None: they do not.
    """

    places: jax.Array
    segments: jax.Array
    prefix: jax.Array | None = None


def layer_kind(config: BackboneConfig, index: int) -> LayerKind:
    """The kind of a layer; layers of one kind share mask and rotation."""
    own = config.of_layer(index)
    kind = "sliding" if slides(own, index) else "full"
    sight = [getattr(own, name) for name in SIGHT]
    if own is config or sight == [getattr(config, name) for name in SIGHT]:
        return kind
    others = (config.of_layer(place) for place in range(index + 1))
    first = [[getattr(other, name) for name in SIGHT] for other in others].index(sight)
    return f"{kind}_{first}"


def slides(config: BackboneConfig, index: int) -> bool:
    """Whether a layer has a window, by the layer's own configuration."""
    if config.layer_types:
        return config.layer_types[index] == "sliding"
    return config.sliding_window is not None


def attention_mask(config: BackboneConfig, sliding: bool, queries: Marks, keys: Marks) -> jax.Array:
    """The attention mask: a query sees keys of its segment, later ones only if they are a prefix.

    Args:
        config: the layer's.
        sliding: whether the layer has a window.
        queries: marks of T tokens; their prefix is not used.
        keys: marks of S tokens.

    Returns:
        bool [B, 1, T, S], True where the query sees the key.

    Raises:
        ValueError: `attention_mask` is 'prefix', and the keys have no prefix.
    """
    same = queries.segments[:, :, None] == keys.segments[:, None, :]
    ahead = keys.places[None, :] > queries.places[:, None]  # the key lies after the query
    if config.attention_mask == "bidirectional":
        ahead = jnp.zeros_like(ahead)
    seen = same & ~ahead[None]
    if config.attention_mask == "prefix":
        if keys.prefix is None:
            raise ValueError("attention_mask 'prefix' needs the batch's inputs_indicator")
        seen = same & (~ahead[None] | keys.prefix[:, None, :])
    if sliding and config.sliding_window is not None:
        window = keys.places[None, :] > queries.places[:, None] - config.sliding_window
        seen = seen & window[None]
        if config.sliding_window_ahead is not None:
            near = keys.places[None, :] < queries.places[:, None] + config.sliding_window_ahead
            seen = seen & near[None]
    return seen[:, None]


def positions_from_paddings(paddings: jax.Array) -> jax.Array:
    """Positions that count tokens and skip padding, on either side.

    Args:
        paddings: [B, T], 1 on padding.

    Returns:
        int32 [B, T]; padding before the first token has 0.
    """
    return jnp.maximum(jnp.cumsum(1 - paddings.astype(jnp.int32), axis=-1) - 1, 0)


def segments_from_positions(positions: jax.Array, paddings: jax.Array | None = None) -> jax.Array:
    """Segments of packed rows: a new one begins where positions do not increase by one.

    Args:
        positions: int [B, T], place of each token in its segment.
        paddings: [B, T], 1 on padding; None: no padding.

    Returns:
        int32 [B, T], from 1; 0 for padding.
    """
    breaks = positions[:, 1:] != positions[:, :-1] + 1
    segments = 1 + jnp.cumsum(jnp.pad(breaks, ((0, 0), (1, 0))), axis=-1).astype(jnp.int32)
    return segments if paddings is None else jnp.where(paddings > 0, 0, segments)
