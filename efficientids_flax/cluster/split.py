"""Clusters that are too large, split until none is; items that have no place yet, spread.

Letters: N points, K clusters.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Cut = Callable[[np.ndarray, int], np.ndarray]
"""(Rows of the points of one cluster, in how many to cut it) -> int [rows], which part."""


def split_large(labels: np.ndarray, most: int, cut: Cut) -> np.ndarray:
    """Labels of clusters with at most so many points; further clusters have further numbers.

    Each that is too large is cut into as many as it needs at least, again and again. Where a cut
    leaves all in one part (equal points), or nearly so, it is cut in the order of the rows.

    Args:
        labels: int [N], the cluster of each point.
        most: at least 1.
        cut: parts from 0.
    """
    labels = labels.copy()
    clusters = int(labels.max()) + 1
    waiting = list(np.flatnonzero(np.bincount(labels) > most))
    while waiting:
        cluster = waiting.pop(0)
        rows = np.flatnonzero(labels == cluster)
        needed = -(-len(rows) // most)
        parts = np.unique(cut(rows, needed), return_inverse=True)[1].ravel()
        # What is left of a large part has to become small fast, or thousands of steps are needed.
        if np.bincount(parts).max() > len(rows) - max(1, len(rows) // (4 * needed)):
            parts = np.arange(len(rows)) * needed // len(rows)
        sizes = np.bincount(parts)
        numbers = np.concatenate([[cluster], clusters + np.arange(len(sizes) - 1)])
        labels[rows] = numbers[parts]
        waiting += [int(number) for number in numbers[sizes > most]]
        clusters += len(sizes) - 1
    return labels


def spread(labels: np.ndarray, clusters: int, most: int | None = None) -> None:
    """Puts points without a cluster into the smallest ones, in place, by their number.

    Args:
        labels: int [N], changed; -1 is none.
        clusters: K, empty ones too.
        most: points of the largest; where all are full, there are further clusters. None: any.
    """
    waiting = np.flatnonzero(labels < 0)
    sizes = np.bincount(labels[labels >= 0], minlength=clusters)
    if most is not None:
        lacking = len(waiting) - int(np.maximum(most - sizes, 0).sum())
        sizes = np.concatenate([sizes, np.zeros(max(0, -(-lacking // most)), sizes.dtype)])
    room = np.maximum(_level(sizes, len(waiting)) - sizes, 0)
    places = np.repeat(np.arange(len(sizes)), room)
    # The size that a cluster has before it takes the point: the smallest take first.
    before = sizes[places] + np.arange(len(places)) - np.repeat(np.cumsum(room) - room, room)
    labels[waiting] = places[np.lexsort((places, before))[: len(waiting)]]


def _level(sizes: np.ndarray, more: int) -> int:
    """The lowest level up to which so many more can be filled in."""
    low, high = int(sizes.min()), int(sizes.max()) + more
    while low < high:
        middle = (low + high) // 2
        if int(np.maximum(middle - sizes, 0).sum()) >= more:
            high = middle
        else:
            low = middle + 1
    return low
