"""Which rows of the item table a batch touches, and where the gradient of each is stored.

A batch touches all members of its labels' clusters, and the items of its input. Each touched row
gets one place in a compact gradient array: first the members, cluster by cluster, then the input
items that are in none of these clusters. No row has two places, so the gradient there is the row's
whole gradient, and an optimizer may use it as such.

The trainer then keeps the table in cluster order as well. A batch touches a few contiguous slices
of it, which are read and written whole. (Scattered rows cost several times as much.)

Letters: E width of the table, P labels, Q inputs, I items, K clusters, R places.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head.second import spare_rows, tables_of

NOWHERE = 1 << 30  # the place of a row that is not touched; no table is that long
BLOCK_BYTES = 1 << 16  # rows updated at a time: together with their moments they fit the cache
LEAST_BLOCK = 8


class Block(NamedTuple):
    """Rows that are contiguous both in the table and among the places.

    Attributes:
        row, place: int [...], row and place of the first one.
        length: int [...], number of rows, at most `Blocks.rows`.
    """

    row: jax.Array
    place: jax.Array
    length: jax.Array


class Blocks(NamedTuple):
    """The rows of all touched clusters, cut into blocks.

    Attributes:
        rows: rows of a block; the last block of a cluster may have fewer.
        starts, sizes: int32 [K], first row and number of rows of each cluster in the table.
        places: int32 [K], the place of each cluster's first member; arbitrary if untouched.
        upto: int32 [K], cumulative number of blocks, up to and including the cluster.
    """

    rows: int
    starts: jax.Array
    sizes: jax.Array
    places: jax.Array
    upto: jax.Array

    @property
    def total(self) -> jax.Array:
        """Int32 [], the number of blocks."""
        return self.upto[-1]

    def most(self, places: int) -> int:
        """Upper bound on the blocks for this many places: each cluster may end in a partial one."""
        return places // self.rows + self.upto.shape[0]

    def block(self, number: jax.Array) -> Block:
        """The blocks with these numbers, int32 [...]; arbitrary for numbers out of range."""
        found = jnp.searchsorted(self.upto, number, side="right")
        cluster = jnp.minimum(found, self.upto.shape[0] - 1)
        before = jnp.where(cluster > 0, self.upto[cluster - 1], 0)
        inside = (number - before) * self.rows
        length = jnp.minimum(self.sizes[cluster] - inside, self.rows)
        return Block(self.starts[cluster] + inside, self.places[cluster] + inside, length)


class Touched(NamedTuple):
    """The places of the rows that a batch touches; they are numbered 0 to `taken` - 1.

    Attributes:
        upto: int32 [K], the place after each cluster's last member. An untouched cluster takes no
            places: its value is that of the cluster before.
        inputs: int32 [Q + 1], sorted, the input items outside the touched clusters, padded with I.
        taken: int32 [], number of places in use.
    """

    upto: jax.Array
    inputs: jax.Array
    taken: jax.Array

    def starts(self) -> jax.Array:
        """Int32 [K], the place of each cluster's first member; `NOWHERE` if it is not touched."""
        before = jnp.concatenate([jnp.zeros(1, self.upto.dtype), self.upto[:-1]])
        return jnp.where(self.upto > before, before, NOWHERE)

    def places_of(self, clustering: ClusteringInfo, items: jax.Array) -> jax.Array:
        """The place of each item's gradient, int [...] -> int32 [...]; `NOWHERE` if untouched."""
        count = clustering.num_items
        known = (items >= 0) & (items < count)
        index = jnp.where(known, items, 0)
        start = self.starts()[jnp.asarray(clustering.cluster_of)[index]]
        inside = start + tables_of(clustering).slots[index]
        at = jnp.minimum(jnp.searchsorted(self.inputs, index), self.inputs.shape[0] - 1)
        beside = jnp.where(self.inputs[at] == index, self.upto[-1] + at, NOWHERE)
        found = jnp.where(start < NOWHERE, inside, beside)
        return jnp.where(known, found, NOWHERE).astype(jnp.int32)

    def blocks(self, clustering: ClusteringInfo, width: int) -> Blocks:
        """The members of the touched clusters, in blocks.

        Args:
            clustering: the cluster of each item.
            width: E.
        """
        tables = tables_of(clustering)
        mean = -(-clustering.num_items // clustering.num_clusters)
        wanted = max(min(BLOCK_BYTES // (4 * width), mean), LEAST_BLOCK)
        rows = min(wanted // LEAST_BLOCK * LEAST_BLOCK, spare_rows(clustering, width))
        places = self.starts()
        own = jnp.where(places < NOWHERE, -(-tables.sizes // rows), 0)
        upto = jnp.cumsum(own).astype(jnp.int32)
        return Blocks(rows, tables.starts, tables.sizes, places, upto)


def row_of(clustering: ClusteringInfo, items: jax.Array) -> jax.Array:
    """The rows of items int [...] in [0, I) in a table in cluster order, int32 [...]."""
    tables = tables_of(clustering)
    found = tables.starts[jnp.asarray(clustering.cluster_of)[items]] + tables.slots[items]
    return found.astype(jnp.int32)


def in_row_order(clustering: ClusteringInfo, table: jax.Array) -> jax.Array:
    """Convert a table from item order [E, I] to cluster order [I + spare, E]; see `spare_rows`."""
    spare = spare_rows(clustering, table.shape[0])
    return jnp.pad(table[:, tables_of(clustering).order].T, ((0, spare), (0, 0)))


def in_item_order(clustering: ClusteringInfo, table: jax.Array) -> jax.Array:
    """Convert a table from cluster order [I + spare, E] to item order [E, I]."""
    return table[row_of(clustering, jnp.arange(clustering.num_items))].T


def places_for(clustering: ClusteringInfo, labels: int, inputs: int) -> int:
    """R, the most places that a batch of this many labels and input items can take.

    Args:
        clustering: the worst case is that the labels are in the largest clusters.
        labels, inputs: P, Q.
    """
    sizes = np.sort(np.bincount(clustering.cluster_of, minlength=clustering.num_clusters))
    most = int(sizes[::-1][:labels].sum()) + inputs
    return min(most, clustering.num_items)


def touched_by(clustering: ClusteringInfo, labels: jax.Array, inputs: jax.Array) -> Touched:
    """The rows that the labels and input items of a batch touch.

    Args:
        clustering: the cluster of each item.
        labels: int [P], item ids; ids outside [0, I) are ignored.
        inputs: int [Q], the same.
    """
    items, clusters = clustering.num_items, clustering.num_clusters
    cluster_of, sizes = jnp.asarray(clustering.cluster_of), tables_of(clustering).sizes

    def known(ids: jax.Array) -> jax.Array:
        return (ids >= 0) & (ids < items)

    of_labels = cluster_of[jnp.where(known(labels), labels, 0)]
    of_labels = jnp.where(known(labels), of_labels, clusters)
    visited = jnp.zeros(clusters + 1, bool).at[of_labels].set(True)[:clusters]
    upto = jnp.cumsum(jnp.where(visited, sizes, 0)).astype(jnp.int32)
    index = jnp.where(known(inputs), inputs, 0)
    beside = jnp.sort(jnp.where(known(inputs) & ~visited[cluster_of[index]], index, items))
    before = jnp.concatenate([jnp.full(1, -1), beside[:-1]])
    first = (beside != before[: beside.shape[0]]) & (beside < items)
    rank = jnp.where(first, jnp.cumsum(first) - 1, beside.shape[0] + 1)
    single = jnp.full(beside.shape[0] + 1, items, jnp.int32)  # + 1: never empty, even if Q is 0
    single = single.at[rank].set(beside.astype(jnp.int32), mode="drop")
    count = upto[-1] + jnp.sum(first, dtype=jnp.int32)
    return Touched(upto, single, count)
