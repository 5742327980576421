"""Approximate top-k: only the C most promising clusters of each query are searched.

Clusters are ranked without looking at their members. If scores are normalised, by the cluster's
own term, which bounds the score of each member; otherwise by that term plus the score of the
cluster's centre. The scores of items found are exact, since a cluster is always searched as a
whole, including its normaliser.

Letters: B queries, W width, K clusters, T tiles of R rows, S tiles of a step, C clusters to visit.
"""

from typing import Any

import jax
import jax.numpy as jnp

from efficientids_flax.core.head.search.filters import Filter
from efficientids_flax.core.head.search.index import SearchIndex
from efficientids_flax.core.head.search.kinds import Offsets, Scored
from efficientids_flax.core.head.search.scan import best_of_tiles, best_tiles, scores_of_tiles

STEP_BYTES = 1 << 19  # bytes of rows that one step reads


def beam(
    index: SearchIndex, query: jax.Array, how: Scored, allowed: Filter, k: int, clusters: int
) -> tuple[jax.Array, jax.Array]:
    """(ids [B, k], scores [B, k]), best first; `NONE` and -inf if the clusters hold fewer than k.

    Args:
        index: an index with clusters.
        query: float32 [B, W].
        how: how items are scored.
        allowed: which items may be returned.
        k: number of items to return.
        clusters: C, number of clusters to search for each query.
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
    """(highest logit of each tile, float32 [T]; offsets [K]) of one query.

    The logit is -inf for tiles that are not searched, or without an item that may be returned.

    Args:
        index, allowed: see `beam`.
        number: the query's number in the batch.
        query: float32 [W].
        how: how items are scored for this query; `added` is [1, K].
        chosen: int [C], the clusters to search.
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
    return best, Offsets(  # zeros for clusters that were not searched, which nothing reads
        *(whole.at[chosen].set(part[0]) for whole, part in zip(empty, mine, strict=True))
    )
