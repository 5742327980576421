"""Which rows of the item table a batch touches, each with a place where its gradient goes.

Touched are the members of the clusters of its labels, one cluster after the other, and behind them
the items of its input that are in none of these. No row has two places, so that an optimizer may
take what lies there for the row's whole gradient.

While such a run goes on, the table lies cluster by cluster, too: what a batch touches is then a few
pieces of it, which are read and written as such. (Rows here and there cost several times as much.)

Letters: E width of the table, P labels, Q inputs, I items, K clusters, R places.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head.second import spare_rows, tables_of

NOWHERE = 1 << 30  # the place of a row that is not touched; no table is so long
BLOCK_BYTES = 1 << 16  # of rows that are changed at a time: with moments they stay in the cache
LEAST_BLOCK = 8


class Block(NamedTuple):
    """Rows that lie one after the other, in the table as among the places.

    Attributes:
        row, place: int [...], of the first.
        length: int [...], how many they are; at most `Blocks.rows`.
    """

    row: jax.Array
    place: jax.Array
    length: jax.Array


class Blocks(NamedTuple):
    """The rows of all touched clusters, in blocks.

    Attributes:
        rows: of a block, but for the last one of a cluster, which may have fewer.
        starts, sizes: int32 [K], of clusters, in the table.
        places: int32 [K], of the first member of each; any where there are no blocks.
        upto: int32 [K], blocks up to the end of the cluster.
    """

    rows: int
    starts: jax.Array
    sizes: jax.Array
    places: jax.Array
    upto: jax.Array

    @property
    def total(self) -> jax.Array:
        """Int32 [], of blocks."""
        return self.upto[-1]

    def most(self, places: int) -> int:
        """At most so many, of so many places: each cluster may end in the midst of one."""
        return places // self.rows + self.upto.shape[0]

    def block(self, number: jax.Array) -> Block:
        """Those of numbers int32 [...]; any where there is none."""
        found = jnp.searchsorted(self.upto, number, side="right")
        cluster = jnp.minimum(found, self.upto.shape[0] - 1)
        before = jnp.where(cluster > 0, self.upto[cluster - 1], 0)
        inside = (number - before) * self.rows
        length = jnp.minimum(self.sizes[cluster] - inside, self.rows)
        return Block(self.starts[cluster] + inside, self.places[cluster] + inside, length)


class Touched(NamedTuple):
    """The places of the rows that a batch touches: the first `taken` of all.

    Attributes:
        upto: int32 [K], the place behind the last member of each cluster: a cluster that is not
            touched has none.
        inputs: int32 [Q + 1], in order, the items of the input beside the clusters' members; I
            where there are no more.
        taken: int32 [].
    """

    upto: jax.Array
    inputs: jax.Array
    taken: jax.Array

    def starts(self) -> jax.Array:
        """Int32 [K], the place of each cluster's first member; `NOWHERE` if it is not touched."""
        before = jnp.concatenate([jnp.zeros(1, self.upto.dtype), self.upto[:-1]])
        return jnp.where(self.upto > before, before, NOWHERE)

    def places_of(self, clustering: ClusteringInfo, items: jax.Array) -> jax.Array:
        """Where the rows of items int [...] have their gradients, int32 [...], or `NOWHERE`."""
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
        """The members of the touched clusters.

        Args:
            clustering: where each item belongs.
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
    """Int32 [...], where items int [...] in [0, I) lie in a table that lies cluster by cluster."""
    tables = tables_of(clustering)
    found = tables.starts[jnp.asarray(clustering.cluster_of)[items]] + tables.slots[items]
    return found.astype(jnp.int32)


def in_row_order(clustering: ClusteringInfo, table: jax.Array) -> jax.Array:
    """[E, I], item by item, to [I + spare, E], cluster by cluster; see `spare_rows`."""
    spare = spare_rows(clustering, table.shape[0])
    return jnp.pad(table[:, tables_of(clustering).order].T, ((0, spare), (0, 0)))


def in_item_order(clustering: ClusteringInfo, table: jax.Array) -> jax.Array:
    """[I + spare, E], cluster by cluster, to [E, I], item by item."""
    return table[row_of(clustering, jnp.arange(clustering.num_items))].T


def places_for(clustering: ClusteringInfo, labels: int, inputs: int) -> int:
    """R: places that no batch of so many labels and items of the input exceeds.

    Args:
        clustering: the labels may lie in the largest clusters.
        labels, inputs: P, Q.
    """
    sizes = np.sort(np.bincount(clustering.cluster_of, minlength=clustering.num_clusters))
    most = int(sizes[::-1][:labels].sum()) + inputs
    return min(most, clustering.num_items)


def touched_by(clustering: ClusteringInfo, labels: jax.Array, inputs: jax.Array) -> Touched:
    """The rows that labels and items of the input touch.

    Args:
        clustering: where each item belongs.
        labels: int [P], items; outside of [0, I) is none.
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
    single = jnp.full(beside.shape[0] + 1, items, jnp.int32)  # the last one is for no inputs at all
    single = single.at[rank].set(beside.astype(jnp.int32), mode="drop")
    count = upto[-1] + jnp.sum(first, dtype=jnp.int32)
    return Touched(upto, single, count)
