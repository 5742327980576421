"""How many items of a tile rank before a label: higher score, or equal score and lower id.

Letters: Q positions, I items, N columns of R slots, X excluded items.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from efficientids_flax.core.head.measures.columns import over_slots
from efficientids_flax.core.head.measures.scores import Scores

AT_ONCE = 32  # excluded items of a position that are looked up at a time
HIGH = 1 << 16  # more than most tiles have slots


def before(
    scores: Scores, own: jax.Array, label: jax.Array, ids: jax.Array, known: jax.Array,
    here: jax.Array, when: Any,
) -> jax.Array:  # fmt: skip
    """How many items of a tile rank before each label, int32 [Q].

    Ids are compared only if scores tie, which is rare.

    Args:
        scores: scores of the tile.
        own: float32 [Q], score of the label.
        label: int [Q].
        ids: int [N, R, 1], ids of the tile's slots.
        known: bool [Q], whether the label counts.
        here: bool [Q], whether the label is in this tile.
        when: bool [], whether to count; otherwise 0.
    """

    def counted(term: Callable[[jax.Array], jax.Array], when: Any) -> jax.Array:
        return jnp.sum(over_slots(lambda slot: term(scores.slot(slot)), scores.slots, when), axis=0)

    def either(theirs: jax.Array) -> jax.Array:
        return jnp.where(theirs > own, HIGH, jnp.where(theirs == own, 1, 0)).astype(jnp.uint32)

    if ids.size < HIGH:  # pack both counts into one number: one pass over the scores
        both = counted(either, when)
        more, as_much = (both // HIGH).astype(jnp.int32), (both % HIGH).astype(jnp.int32)
    else:
        more = counted(lambda theirs: (theirs > own).astype(jnp.int32), when)
        as_much = counted(lambda theirs: (theirs == own).astype(jnp.int32), when)

    def earlier(slot: int) -> jax.Array:
        theirs = ids[:, slot]
        return ((scores.slot(slot) == own) & (theirs >= 0) & (theirs < label)).astype(jnp.int32)

    several = jnp.any(known & (as_much > here))
    return more + jnp.sum(over_slots(earlier, scores.slots, several), axis=0)


def excluded_places(
    exclude: jax.Array, label: jax.Array, places: jax.Array, none: int
) -> jax.Array:
    """Slots of the excluded items, sorted, without repeats and padded with `none`: int [X, Q].

    Args:
        exclude: int [Q, X], items; ids outside [0, I) are ignored.
        label: int [Q]; the label itself is never excluded.
        places: int [I], slot of each item among all tiles.
        none: a number beyond all slots.
    """
    ids = exclude.T
    counts = (ids >= 0) & (ids < len(places)) & (ids != label)
    found = jnp.sort(jnp.where(counts, places[jnp.where(counts, ids, 0)], none), axis=0)
    again = jnp.concatenate([jnp.zeros_like(found[:1], bool), found[1:] == found[:-1]])
    return jnp.sort(jnp.where(again, none, found), axis=0)


def excluded_before(
    scores: Scores, own: jax.Array, label: jax.Array, ids: jax.Array, exclude: jax.Array, start: Any
) -> jax.Array:
    """How many of the items that `before` counts in a tile are excluded, int32 [Q].

    Args:
        scores, own, label, ids: see `before`.
        exclude: from `excluded_places`.
        start: the tile's first slot.
    """
    end = start + ids.size
    first = jnp.sum(exclude < start, axis=0)
    most = jnp.max(jnp.sum(exclude < end, axis=0) - first)
    flat = ids.reshape(-1)

    def some(number: Any, found: jax.Array) -> jax.Array:
        index = first + number * AT_ONCE + jnp.arange(AT_ONCE)[:, None]
        place = jnp.take_along_axis(exclude, jnp.minimum(index, len(exclude) - 1), axis=0)
        inside = (place >= start) & (place < end) & (index < len(exclude))
        slot = jnp.where(inside, place - start, 0)
        theirs = scores.at(slot)
        counts = inside & ((theirs > own) | ((theirs == own) & (flat[slot] < label)))
        return found + jnp.sum(counts, axis=0, dtype=jnp.int32)

    blocks = (most + AT_ONCE - 1) // AT_ONCE
    return jax.lax.fori_loop(0, blocks, some, jnp.zeros_like(label))
