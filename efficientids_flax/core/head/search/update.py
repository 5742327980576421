"""Add items to an index and remove items from it, in place and without recompiling its users.

The arrays keep their shapes. A removed item leaves a free place in its cluster. An added item takes
a free place: one reserved when the index was built, or freed since. Centre and radius of each
changed cluster are computed from its members again, so the bounds stay valid after any number of
updates.

Letters: U items of an update, I ids including reserved ones, K clusters, W width, T tiles of R
rows.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.array_checks import INTEGERS, NUMBERS, form_problems, value_problems
from efficientids_flax.config.record import listed
from efficientids_flax.core.head.search.index import NONE, SearchIndex

FEWEST = 8  # updates are padded to this or a power of two, so that few shapes are compiled


def add_items(
    index: SearchIndex,
    ids: Sequence[int] | np.ndarray,
    vectors: np.ndarray | jax.Array,
    clusters: Sequence[int] | np.ndarray | None = None,
) -> SearchIndex:
    """Add items to an index; an item already there gets the new vector and cluster.

    Args:
        index: from `build_index`, with `spare` places and `new_items`; its arrays are donated, and
            cannot be used afterwards.
        ids: int [U], distinct, below the number of items that the index was built for.
        vectors: [U, W], at the query's width, as in the index; finite in float32.
        clusters: int [U], the cluster of each; None under full softmax.

    Raises:
        ValueError: listing unknown or repeated ids, unknown clusters, vectors of another shape, and
            clusters that are full. Nothing is changed then.
    """
    named, problems = _named(index, ids)
    count = len(named)
    of, wrong = np.zeros(count, np.int32), []
    if clusters is not None:
        of, wrong = _whole("clusters", clusters)
    problems += wrong
    if (clusters is None) != (index.clusters is None):
        problems.append("clusters: give them, or none under full softmax")
    known = index.order.counts.shape[0]
    if not wrong and (of.shape != (count,) or not ((of >= 0) & (of < known)).all()):
        problems.append(f"clusters: expected {count} in [0, {known})")
    like = "one at the query's width for each id"
    shape = (count, index.rows.shape[-1])
    wrong = form_problems("vectors", vectors, NUMBERS, shape, like)
    if not wrong:
        values = np.asarray(vectors, np.float64)
        fits = np.abs(values) <= np.finfo(np.float32).max  # NaN does not
        wrong = value_problems("vectors", values, ~fits, "finite, in float32")
    problems += wrong
    if not problems:
        problems = _full(index, named, of)
    if problems:
        raise ValueError(listed("add_items", problems))
    size = _size(count)
    padded = np.zeros((size, shape[1]), np.float32)
    padded[:count] = np.asarray(vectors, np.float32)
    kept = _padded(named, size)
    return _added(_removed(index, kept), kept, jnp.asarray(padded), _padded(of, size, 0))


def remove_items(index: SearchIndex, ids: Sequence[int] | np.ndarray) -> SearchIndex:
    """Remove items from an index: no search finds them, and no normaliser includes them.

    Args:
        index: from `build_index`; its arrays are donated, and cannot be used afterwards.
        ids: int [U], distinct; ids that were removed before have no effect.

    Raises:
        ValueError: unknown or repeated ids.
    """
    named, problems = _named(index, ids)
    if problems:
        raise ValueError(listed("remove_items", problems))
    return _removed(index, _padded(named, _size(len(named))))


def _named(index: SearchIndex, ids: Any) -> tuple[np.ndarray, list[str]]:
    """The ids that a caller gave, [U], and the problems with them."""
    named, found = _whole("ids", ids)
    named = named.reshape(-1)
    if found:
        return named, found
    wrong = named[(named < 0) | (named >= index.num_items)]
    if len(np.unique(named)) < len(named):
        found.append("ids: some are there twice")
    if len(wrong):
        found.append(
            f"ids: found {wrong[0]}, expected in [0, {index.num_items}): build_index(...,"
            " new_items=N) leaves room for N more"
        )
    return named, found


def _whole(name: str, given: Any) -> tuple[np.ndarray, list[str]]:
    """The given integers before conversion to int32, which could wrap around; and the problems."""
    values = np.asarray(given)
    if not values.size:  # NumPy makes an empty list float
        return values.astype(np.int64), []
    return values, form_problems(name, values, INTEGERS, None, "")


def _full(index: SearchIndex, ids: np.ndarray, clusters: np.ndarray) -> list[str]:
    """One problem for each cluster that has too few free places."""
    tiles, counts = (np.asarray(part) for part in (index.order.tiles, index.order.counts))
    places = np.asarray(index.order.places)[ids]
    there = places < index.order.ids.size
    of_there = np.asarray(index.order.clusters)[places[there] // index.rows.shape[1]]
    change = np.bincount(clusters, minlength=len(counts))
    change -= np.bincount(of_there, minlength=len(counts))
    room = tiles * index.rows.shape[1]
    return [
        f"cluster {cluster}: is full, {counts[cluster]} of {room[cluster]} places are taken and"
        f" {change[cluster]} more are asked for: build the index anew, with build_index(...,"
        " spare=N), which leaves at least N places free in each cluster"
        for cluster in np.flatnonzero((change > 0) & (counts + change > room))
    ]


def _size(count: int) -> int:
    return max(FEWEST, 1 << max(count - 1, 0).bit_length())


def _padded(ids: np.ndarray, size: int, fill: int = NONE) -> jax.Array:
    return jnp.asarray(np.concatenate([ids, np.full(size - len(ids), fill)]), jnp.int32)


@partial(jax.jit, donate_argnums=0)
def _removed(index: SearchIndex, ids: jax.Array) -> SearchIndex:
    """The index without items int [U]; `NONE` is padding."""
    order, rows = index.order, index.rows
    places = jnp.where(ids >= 0, order.places[jnp.maximum(ids, 0)], order.ids.size)
    there = places < order.ids.size
    tile, slot = places // rows.shape[1], places % rows.shape[1]
    tile = jnp.where(there, tile, rows.shape[0])
    cluster = order.clusters[jnp.where(there, tile, 0)]
    left = order._replace(
        ids=order.ids.at[tile, slot].set(NONE, mode="drop"),
        places=order.places.at[jnp.where(there, ids, index.num_items)].set(
            order.ids.size, mode="drop"
        ),
        counts=order.counts.at[cluster].add(-there.astype(jnp.int32)),
    )
    index = index._replace(order=left, rows=rows.at[tile, slot].set(0.0, mode="drop"))
    return _with_bounds(index, cluster)


@partial(jax.jit, donate_argnums=0)
def _added(
    index: SearchIndex, ids: jax.Array, vectors: jax.Array, clusters: jax.Array
) -> SearchIndex:
    """The index with new items int [U]; `NONE` is padding. Their clusters must have free places."""
    count, width = index.rows.shape[:2]

    def step(number: Any, index: SearchIndex) -> SearchIndex:
        order = index.order
        item, cluster = ids[number], clusters[number]
        tile = jax.lax.while_loop(
            lambda tile: jnp.all(order.ids[tile] >= 0) & (tile < count - 1),
            lambda tile: tile + 1,
            order.first[cluster],
        )
        slot = jnp.argmin(order.ids[tile] >= 0)
        real = item >= 0
        at = jnp.where(real, tile, count)
        order = order._replace(
            ids=order.ids.at[at, slot].set(item, mode="drop"),
            places=order.places.at[jnp.where(real, item, index.num_items)].set(
                tile * width + slot, mode="drop"
            ),
            counts=order.counts.at[cluster].add(real.astype(jnp.int32)),
        )
        rows = index.rows.at[at, slot].set(vectors[number], mode="drop")
        return index._replace(order=order, rows=rows)

    return _with_bounds(jax.lax.fori_loop(0, len(ids), step, index), clusters)


def _with_bounds(index: SearchIndex, clusters: jax.Array) -> SearchIndex:
    """The index with centres and radii of these clusters, int [U], computed again."""

    def bounds(cluster: jax.Array) -> tuple[jax.Array, jax.Array]:
        first, order = index.order.first[cluster], index.order
        last = first + order.tiles[cluster]
        zero = jnp.zeros(index.rows.shape[-1])
        # Empty slots have rows of zeros.
        total = jax.lax.fori_loop(
            first, last, lambda tile, sum_: sum_ + jnp.sum(index.rows[tile], axis=0), zero
        )
        centre = total / jnp.maximum(order.counts[cluster], 1)

        def farthest(tile: Any, far: jax.Array) -> jax.Array:
            own = jnp.sum(jnp.square(index.rows[tile] - centre), axis=-1)
            return jnp.maximum(far, jnp.max(jnp.where(order.ids[tile] >= 0, own, 0.0)))

        return centre, jnp.sqrt(jax.lax.fori_loop(first, last, farthest, jnp.float32(0.0)))

    centres, radii = jax.lax.map(bounds, clusters)
    return index._replace(
        centres=index.centres.at[clusters].set(centres), radii=index.radii.at[clusters].set(radii)
    )
