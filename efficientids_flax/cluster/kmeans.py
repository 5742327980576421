"""k-means of many points in minutes: begun from a tree, learnt from a sample, ended on all points.

Lloyd's steps are made of matrix products, in blocks, and of sums in a fixed order: the same seed on
the same machine gives the same clusters. Letters: N points, K clusters, E width.
"""

from __future__ import annotations

import numpy as np

from efficientids_flax.cluster.centers import means, nearest, squared_distances
from efficientids_flax.cluster.scikit_learn import seeds_of

SAMPLE = 256  # points a cluster that Lloyd's steps learn from
STEPS = 30  # of Lloyd, on the sample
LAST_STEPS = 4  # on all points, where the sample is not all of them
ENOUGH = 3e-4  # relative decrease of the inertia below which steps end
LEAF = 64  # clusters that k-means++ draws at once; more are drawn by a tree
SEED_POINTS = 32  # points a cluster that k-means++ looks at


def kmeans(points: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """The cluster of each point, none empty: float32 [N, E] -> int32 [N].

    Args:
        points: N at least K.
        clusters: K.
        seed: of the draws.
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
    """So many of the points, in their order; all of them where they are no more."""
    if len(points) <= wanted:
        return points
    return points[np.sort(rng.choice(len(points), wanted, replace=False))]


def lloyd(points: np.ndarray, centers: np.ndarray, steps: int) -> np.ndarray:
    """Means of the nearest points, over and over: until little changes, or so many times."""
    before = np.inf
    for _ in range(steps):
        labels, apart = nearest_filled(points, centers)
        centers = means(points, labels, len(centers))
        if apart >= (1 - ENOUGH) * before:
            break
        before = apart
    return centers


def nearest_filled(points: np.ndarray, centers: np.ndarray) -> tuple[np.ndarray, float]:
    """(The nearest center of each point, with none left empty; the inertia towards them)."""
    labels = nearest(points, centers)
    apart = squared_distances(points, centers, labels)
    fill_empty(labels, apart, len(centers))
    return labels, float(apart.sum(dtype=np.float64))


def fill_empty(labels: np.ndarray, apart: np.ndarray, clusters: int) -> int:
    """Gives each empty cluster the point that lies farthest from its center, in place.

    A point that is the last of its cluster stays. Points as far as each other (duplicates, say) go
    by their number.

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
    """Centers to begin with: k-means++ of few, then of the points of each, as many as it has.

    Drawing K centers one by one looks at all points K times; in a tree at the square root of it.
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
    """Clusters for each branch in proportion to its points: one at least, no more than its points.

    Args:
        clusters: from as many as there are branches to as many as there are points.
        sizes: points of each branch, 1 at least.
    """
    shares = np.ones(len(sizes), np.int64)
    for _ in range(clusters - len(sizes)):
        shares[np.argmax(np.where(shares < sizes, sizes / (shares + 0.5), -1.0))] += 1
    return shares
