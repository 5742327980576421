"""k-means for many points: initialised by a tree, trained on a sample, finished on all points.

Lloyd's steps consist of matrix products in blocks and sums in a fixed order, so the same seed gives
the same clusters on the same machine. Letters: N points, K clusters, E width.
"""

from __future__ import annotations

import numpy as np

from efficientids_flax.cluster.centers import means, nearest, squared_distances
from efficientids_flax.cluster.scikit_learn import seeds_of

SAMPLE = 256  # points per cluster in the sample for Lloyd's steps
STEPS = 30  # most steps on the sample
LAST_STEPS = 4  # most steps on all points, if the sample is smaller
ENOUGH = 3e-4  # steps end once the inertia decreases by a smaller share
LEAF = 64  # clusters that k-means++ draws directly; more are drawn by a tree
SEED_POINTS = 32  # points per cluster given to k-means++


def kmeans(points: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """The cluster of each point, with no cluster empty: float32 [N, E] -> int32 [N].

    Args:
        points: N must be at least K.
        clusters: K.
        seed: random seed.
    """
    return nearest_filled(points, learn_centers(points, clusters, seed))[0]


def learn_centers(points: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Centers after Lloyd's steps, float32 [K, E]."""
    rng = np.random.default_rng(seed)
    sample = sample_of(points, clusters * SAMPLE, rng)
    centers = tree_centers(sample, clusters, rng)
    centers = lloyd(sample, centers, STEPS)
    return centers if sample is points else lloyd(points, centers, LAST_STEPS)


def sample_of(points: np.ndarray, wanted: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `wanted` points, in their order; all points if there are no more."""
    if len(points) <= wanted:
        return points
    return points[np.sort(rng.choice(len(points), wanted, replace=False))]


def lloyd(points: np.ndarray, centers: np.ndarray, steps: int) -> np.ndarray:
    """Lloyd's steps, until the inertia hardly decreases or for at most `steps`."""
    before = np.inf
    for _ in range(steps):
        labels, apart = nearest_filled(points, centers)
        centers = means(points, labels, len(centers))
        if apart >= (1 - ENOUGH) * before:
            break
        before = apart
    return centers


def nearest_filled(points: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, float]:
    """(Nearest center of each point, after filling empty clusters; the inertia before that)."""
    labels = nearest(points, centers)
    apart = squared_distances(points, centers, labels)
    fill_empty(labels, apart, len(centers))
    return labels, float(apart.sum(dtype=np.float64))


def fill_empty(labels: np.ndarray, apart: np.ndarray, clusters: int) -> int:
    """Give each empty cluster the point that lies farthest from its center, in place.

    The only point of a cluster stays. Points at equal distance, such as duplicates, go in order of
    their index.

    Args:
        labels: int [N], changed.
        apart: [N], squared distance to the center.
        clusters: K, at most N.

    Returns:
        How many clusters were empty.
    """
    sizes = np.bincount(labels, minlength=clusters)
    empty = np.flatnonzero(sizes == 0)
    if not len(empty):
        return 0
    waiting = list(empty[::-1])
    for point in np.argsort(-apart, kind="stable"):
        if sizes[labels[point]] > 1:
            sizes[labels[point]] -= 1
            labels[point] = waiting.pop()
            sizes[labels[point]] += 1
        if not waiting:
            break
    return len(empty)


def tree_centers(points: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Initial centers: k-means++ for a few branches, then recursively within each branch.

    Drawing K centers one by one scans all points K times; the tree scans them about sqrt(K) times.
    """
    if clusters <= LEAF:
        return seeds_of(sample_of(points, clusters * SEED_POINTS, rng), clusters, rng)
    branches = int(np.ceil(np.sqrt(clusters)))
    seen = sample_of(points, branches * clusters, rng)
    tops = seeds_of(sample_of(seen, branches * SEED_POINTS, rng), branches, rng)
    tops = lloyd(seen, tops, 4)
    labels, _ = nearest_filled(points, tops)
    sizes = np.bincount(labels, minlength=branches)
    shares = _shared(clusters, sizes)
    made = [
        tree_centers(points[labels == branch], share, rng) for branch, share in enumerate(shares)
    ]
    return np.concatenate(made)


def _shared(clusters: int, sizes: np.ndarray) -> np.ndarray:
    """Number of clusters per branch, in proportion to its points, from 1 to its number of points.

    Args:
        clusters: at least the number of branches, at most the number of points.
        sizes: points of each branch, at least 1.
    """
    shares = np.ones(len(sizes), np.int64)
    for _ in range(clusters - len(sizes)):
        shares[np.argmax(np.where(shares < sizes, sizes / (shares + 0.5), -1.0))] += 1
    return shares
