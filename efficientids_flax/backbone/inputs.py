"""The decoder's inputs: checks, and defaults for what is missing.

Shapes and dtypes are always checked, values only outside of jit; inside jit an id out of range
embeds to zeros. Letters: B batch, T time, D model width.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.array_checks import has_values, mask_problems, value_problems
from efficientids_flax.config import BackboneConfig
from efficientids_flax.config.record import listed

FLOAT, INT, NUMBER = "of floats", "of integers", "of numbers"
KINDS: dict[str, tuple[Any, ...]] = {
    FLOAT: (jnp.floating,),
    INT: (jnp.integer,),
    NUMBER: (jnp.floating, jnp.integer, jnp.bool_),
}
INTEGERS = ("segment_ids", "positions")


class Tokens(NamedTuple):
    """What the decoder needs to know of the tokens besides their embeddings.

    Attributes:
        paddings: float32 [B, T], 1 on padding.
        segments: int [B, T]; padding is a segment of its own, 0.
        positions: int [B, T], for embeddings, rotation and relative bias.
        prefix: bool [B, T], keys that all queries of their segment see; None: no prefix.
    """

    paddings: jax.Array
    segments: jax.Array
    positions: jax.Array
    prefix: jax.Array | None


class Inputs(NamedTuple):
    """Arguments of `Decoder.__call__`.

    `start` is the place of the first token in its row, after those in a cache. `tokens` int [B] is
    the number of cached tokens without padding, for positions that skip padding. `at` int [B, M]
    are the places whose hidden states are needed.
    """

    ids: Any = None
    inputs_embeds: Any = None
    paddings: Any = None
    segment_ids: Any = None
    positions: Any = None
    inputs_indicator: Any = None
    start: Any = 0
    tokens: Any = None
    at: Any = None


def complete(config: BackboneConfig, given: Inputs) -> Tokens:
    """Check the arguments of `Decoder.__call__` and fill in its defaults.

    Raises:
        ValueError: listing every argument with a wrong shape or dtype or, outside of jit, values
            out of range: what was found and what was expected.
    """
    if problems := input_problems(config, given):
        raise ValueError(listed("the decoder's inputs", problems))
    return filled(config, given)


def filled(config: BackboneConfig, given: Inputs) -> Tokens:
    """`complete` without the checks."""
    shape = jnp.shape(given.inputs_embeds if given.ids is None else given.ids)[:2]
    paddings, segment_ids, positions = given.paddings, given.segment_ids, given.positions
    if paddings is None:
        paddings = jnp.zeros(shape, jnp.float32)
    if segment_ids is None:
        segment_ids = 1 - jnp.asarray(paddings).astype(jnp.int32)
    if positions is None and config.positions_pass_padding:
        before = jnp.zeros(shape[:1], jnp.int32) if given.tokens is None else given.tokens
        real = 1 - jnp.asarray(paddings).astype(jnp.int32)
        positions = jnp.maximum(before[:, None] + jnp.cumsum(real, axis=1) - 1, 0)
    elif positions is None:
        positions = given.start + jnp.arange(shape[1], dtype=jnp.int32)
        positions = jnp.broadcast_to(positions, shape)
    prefix = None
    if config.attention_mask == "prefix":
        prefix = jnp.asarray(given.inputs_indicator) > 0
    return Tokens(
        jnp.asarray(paddings).astype(jnp.float32),
        jnp.asarray(segment_ids),
        jnp.asarray(positions),
        prefix,
    )


def rows_at(x: jax.Array, places: jax.Array | None) -> jax.Array:
    """Gather along the second axis: [B, T, ...], int [B, M] (None: all) -> [B, M, ...]."""
    if places is None:
        return x
    return jnp.take_along_axis(x, places.reshape(*places.shape, *[1] * (x.ndim - 2)), axis=1)


def input_problems(config: BackboneConfig, given: Inputs) -> list[str]:
    """A sentence for each argument that is wrong."""
    if (given.ids is None) == (given.inputs_embeds is None):
        came = "neither" if given.ids is None else "both"
        return [f"ids, inputs_embeds: expected one of them, found {came}"]
    problems = []
    if given.ids is not None:
        problems += _wrong("ids", given.ids, (None, None), INT)
        if not config.vocab_size:
            problems.append(
                "ids: the configuration has no words (vocab_size 0); give inputs_embeds"
            )
        shape = jnp.shape(given.ids)
    else:
        own = jnp.shape(given.inputs_embeds)[-1:] == (config.embedding_dims,)
        wanted = (None, None, config.embedding_dims if own else config.model_dims)
        problems += _wrong("inputs_embeds", given.inputs_embeds, wanted, FLOAT)
        shape = jnp.shape(given.inputs_embeds)[:2]
    rows = shape if len(shape) == 2 else (None, None)
    for name in ("paddings", "segment_ids", "positions", "inputs_indicator"):
        value = getattr(given, name)
        if value is not None:
            problems += _wrong(name, value, rows, INT if name in INTEGERS else NUMBER)
    if config.attention_mask == "prefix" and given.inputs_indicator is None:
        problems.append("inputs_indicator: missing, attention_mask is 'prefix'")
    if given.at is not None:
        problems += _wrong("at", given.at, (rows[0], None), INT)
    longest = _longest(config)
    counted = given.positions is None and not (
        config.positions_pass_padding and given.paddings is not None
    )
    if longest is not None and counted and len(shape) == 2:
        before = int(given.start) if has_values(given.start) else 0
        if before + shape[1] > longest:
            after = f" after {before}" if before else ""
            problems.append(f"positions: {shape[1]} tokens{after}, max_positions is {longest}")
    return problems or _value_problems(config, given)


def _longest(config: BackboneConfig) -> int | None:
    """Number of learned positions; None if positions are not learned."""
    return config.max_positions if config.position_embedding == "learned" else None


def _value_problems(config: BackboneConfig, given: Inputs) -> list[str]:
    """Problems with values out of range, if values are known; padding is not checked.

    Integers are checked before conversion to JAX's 32 bits, where 2**32 + 5 would become 5.
    """
    values = {
        name: np.asarray(value)
        for name, value in given._asdict().items()
        if name not in ("inputs_embeds", "start", "tokens")
        if value is not None and has_values(value) and np.size(value)
    }
    problems = []
    for name in ("paddings", "inputs_indicator"):
        if name in values:
            problems += mask_problems(name, values[name])
    present: Any = True
    if given.paddings is not None:
        present = values["paddings"] != 1 if "paddings" in values else False
    words, longest = config.vocab_size, _longest(config)
    whole = np.iinfo(jax.dtypes.canonicalize_dtype(np.int64))
    ranges = {  # limits of the table, or of JAX's integers
        "ids": (0, words, f"in [0, {words}), a word"),
        "segment_ids": (0, whole.max + 1, f"in [0, {whole.max}]"),
        "positions": (whole.min, whole.max + 1, f"in [{whole.min}, {whole.max}]"),
    }
    if longest is not None:
        ranges["positions"] = (0, longest, f"in [0, {longest}), max_positions")
    for name, (least, end, wanted) in ranges.items():
        found = values.get(name)
        if found is not None and not (found.min() >= least and found.max() < end):
            outside = (found < least) | (found >= end)
            problems += value_problems(name, found, outside & present, wanted)
    if (places := values.get("at")) is not None:
        count = jnp.shape(given.inputs_embeds if given.ids is None else given.ids)[1]
        outside = (places < -count) | (places >= count)
        wanted = f"in [-{count}, {count}), a token of the row"
        problems += value_problems("at", places, outside, wanted)
    return problems


def _wrong(name: str, value: Any, wanted: tuple[int | None, ...], kind: str) -> list[str]:
    """A sentence if shape or dtype is not as wanted; a size of None means any."""
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
