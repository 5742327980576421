"""Which rows of the item table a batch touches, each with a place where its gradient goes.

Touched are the members of the clusters of its labels, one cluster after the other, and behind them
the items of its input that are in none of these. No row has two places, so that an optimizer may
take what lies there for the row's whole gradient.

Letters: P labels, Q inputs, I items, K clusters, R places.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.core.head.second import tables_of

NOWHERE = 1 << 30  # the place of a row that is not touched; no table is so long


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

    def items_at(self, clustering: ClusteringInfo, places: jax.Array) -> jax.Array:
        """The items of places int [n], int32 [n]; I where a place is not taken."""
        tables = tables_of(clustering)
        cluster = jnp.searchsorted(self.upto, places, side="right")
        cluster = jnp.minimum(cluster, self.upto.shape[0] - 1)
        slot = places - (self.upto[cluster] - tables.sizes[cluster])
        member = tables.order[jnp.clip(tables.starts[cluster] + slot, 0, clustering.num_items - 1)]
        beside = places - self.upto[-1]
        other = self.inputs[jnp.clip(beside, 0, self.inputs.shape[0] - 1)]
        found = jnp.where(beside < 0, member, other)
        return jnp.where(places < self.taken, found, clustering.num_items).astype(jnp.int32)


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
