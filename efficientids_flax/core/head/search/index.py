"""The item table in tiles of one cluster each, with centres and radii that bound its scores.

Letters: I items, K clusters, W width of query and tables, T tiles of R rows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head.second import layout_of

SHORTEST, LONGEST = 8, 32  # rows of a tile
TILES_PER_CLUSTER = 8  # a cluster of mean size has at least this many, to limit padding
NONE = -1  # id of an empty slot


Table = Any  # a NumPy array; in a `SearchIndex` a JAX array


class TileOrder(NamedTuple):
    """The place of each item; known before compilation.

    Attributes:
        ids: int32 [T, R], the items of each tile; `NONE` in empty slots.
        clusters: int32 [T], the cluster of each tile; tiles of a cluster are adjacent.
        places: int32 [I], each item's place among T x R; T R if it is not in the index.
        first, tiles: int32 [K], a cluster's first tile, and its number of tiles.
        counts: int32 [K], members of each cluster.
    """

    ids: Table
    clusters: Table
    places: Table
    first: Table
    tiles: Table
    counts: Table


class SearchIndex(NamedTuple):
    """What a search needs, on the device.

    Attributes:
        rows: float32 [T, R, W]; zeros in empty slots.
        order: the place of each item, on the device too.
        clusters: float32 [K, W], the cluster table; None under full softmax, where tiles hold the
            items in order of their ids.
        centres: float32 [K, W], the mean of each cluster's rows.
        radii: float32 [K], the largest distance of a member from its centre.
    """

    rows: jax.Array
    order: TileOrder
    clusters: jax.Array | None
    centres: jax.Array
    radii: jax.Array

    @property
    def num_items(self) -> int:
        """I, including the ids reserved for `add_items`."""
        return self.order.places.shape[0]


def tile_order(
    clustering: ClusteringInfo | None, items: int, spare: int = 0, new_items: int = 0
) -> TileOrder:
    """The order in which an index holds the items.

    Args:
        clustering: the cluster of each item; None under full softmax.
        items: I.
        spare, new_items: see `build_index`.
    """
    if clustering is None:
        order, counts = np.arange(items, dtype=np.int32), np.array([items], np.int32)
    else:
        layout = layout_of(clustering)
        order, counts = layout.order[0], layout.counts
    mean = max(items // len(counts) // TILES_PER_CLUSTER, 1)
    rows = min(max(1 << mean.bit_length() - 1, SHORTEST), LONGEST)
    tiles = -(-(counts + spare) // rows)
    first = np.cumsum(tiles) - tiles
    clusters = np.repeat(np.arange(len(counts)), tiles)
    starts = np.cumsum(counts) - counts
    of_item = np.repeat(np.arange(len(counts)), counts)  # cluster of order[j]
    at = first[of_item] * rows + np.arange(items) - starts[of_item]
    ids = np.full(int(tiles.sum()) * rows, NONE, np.int32)
    ids[at] = order
    places = np.full(items + new_items, len(ids), np.int32)
    places[order] = at
    found = (ids.reshape(-1, rows), clusters, places, first, tiles, counts)
    return TileOrder(*(part.astype(np.int32) for part in found))


def build_index(
    items: jax.Array,
    clusters: jax.Array | None,
    clustering: ClusteringInfo | None,
    *,
    spare: int = 0,
    new_items: int = 0,
) -> SearchIndex:
    """Build an index from a head's tables.

    Args:
        items: [I, W], at the query's width.
        clusters: [K, W]; None under full softmax.
        clustering: the cluster of each item; None under full softmax.
        spare: free places to reserve in each cluster, at least, for `add_items`.
        new_items: number of new ids, after the last one, to reserve; they count as items.

    Raises:
        ValueError: tables that do not fit the clustering, or a clustering without clusters.
    """
    if (clusters is None) != (clustering is None):
        raise ValueError("clusters and clustering: give both, or neither for a full softmax")
    if clustering is not None and clustering.num_items != items.shape[0]:
        raise ValueError(f"items: found {items.shape[0]} rows, the clustering has "
                         f"{clustering.num_items} items")  # fmt: skip
    return _filled(items, clusters, tile_order(clustering, items.shape[0], spare, new_items))


@jax.jit
def _filled(items: jax.Array, clusters: jax.Array | None, order: TileOrder) -> SearchIndex:
    """The index of items in this order; see `build_index`."""
    count = order.counts.shape[0]
    there = order.ids >= 0
    rows = items.astype(jnp.float32)[jnp.where(there, order.ids, 0).reshape(-1)]
    rows = jnp.where(there.reshape(-1, 1), rows, 0.0)
    of_row = jnp.repeat(order.clusters, order.ids.shape[1])
    sums = jax.ops.segment_sum(rows, of_row, count, indices_are_sorted=True)
    centres = sums / order.counts[:, None]
    far = jnp.sum(jnp.square(rows - centres[of_row]), axis=-1)
    far = jnp.where(there.reshape(-1), far, 0.0)
    radii = jnp.sqrt(jax.ops.segment_max(far, of_row, count, indices_are_sorted=True))
    return SearchIndex(
        rows.reshape(*order.ids.shape, -1),
        order,
        None if clusters is None else clusters.astype(jnp.float32),
        centres,
        radii,
    )
