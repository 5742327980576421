"""Exact top-k by a scan over all items that keeps only the best score of each tile.

Rank tiles by their best score and, among equals, by the lowest id that has it. Then the k best
items are in the k best tiles: if one were in another tile, each of the k tiles would hold an item
that ranks before it. So the scan keeps one number for each tile, and the items of the k best tiles
are scored again.

Letters: B queries, W width, T tiles of R rows, C tiles at a time, k items, K clusters.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from efficientids_flax.core.head.search.filters import Filter
from efficientids_flax.core.head.search.index import NONE, SearchIndex
from efficientids_flax.core.head.search.kinds import Offsets, Scored

SCORES_AT_ONCE = 1 << 19  # 2 MiB of float32 fit a core's cache
WHOLE = 1 << 23  # up to this many scores (32 MiB) the table is multiplied as a whole
ROWS_AT_ONCE = 1 << 24  # table entries gathered at a time to score the best tiles again
UNKNOWN = jnp.iinfo(jnp.int32).max


class Tiles(NamedTuple):
    """What a scan keeps of each tile.

    Attributes:
        best: float32 [T, B], highest logit of the items that may be returned; -inf if none may.
        highest: float32 [T, B], highest logit of all items; only if scores are normalised.
        exponentials: float32 [T, B], sum of exp(logit - highest) over all items; likewise.
        id: int32 [T, B], the lowest id that has the best logit; only if asked for.
    """

    best: jax.Array
    highest: jax.Array
    exponentials: jax.Array
    id: jax.Array


def scan(
    index: SearchIndex, query: jax.Array, how: Scored, allowed: Filter, k: int
) -> tuple[jax.Array, jax.Array]:
    """(ids [B, k], scores [B, k]), best first; `NONE` and -inf if there are fewer than k.

    Args:
        index: the index to search.
        query: float32 [B, W].
        how: how items are scored.
        allowed: which items may be returned.
        k: number of items to return.
    """
    tiles = tiles_of(index, query, how, allowed)
    offsets = cluster_offsets(index, how, tiles)
    scores = scores_of_tiles(how, tiles.best.T, offsets.at(index.order.clusters))
    wanted = min(k, scores.shape[1])  # there may be fewer tiles than k
    values, chosen = best_tiles(scores, wanted)
    last = values[:, -1:]
    # If tiles tie at the k-th best score, ids decide which ones to take.
    many = jnp.any((jnp.sum(scores >= last, axis=-1) > wanted) & ~jnp.isneginf(last[:, 0]))

    def by_id() -> jax.Array:
        lowest = tiles_of(index, query, how, allowed, with_ids=True).id.T
        above = jnp.sum(scores > last, axis=-1, keepdims=True)
        # Cap at UNKNOWN - 1 so that tied tiles without an item (-inf) still rank before all others.
        ids = jnp.where(scores == last, jnp.minimum(lowest, UNKNOWN - 1), UNKNOWN)
        equal = jax.lax.top_k(-ids, wanted)[1]
        places = jnp.arange(wanted)
        return jnp.where(
            places < above, chosen, jnp.take_along_axis(equal, jnp.maximum(places - above, 0), 1)
        )

    chosen = jax.lax.cond(many, by_id, lambda: chosen)
    return best_of_tiles(index, query, how, allowed, chosen, offsets, k)


def scores_of_tiles(how: Scored, best: jax.Array, offsets: Offsets) -> jax.Array:
    """The score of each tile's highest logit: [B, T] -> float32 [B, T]; -inf if a tile has none.

    The barrier makes XLA compute them once: recomputed scores may differ in the last bit.
    """
    scores = plain(how.scores(best, offsets))
    # A soft cap turns -inf into -cap.
    return jax.lax.optimization_barrier(jnp.where(jnp.isneginf(best), -jnp.inf, scores))


def best_tiles(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """(scores, tiles) of the k best of [B, T]."""
    values, tiles = jax.lax.top_k(scores, k)
    # Without barriers XLA turns a top_k of which a slice is used into a full sort. One barrier for
    # both results crashes the process if the scores are sharded.
    return jax.lax.optimization_barrier(values), jax.lax.optimization_barrier(tiles)


def cluster_offsets(index: SearchIndex, how: Scored, tiles: Tiles) -> Offsets:
    """The offsets of all clusters, [B, K], from what a scan kept."""
    if not how.normalised:
        return how.offsets(how.added, how.added)
    clusters, count = index.order.clusters, how.added.shape[1]
    highest = jax.ops.segment_max(tiles.highest, clusters, count, indices_are_sorted=True)
    powers = tiles.exponentials * jnp.exp(tiles.highest - highest[clusters])
    total = jax.ops.segment_sum(powers, clusters, count, indices_are_sorted=True)
    return how.offsets(highest.T, total.T)


def best_of_tiles(
    index: SearchIndex,
    query: jax.Array,
    how: Scored,
    allowed: Filter,
    tiles: jax.Array,
    offsets: Offsets,
    k: int,
    real: jax.Array | None = None,
) -> tuple[jax.Array, jax.Array]:
    """(ids [B, k], scores [B, k]) of the best items in tiles int [B, t]; no tile may repeat.

    Ties go by id. Tiles where `real`, bool [B, t], is False are ignored; None: none is.
    """

    def one(given: Any) -> tuple[jax.Array, jax.Array]:
        number, query, tiles, offsets, real = given
        rows, ids = index.rows[tiles], index.order.ids[tiles]  # [t, R, W]
        products = jnp.einsum("trw,w->tr", rows, query, precision="highest")
        own = Offsets(*(part[index.order.clusters[tiles], None] for part in offsets))
        scores = plain(how.scores(how.logits(products), own))
        there = allowed.of_tiles(number, tiles, ids)
        scores = jnp.where(there if real is None else there & real[:, None], scores, -jnp.inf)
        # `plain` has removed -0.0, so sorting the negatives sorts in descending order.
        values, found = jax.lax.sort((-scores.reshape(-1), ids.reshape(-1)), num_keys=2)
        values, found = -values[:k], found[:k]
        # k may exceed the places in these tiles, since it may count ids that are not added yet.
        missing = (0, k - values.shape[0])
        values = jnp.pad(values, missing, constant_values=-jnp.inf)
        found = jnp.pad(found, missing, constant_values=NONE)
        return jnp.where(jnp.isneginf(values), NONE, found), values

    numbers = tiles.shape[1] * index.rows.shape[1] * index.rows.shape[2]
    at_once = max(1, min(ROWS_AT_ONCE // numbers, query.shape[0]))
    given = jnp.arange(query.shape[0]), query, tiles, offsets, real
    if at_once == query.shape[0]:
        return jax.vmap(one)(given)
    return jax.lax.map(one, given, batch_size=at_once)


def plain(scores: jax.Array) -> jax.Array:
    """Scores that can be sorted: a NaN is never among the best, and -0.0 is 0.0."""
    return jnp.where(scores == 0.0, 0.0, jnp.where(jnp.isnan(scores), -jnp.inf, scores))


def tiles_of(
    index: SearchIndex, query: jax.Array, how: Scored, allowed: Filter, with_ids: bool = False
) -> Tiles:
    """Scan all tiles.

    Args:
        index, query, how, allowed: see `scan`.
        with_ids: whether to compute `Tiles.id` too.
    """
    count, rows, width = index.rows.shape
    asked = query.shape[0]
    together = max(1, SCORES_AT_ONCE // (rows * asked))
    if count * rows * asked <= WHOLE:  # avoids the copies that slices of the table would be
        together = count
    together = min(count, together)

    def part(start: Any, table: jax.Array, ids: jax.Array) -> Tiles:
        # XLA on CPU does not vectorise along an axis of size one: use [C, R] for one query.
        alone = asked == 1
        what, shape = (query[0], (together, rows)) if alone else (query.T, (together, rows, asked))
        products = jnp.matmul(table.reshape(-1, width), what, precision="highest")
        logits = how.logits(products.reshape(shape))
        if with_ids:  # compute once: recomputed for the comparison they may differ in the last bit
            logits = jax.lax.optimization_barrier(logits)
        there, real = allowed.of_range(start, together, ids), (ids >= 0)[..., None]
        if alone:
            there, real = there[..., 0], real[..., 0]
        best = jnp.max(jnp.where(there & ~jnp.isnan(logits), logits, -jnp.inf), axis=1)
        highest, exponentials, lowest = best, best, jnp.zeros(best.shape, jnp.int32)
        if how.normalised:
            members = jnp.where(real, logits, -jnp.inf)
            highest = jnp.max(members, axis=1)
            shift = jnp.where(jnp.isneginf(highest), 0.0, highest)  # of a tile without items
            exponentials = jnp.sum(jnp.exp(members - shift[:, None]), axis=1)
        if with_ids:
            first = (logits == best[:, None]) & there
            named = ids if alone else ids[..., None]
            lowest = jnp.min(jnp.where(first, named, UNKNOWN), axis=1)
        return Tiles(*(x.reshape(together, asked) for x in (best, highest, exponentials, lowest)))

    if together == count:
        return part(0, index.rows, index.order.ids)

    def step(number: Any, made: Tiles) -> Tiles:
        start = jnp.minimum(number * together, count - together)
        table = jax.lax.dynamic_slice_in_dim(index.rows, start, together)
        ids = jax.lax.dynamic_slice_in_dim(index.order.ids, start, together)
        return jax.tree.map(
            lambda whole, new: jax.lax.dynamic_update_slice_in_dim(whole, new, start, 0),
            made,
            part(start, table, ids),
        )

    zero = jnp.zeros((count, asked), jnp.float32)
    start = Tiles(zero, zero, zero, jnp.zeros((count, asked), jnp.int32))
    return jax.lax.fori_loop(0, -(-count // together), step, start)
