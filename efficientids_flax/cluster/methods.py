"""The table of clustering methods: the input of each, and its properties.

Letters: N points, K clusters, E width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from efficientids_flax.cluster.balanced import balanced_kmeans
from efficientids_flax.cluster.kmeans import kmeans
from efficientids_flax.cluster.scikit_learn import agglomerative, spectral

Labels = np.ndarray
"""int [N], the cluster of each point."""


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        vectors: (float32 [N, E], K, seed) -> labels; None if it uses no vectors.
        order: (ranks [N], K, seed) -> labels; None if it uses vectors.
        most: most points that it can handle in memory and time; None: any number.
        seeded: whether the seed has an effect.
        even: whether it respects the largest size itself, so that no cluster needs splitting.
        tells: description for `--help` and reports.
    """

    tells: str
    vectors: Callable[[np.ndarray, int, int], Labels] | None = None
    order: Callable[[np.ndarray, int, int], Labels] | None = None
    most: int | None = None
    seeded: bool = True
    even: bool = False


def dealt_at_random(ranks: np.ndarray, clusters: int, seed: int) -> Labels:
    """Deal at random; sizes differ by at most one, and none is empty if N is at least K."""
    return np.random.default_rng(seed).permutation(np.arange(len(ranks)) % clusters)


def dealt_by_rank(ranks: np.ndarray, clusters: int, seed: int) -> Labels:
    """Deal round-robin: the item of rank r is in cluster r mod K."""
    del seed
    return ranks % clusters


def even_kmeans(points: np.ndarray, clusters: int, seed: int) -> Labels:
    """The labels of `balanced_kmeans`."""
    return balanced_kmeans(points, clusters, seed).labels


# fmt: off
METHODS: dict[str, Method] = {
    "random":          Method("dealt in a drawn order", order=dealt_at_random),
    "frequency":       Method("dealt by rank, round-robin", order=dealt_by_rank, seeded=False),
    "kmeans":          Method("k-means", vectors=kmeans),
    "balanced-kmeans": Method("k-means with even sizes", vectors=even_kmeans, even=True),
    "spectral":        Method("eigenvectors of the graph of neighbours", vectors=spectral,
                              most=50_000),
    "agglomerative":   Method("Ward's merges", vectors=agglomerative, most=100_000, seeded=False),
}
# fmt: on
"""Name -> method, in the order in which they are listed."""
