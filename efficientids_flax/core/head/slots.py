"""The item table in columns of one cluster each, so that sums over clusters go down columns.

Many columns stand side by side, as a vector unit takes them; a cluster has as many as it fills, the
last one in part. Letters: W width of the table, I items, K clusters, N columns of R slots.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from efficientids_flax.core.clustering import ClusteringInfo

LONGEST_COLUMN = 32
SIDE_BY_SIDE = 256  # columns of a full softmax


class Slots(NamedTuple):
    """Where each item stands.

    Attributes:
        ids: int32 [R, N], the item of each slot, -1 where there is none.
        clusters: int32 [N], of each column.
        places: int32 [I], the slot of each item among R x N.
        num_clusters: K.
    """

    ids: np.ndarray
    clusters: np.ndarray
    places: np.ndarray
    num_clusters: int


def slots_of(clustering: ClusteringInfo | None, items: int) -> Slots:
    """Where the items of a head stand.

    Args:
        clustering: None under full softmax.
        items: I.
    """
    own = np.arange(items, dtype=np.int32)
    if clustering is None:
        columns = min(SIDE_BY_SIDE, items)
        ids = np.full(-(-items // columns) * columns, -1, np.int32)
        ids[:items] = own
        return Slots(ids.reshape(-1, columns), np.zeros(columns, np.int32), own, 1)
    cluster_of = np.asarray(clustering.cluster_of)
    sizes = np.bincount(cluster_of, minlength=clustering.num_clusters)
    # Columns as long as keeps what is filled up at about an eighth.
    mean = max(items // max(len(sizes), 1), 1)
    length = min(LONGEST_COLUMN, 1 << max(mean // 4, 1).bit_length() - 1)
    columns = -(-sizes // length)
    first = np.concatenate([[0], np.cumsum(columns)])
    order = np.argsort(cluster_of, kind="stable")
    before = np.concatenate([[0], np.cumsum(sizes)])[cluster_of[order]]
    inside = np.arange(items) - before  # of its cluster
    places = np.empty(items, np.int32)
    places[order] = inside % length * first[-1] + first[cluster_of[order]] + inside // length
    ids = np.full(first[-1] * length, -1, np.int32)
    ids[places] = own
    clusters = np.repeat(np.arange(len(sizes), dtype=np.int32), columns)
    return Slots(ids.reshape(length, -1), clusters, places, len(sizes))


def table_of(items: jax.Array, slots: Slots) -> jax.Array:
    """The item table in the order of the slots, float32 [R N, W].

    A slot without an item has the first one of its column again, so that the column's highest
    logit is that of its items.

    Args:
        items: [I, W].
        slots: of `slots_of`.
    """
    filled = np.where(slots.ids >= 0, slots.ids, slots.ids[0])
    return items.astype(jnp.float32)[filled.reshape(-1)]
