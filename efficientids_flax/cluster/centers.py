"""Nearest centers, distances and means of points, computed in blocks in float32.

Letters: N points, K centers, E width.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from efficientids_flax.cluster.points import blocks

SCORES = 1 << 23  # bytes of distances at a time, which fit the cache


def nearest(points: np.ndarray, centers: np.ndarray) -> np.ndarray:
    """The nearest center of each point, the first among equals: [N, E], [K, E] -> int32 [N]."""
    found = np.empty(len(points), np.int32)
    for part, scores in scored(points, centers):
        found[part] = scores.argmin(axis=1)
    return found


def scored(
    points: np.ndarray, centers: np.ndarray, prices: np.ndarray | float = 0.0
) -> Iterator[tuple[slice, np.ndarray]]:
    """Half the squared distances minus half the points' own squared norms, block by block.

    Args:
        points: [N, E].
        centers: [K, E].
        prices: [K], added to these.

    Yields:
        (slice of points, float32 [n, K]); the next block overwrites the array.
    """
    towards = -centers.T.astype(np.float32)
    halves = np.einsum("ke,ke->k", centers, centers, dtype=np.float64) / 2
    own = (halves + prices).astype(np.float32)
    parts = blocks(len(points), 4 * len(centers), SCORES)
    room = np.empty((parts[0].stop, len(centers)), np.float32)
    for part in parts:
        scores = np.matmul(points[part], towards, out=room[: part.stop - part.start])
        scores += own
        yield part, scores


def squared_distances(points: np.ndarray, centers: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """From each point to its own center, float32 [N]; by differences, without cancellation."""
    found = np.empty(len(points), np.float32)
    for part in blocks(len(points), 8 * points.shape[1]):
        apart = points[part] - centers[labels[part]]
        found[part] = np.einsum("ne,ne->n", apart, apart)
    return found


def means(points: np.ndarray, labels: np.ndarray, clusters: int) -> np.ndarray:
    """Mean of the points of each cluster, float32 [K, E]; zeros for empty clusters."""
    return _sums(points, labels, clusters) / np.maximum(np.bincount(labels, minlength=clusters), 1)[
        :, None
    ].astype(np.float32)


def _sums(points: np.ndarray, labels: np.ndarray, clusters: int) -> np.ndarray:
    """Sums by cluster as a sparse product, which always adds in the order of the points."""
    from scipy.sparse import csr_array

    order = np.argsort(labels, kind="stable")
    first = np.searchsorted(labels[order], np.arange(clusters + 1))
    ones = np.ones(len(points), np.float32)
    return csr_array((ones, order, first), shape=(clusters, len(points))) @ points
