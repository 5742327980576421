"""The members of each cluster in order, and clusters grouped into classes of similar size.

Cluster sizes differ widely: if all were padded to the largest, a table of a hundred thousand items
would be ten times as long. So clusters are grouped into a few size classes, each computed in one
shape; clusters with more members than a tile has rows are computed tile by tile. All of this is
known before compilation.

Letters: I items, K clusters, M rows of a tile, S parts of the table.
"""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from efficientids_flax.core.clustering import ClusteringInfo

SMALLEST_TILE = 8
# Limits on the number of classes: each takes half a second to compile, and more save little.
# Clusters of several tiles need few classes, since they are padded only to a multiple of a tile;
# what still depends on the class is the block size.
MOST_CLASSES, MOST_TILED = 6, 3
STEPS = 8  # candidate class limits in each doubling of the size


@dataclass(frozen=True)
class SizeClass:
    """Clusters that are computed in one shape.

    Attributes:
        clusters: int32 [n], their ids.
        largest: members of the largest one.
        rows: M, rows of a tile; less than `largest` if clusters need several tiles.
    """

    clusters: np.ndarray
    largest: int
    rows: int


@dataclass(frozen=True, eq=False)
class Layout:
    """The members of all clusters, one cluster after the other; compares and hashes by identity.

    The item table may be sharded by item into S equal parts; then each shard lists the members of
    each cluster that it holds.

    Attributes:
        order: int32 [S, I / S], a shard's items in cluster order, counted from its first item.
        slots: int32 [S, I / S], an item's index among the members of its cluster in its shard.
        starts, sizes: int32 [S, K], where a cluster begins in `order`, and its members in the
            shard.
        counts: int32 [K], members of each cluster in all shards.
    """

    order: np.ndarray
    slots: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    counts: np.ndarray

    @property
    def num_clusters(self) -> int:
        """K."""
        return len(self.counts)

    def classes(self, most: int, worth: float = 0.0) -> Iterator[SizeClass]:
        """The size classes, small clusters first, chosen for little padding with few classes.

        Args:
            most: the most rows that a tile may have.
            worth: rows of padding that cost as much time as one more class.
        """
        sizes = self.sizes.max(axis=0)
        fits = sizes <= most
        for chosen, at_most in ((fits, MOST_CLASSES), (~fits, MOST_TILED)):
            for largest, smaller in _limits(sizes[chosen], at_most, worth):
                own = chosen & (sizes <= largest) & (sizes > smaller)
                yield _class_of(np.flatnonzero(own), sizes, most)


def _class_of(clusters: np.ndarray, sizes: np.ndarray, most: int) -> SizeClass:
    largest = int(sizes[clusters].max())
    return SizeClass(clusters.astype(np.int32), largest, _padded(min(largest, most)))


def _padded(members: int) -> int:
    return -(-members // SMALLEST_TILE) * SMALLEST_TILE


def _limits(sizes: np.ndarray, classes: int, worth: float) -> list[tuple[int, int]]:
    """(inclusive upper, exclusive lower) size limit of each class, with the least total cost.

    Dynamic programming over `STEPS` candidate sizes in each doubling.
    """
    if not len(sizes):
        return []
    steps = np.ceil(np.log2(np.maximum(sizes, SMALLEST_TILE)) * STEPS).astype(int)
    ends = [0, *(int(sizes[steps == step].max()) for step in np.unique(steps))]
    counts = np.searchsorted(np.sort(sizes), ends, side="right")
    padded = [_padded(end) for end in ends]
    # best[j]: (cost in rows, limits) of all clusters up to ends[j]
    best: list[tuple[float, list[tuple[int, int]]]] = [(0.0, [])] + [(np.inf, [])] * (len(ends) - 1)
    for _ in range(classes):
        best = [
            min(
                [best[j]]
                + [
                    (
                        cost + float(counts[j] - counts[i]) * padded[j] + worth,
                        [*limits, (ends[j], ends[i])],
                    )
                    for i, (cost, limits) in enumerate(best[:j])
                ],
                key=lambda found: found[0],
            )
            for j in range(len(ends))
        ]
    return best[-1][1]


def layout_of(clustering: ClusteringInfo, parts: int = 1) -> Layout:
    """The layout of a clustering; cached.

    Args:
        clustering: the cluster of each item.
        parts: S, number of shards, a divisor of I.
    """
    made = _MADE.setdefault(clustering, {})
    if parts not in made:
        made[parts] = _layout(clustering, parts)
    return made[parts]


_MADE: weakref.WeakKeyDictionary[ClusteringInfo, dict[int, Layout]] = weakref.WeakKeyDictionary()


def _layout(clustering: ClusteringInfo, parts: int) -> Layout:
    clusters = clustering.num_clusters
    cluster_of = clustering.cluster_of.reshape(parts, -1)
    order = np.argsort(cluster_of, axis=1, kind="stable").astype(np.int32)
    sizes = np.stack([np.bincount(part, minlength=clusters) for part in cluster_of])
    starts = np.cumsum(sizes, axis=1) - sizes
    places = np.broadcast_to(np.arange(order.shape[1]), order.shape)
    sorted_clusters = np.take_along_axis(cluster_of, order, axis=1)
    slots = np.empty_like(order)
    inside = places - np.take_along_axis(starts, sorted_clusters, axis=1)
    np.put_along_axis(slots, order, inside.astype(np.int32), axis=1)
    return Layout(
        order, slots, starts.astype(np.int32), sizes.astype(np.int32),
        sizes.sum(axis=0).astype(np.int32),
    )  # fmt: skip
