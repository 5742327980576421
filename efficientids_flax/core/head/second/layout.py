"""Where the members of each cluster stand, and which clusters are computed in one shape.

Clusters are as unequal as people's interests: padded to the largest, a table of a hundred thousand
items is ten times as long. Here they come in classes of much the same size, and those of more
members than a tile has rows are taken tile by tile. All of it is known before anything is compiled.

Letters: I items, K clusters, M rows of a tile, S parts of the table.
"""

import weakref
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from efficientids_flax.core.clustering import ClusteringInfo

SMALLEST_TILE = 8
# Each is compiled, for half a second; more save little. Those that are taken in several tiles are
# padded to no more than a tile, but blocks of positions are as large as the class wants them.
MOST_CLASSES, MOST_TILED = 6, 3
# Rows of padding that take as long as the loop of one more class. A small catalogue has one or two
# classes, and compiles in as much less time.
WORTH = 128
STEPS = 8  # sizes in each doubling that may end a class


@dataclass(frozen=True)
class SizeClass:
    """Clusters that are computed in one shape.

    Attributes:
        clusters: int32 [n], the largest has `largest` members.
        largest: of members.
        rows: M, of a tile; less than `largest` where clusters are taken in several tiles.
    """

    clusters: np.ndarray
    largest: int
    rows: int


@dataclass(frozen=True, eq=False)
class Layout:
    """The members of all clusters, one after the other; compares and hashes by identity.

    The item table may lie in S equal parts on as many devices, by item; then each part has the
    members of each cluster that it holds.

    Attributes:
        order: int32 [S, I / S], the items of a part, cluster by cluster, counted from its first.
        slots: int32 [S, I / S], where an item stands among those of its cluster and part.
        starts, sizes: int32 [S, K], where a cluster begins in `order`, and how many of it are here.
        counts: int32 [K], members of each cluster.
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

    def classes(self, most: int) -> Iterator[SizeClass]:
        """All clusters, the small ones first, with as little padding as few classes allow.

        Args:
            most: rows that a tile may have.
        """
        sizes = self.sizes.max(axis=0)
        fits = sizes <= most
        for chosen, at_most in ((fits, MOST_CLASSES), (~fits, MOST_TILED)):
            for largest, smaller in _limits(sizes[chosen], at_most):
                own = chosen & (sizes <= largest) & (sizes > smaller)
                yield _class_of(np.flatnonzero(own), sizes, most)


def _class_of(clusters: np.ndarray, sizes: np.ndarray, most: int) -> SizeClass:
    largest = int(sizes[clusters].max())
    return SizeClass(clusters.astype(np.int32), largest, _padded(min(largest, most)))


def _padded(members: int) -> int:
    return -(-members // SMALLEST_TILE) * SMALLEST_TILE


def _limits(sizes: np.ndarray, classes: int) -> list[tuple[int, int]]:
    """(Largest size, size that is too small) of each class, such that rows and loops cost least.

    Dynamic programming over `STEPS` sizes in each doubling.
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
                        cost + float(counts[j] - counts[i]) * padded[j] + WORTH,
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
    """The layout of a clustering, made once for each.

    Args:
        clustering: which item is where.
        parts: S, a divisor of I.
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
