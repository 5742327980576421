"""What a batch says about its tokens: checked, and completed where it says nothing.

Shapes and dtypes are looked at, never values: this runs while jit traces. Letters: B batch, T time,
D model width.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efficientids_flax.config import BackboneConfig
from efficientids_flax.config.record import listed

FLOAT, INT, NUMBER = "of floats", "of integers", "of numbers"
KINDS: dict[str, tuple[Any, ...]] = {
    FLOAT: (jnp.floating,),
    INT: (jnp.integer,),
    NUMBER: (jnp.floating, jnp.integer, jnp.bool_),
}


class Tokens(NamedTuple):
    """What the decoder needs to know of a batch besides its embeddings.

    Attributes:
        paddings: float32 [B, T], 1 where there is padding.
        segments: int [B, T]; padding is a segment of its own, 0.
        positions: int [B, T], for embeddings, rotation and relative bias.
        prefix: bool [B, T], keys that all queries of their segment see; None where none do.
    """

    paddings: jax.Array
    segments: jax.Array
    positions: jax.Array
    prefix: jax.Array | None


def complete(
    config: BackboneConfig,
    ids: jax.Array | None,
    inputs_embeds: jax.Array | None,
    paddings: jax.Array | None = None,
    segment_ids: jax.Array | None = None,
    positions: jax.Array | None = None,
    inputs_indicator: jax.Array | None = None,
    start: jax.Array | int = 0,
) -> Tokens:
    """Arguments of `Decoder.__call__`, with its defaults filled in.

    Args:
        start: place of the first token in its row, where there are earlier ones in a cache.

    Raises:
        ValueError: listing every argument of the wrong shape or dtype: what came, what is needed.
    """
    problems = []
    if (ids is None) == (inputs_embeds is None):
        came = "neither" if ids is None else "both"
        raise ValueError(f"ids, inputs_embeds: expected one of them, found {came}")
    if ids is not None:
        problems += _wrong("ids", ids, (None, None), INT)
        if not config.vocab_size:
            problems.append(
                "ids: the configuration has no words (vocab_size 0); give inputs_embeds"
            )
        shape = jnp.shape(ids)
    else:
        assert inputs_embeds is not None
        problems += _wrong("inputs_embeds", inputs_embeds, (None, None, config.model_dims), FLOAT)
        shape = jnp.shape(inputs_embeds)[:2]
    rows = shape if len(shape) == 2 else (None, None)
    for name, value, kind in (
        ("paddings", paddings, NUMBER),
        ("segment_ids", segment_ids, INT),
        ("positions", positions, INT),
        ("inputs_indicator", inputs_indicator, NUMBER),
    ):
        if value is not None:
            problems += _wrong(name, value, rows, kind)
    if config.attention_mask == "prefix" and inputs_indicator is None:
        problems.append("inputs_indicator: missing, attention_mask is 'prefix'")
    longest = config.max_positions if config.position_embedding == "learned" else None
    if longest and positions is None and len(shape) == 2 and shape[1] > longest:
        problems.append(f"positions: {shape[1]} tokens, max_positions is {longest}")
    if problems:
        raise ValueError(listed("the decoder's inputs", problems))

    if paddings is None:
        paddings = jnp.zeros(shape, jnp.float32)
    if segment_ids is None:
        segment_ids = 1 - jnp.asarray(paddings).astype(jnp.int32)
    if positions is None:
        positions = jnp.broadcast_to(start + jnp.arange(shape[1], dtype=jnp.int32), shape)
    prefix = None
    if config.attention_mask == "prefix":
        prefix = jnp.asarray(inputs_indicator) > 0
    return Tokens(
        jnp.asarray(paddings).astype(jnp.float32),
        jnp.asarray(segment_ids),
        jnp.asarray(positions),
        prefix,
    )


def _wrong(name: str, value: Any, wanted: tuple[int | None, ...], kind: str) -> list[str]:
    """A sentence if the value's shape or dtype is not the wanted one; None is any size."""
    shape, dtype = jnp.shape(value), jnp.result_type(value)
    fits = len(shape) == len(wanted) and all(
        size in (None, found) for size, found in zip(wanted, shape, strict=True)
    )
    if fits and any(jnp.issubdtype(dtype, option) for option in KINDS[kind]):
        return []
    letters = [
        letter if size is None else str(size) for letter, size in zip("BTD", wanted, strict=False)
    ]
    return [f"{name}: found {dtype} {list(shape)}, expected [{', '.join(letters)}] {kind}"]
