"""How many items of a tile stand before a label: those that score more, or as much with a lower id.

Letters: Q positions, I items, N columns of R slots, X excluded items.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from efficientids_flax.core.head.measures.columns import over_slots
from efficientids_flax.core.head.measures.scores import Scores

AT_ONCE = 32  # excluded items of a position
HIGH = 1 << 16  # above the slots of most tiles


def before(
    scores: Scores, own: jax.Array, label: jax.Array, ids: jax.Array, known: jax.Array,
    here: jax.Array, when: Any,
) -> jax.Array:  # fmt: skip
    """Int32 [Q], of a tile.

    Equal scores are rare, and where there are none nothing is asked of ids.

    Args:
        scores: of the tile.
        own: float32 [Q], of the label.
        label: int [Q].
        ids: int [N, R, 1], of the tile's slots.
        known: bool [Q], whether the label counts.
        here: bool [Q], whether it is of this tile.
        when: bool [], whether it is asked for; 0 where not.
    """

    def counted(term: Callable[[jax.Array], jax.Array], when: Any) -> jax.Array:
        return jnp.sum(over_slots(lambda slot: term(scores.slot(slot)), scores.slots, when), axis=0)

    def either(theirs: jax.Array) -> jax.Array:
        return jnp.where(theirs > own, HIGH, jnp.where(theirs == own, 1, 0)).astype(jnp.uint32)

    if ids.size < HIGH:  # both in one number, and so in one pass over the scores
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
    """Int [X, Q], slots of the excluded items, each once, in order; `none` is none.

    Args:
        exclude: int [Q, X], items; others than [0, I) are none.
        label: int [Q], which is never left out.
        places: int [I], of each item among all tiles.
        none: a slot beyond all tiles.
    """
    ids = exclude.T
    counts = (ids >= 0) & (ids < len(places)) & (ids != label)
    found = jnp.sort(jnp.where(counts, places[jnp.where(counts, ids, 0)], none), axis=0)
    again = jnp.concatenate([jnp.zeros_like(found[:1], bool), found[1:] == found[:-1]])
    return jnp.sort(jnp.where(again, none, found), axis=0)


def excluded_before(
    scores: Scores, own: jax.Array, label: jax.Array, ids: jax.Array, exclude: jax.Array, start: Any
) -> jax.Array:
    """Int32 [Q], how many excluded items of a tile are among those that `before` counts.

    Args:
        scores, own, label, ids: see `before`.
        exclude: of `excluded_places`.
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
