"""k-means with lower and upper limits on cluster sizes.

Like Lloyd's algorithm, but the assignment step keeps the limits (Bennett, Bradley and Demiriz 2000;
here solved by prices, see `transport`). Letters: N points, K clusters, E width.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from efficientids_flax.cluster.centers import means, squared_distances
from efficientids_flax.cluster.kmeans import learn_centers, sample_of
from efficientids_flax.cluster.transport import Limits, transported

SAMPLE = 64  # points per cluster in the sample for the first steps
STEPS = 12  # on the sample
LAST_STEPS = 2  # on all points
ENOUGH = 1e-3  # steps end once the inertia decreases by a smaller share


class Balanced(NamedTuple):
    """An assignment within limits.

    Attributes:
        labels: int32 [N].
        inertia: sum of squared distances to the centers to which the points are assigned.
        excess: upper bound on inertia minus that of the best assignment to these centers.
    """

    labels: np.ndarray
    inertia: float
    excess: float


def balanced_kmeans(
    points: np.ndarray, clusters: int, seed: int, most: int | None = None
) -> Balanced:
    """Cluster points within size limits: float32 [N, E] -> the cluster of each.

    Args:
        points: N must be at least K.
        clusters: K.
        seed: seed for the first centers.
        most: largest size; None: sizes differ by at most one.

    Raises:
        ValueError: K clusters of `most` points cannot hold all.
    """
    limits = Limits.even(len(points), clusters) if most is None else Limits(1, most)
    limits.check(len(points), clusters)
    centers = learn_centers(points, clusters, seed)
    sample = sample_of(points, clusters * SAMPLE, np.random.default_rng([seed, 1]))
    prices = None
    if sample is not points:
        share = len(sample) / len(points)
        fewer = Limits(int(limits.least * share), int(np.ceil(limits.most * share)))
        centers, prices, _ = _stepped(sample, centers, fewer, None, STEPS)
    return _stepped(points, centers, limits, prices, STEPS if prices is None else LAST_STEPS)[2]


def _stepped(
    points: np.ndarray,
    centers: np.ndarray,
    limits: Limits,
    prices: np.ndarray | None,
    steps: int,
) -> tuple[np.ndarray, np.ndarray | None, Balanced]:
    """Run up to `steps` steps; gives (centers, prices, the best assignment among them)."""
    best: Balanced | None = None
    for _ in range(steps):
        found = transported(points, centers, limits, prices)
        labels, prices = found.labels, found.prices
        apart = squared_distances(points, centers, labels)
        now = Balanced(labels, float(apart.sum(dtype=np.float64)), found.excess)
        centers = means(points, labels, len(centers))
        little = best is not None and now.inertia >= (1 - ENOUGH) * best.inertia
        if best is None or now.inertia < best.inertia:
            best = now
        if little:
            break
    assert best is not None
    return centers, prices, best
