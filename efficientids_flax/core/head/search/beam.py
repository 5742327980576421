"""The best items of the most promising clusters alone: at a fixed cost, not always the best of all.

Clusters go by what is known of them without their members: the score of their centre, or, where
scores are normalised, the share that the cluster adds, of which an item has at most all. Scores of
what is found are exact, since a cluster is visited as a whole, its normaliser with it.

Letters: B queries, W width, K clusters, T tiles of R rows, S tiles of a step, C clusters to visit.
"""

from typing import Any

import jax
import jax.numpy as jnp

from efficientids_flax.core.head.search.filters import Filter
from efficientids_flax.core.head.search.index import SearchIndex
from efficientids_flax.core.head.search.kinds import Offsets, Scored
from efficientids_flax.core.head.search.scan import best_of_tiles, best_tiles, scores_of_tiles

STEP_BYTES = 1 << 19  # of rows that are looked at in one step


def beam(
    index: SearchIndex, query: jax.Array, how: Scored, allowed: Filter, k: int, clusters: int
) -> tuple[jax.Array, jax.Array]:
    """(ids [B, k], scores [B, k]), best first; `NONE` and -inf where the clusters have no more.

    Args:
        index: with clusters.
        query: float32 [B, W].
        how: items are scored.
        allowed: which items may be found.
        k: how many.
        clusters: C, how many of them are visited for each query.
    """
    value = how.added
    if not how.normalised:
        value = value + jnp.einsum("bw,kw->bk", query, index.centres, precision="highest")
    value = jnp.where(index.order.counts > 0, value, -jnp.inf)
    chosen = jax.lax.top_k(value, clusters)[1]

    def one(given: Any) -> tuple[jax.Array, Offsets]:
        number, query, added, chosen = given
        return _tiles_of_one(index, number, query, how._replace(added=added[None]), allowed, chosen)

    asked = query.shape[0]
    best, offsets = jax.lax.map(one, (jnp.arange(asked), query, how.added, chosen))
    scores = scores_of_tiles(how, best, offsets.at(index.order.clusters))
    values, tiles = best_tiles(scores, min(k, scores.shape[1]))
    real = ~jnp.isneginf(values)
    return best_of_tiles(index, query, how, allowed, tiles, offsets, k, real)


def _tiles_of_one(
    index: SearchIndex,
    number: jax.Array,
    query: jax.Array,
    how: Scored,
    allowed: Filter,
    chosen: jax.Array,
) -> tuple[jax.Array, Offsets]:
    """(The highest logit of each tile, float32 [T], offsets [K]) of one query.

    The logit is -inf where a tile is not visited, or has no item that may be found.

    Args:
        index, allowed: of all.
        number: of the query.
        query: float32 [W].
        how: this query's items are scored, `added` [1, K].
        chosen: int [C].
    """
    count, rows, width = index.rows.shape
    together = min(count, max(1, STEP_BYTES // (4 * rows * width)))
    ends = jnp.cumsum(index.order.tiles[chosen])

    def step(number_of_step: Any, carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        best, highest, exponentials = carry
        places = number_of_step * together + jnp.arange(together)
        rank = jnp.minimum(jnp.searchsorted(ends, places, side="right"), len(chosen) - 1)
        cluster = chosen[rank]
        tile = index.order.first[cluster] + places - (ends[rank] - index.order.tiles[cluster])
        live = places < ends[-1]
        own = jnp.where(live, tile, 0)
        ids = jnp.where(live[:, None], index.order.ids[own], -1)
        table = index.rows[own].reshape(-1, width)
        products = jnp.matmul(table, query, precision="highest").reshape(together, rows)
        logits = how.logits(products)
        there = allowed.of_tiles(number, own, ids) & ~jnp.isnan(logits)
        found = jnp.max(jnp.where(there, logits, -jnp.inf), axis=1)
        best = best.at[jnp.where(live, tile, count)].set(found, mode="drop")
        if how.normalised:
            members = jnp.where(ids >= 0, logits, -jnp.inf)
            new = highest.at[rank].max(jnp.max(members, axis=1))
            shift = jnp.where(jnp.isneginf(new), 0.0, new)
            powers = jnp.sum(jnp.exp(members - shift[rank][:, None]), axis=1)
            exponentials = (exponentials * jnp.exp(highest - shift)).at[rank].add(powers)
            highest = new
        return best, highest, exponentials

    none = jnp.full(len(chosen), -jnp.inf)
    start = jnp.full(count, -jnp.inf), none, jnp.zeros(len(chosen))
    steps = -(-ends[-1] // together)
    best, highest, exponentials = jax.lax.fori_loop(0, steps, step, start)
    mine = how._replace(added=how.added[:, chosen]).offsets(highest[None], exponentials[None])
    empty = Offsets(*[jnp.zeros(how.added.shape[1])] * 2)
    return best, Offsets(  # of clusters that are not visited they are not looked at
        *(whole.at[chosen].set(part[0]) for whole, part in zip(empty, mine, strict=True))
    )
