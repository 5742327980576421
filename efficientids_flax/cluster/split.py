"""Splits clusters that are too large, and distributes items that have no cluster yet.

Letters: N points, K clusters.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Cut = Callable[[np.ndarray, int], np.ndarray]
"""(rows of a cluster's points, number of parts) -> int [rows], the part of each."""


def split_large(labels: np.ndarray, most: int, cut: Cut) -> np.ndarray:
    """Split clusters until none has more than `most` points; new clusters get further numbers.

    Each large cluster is cut into the smallest sufficient number of parts, repeatedly. If a cut
    leaves nearly all points in one part, for example equal points, it is cut in row order instead.

    Args:
        labels: int [N], the cluster of each point.
        most: at least 1.
        cut: gives parts numbered from 0.
    """
    labels = labels.copy()
    clusters = int(labels.max()) + 1
    waiting = list(np.flatnonzero(np.bincount(labels) > most))
    while waiting:
        cluster = waiting.pop(0)
        rows = np.flatnonzero(labels == cluster)
        needed = -(-len(rows) // most)
        parts = np.unique(cut(rows, needed), return_inverse=True)[1].ravel()
        # The largest part must shrink fast enough, or thousands of rounds would be needed.
        if np.bincount(parts).max() > len(rows) - max(1, len(rows) // (4 * needed)):
            parts = np.arange(len(rows)) * needed // len(rows)
        sizes = np.bincount(parts)
        numbers = np.concatenate([[cluster], clusters + np.arange(len(sizes) - 1)])
        labels[rows] = numbers[parts]
        waiting += [int(number) for number in numbers[sizes > most]]
        clusters += len(sizes) - 1
    return labels


def spread(labels: np.ndarray, clusters: int, most: int | None = None) -> None:
    """Put points without a cluster into the smallest clusters, in place, in order of their index.

    Args:
        labels: int [N], changed; -1: no cluster.
        clusters: K, including empty ones.
        most: largest size; if all are full, new clusters are added. None: no limit.
    """
    waiting = np.flatnonzero(labels < 0)
    sizes = np.bincount(labels[labels >= 0], minlength=clusters)
    if most is not None:
        lacking = len(waiting) - int(np.maximum(most - sizes, 0).sum())
        sizes = np.concatenate([sizes, np.zeros(max(0, -(-lacking // most)), sizes.dtype)])
    room = np.maximum(_level(sizes, len(waiting)) - sizes, 0)
    places = np.repeat(np.arange(len(sizes)), room)
    # A cluster's size before it takes the point: the smallest take points first.
    before = sizes[places] + np.arange(len(places)) - np.repeat(np.cumsum(room) - room, room)
    labels[waiting] = places[np.lexsort((places, before))[: len(waiting)]]


def _level(sizes: np.ndarray, more: int) -> int:
    """The lowest level such that filling all clusters up to it takes `more` points."""
    low, high = int(sizes.min()), int(sizes.max()) + more
    while low < high:
        middle = (low + high) // 2
        if int(np.maximum(middle - sizes, 0).sum()) >= more:
            high = middle
        else:
            low = middle + 1
    return low
