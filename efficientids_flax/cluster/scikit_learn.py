"""Wraps scikit-learn: k-means++, spectral and agglomerative clustering.

Letters: N points, K clusters, E width.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

NEIGHBOURS = 10  # neighbours of each point in the graphs
WHOLE = 3000  # most points for which Ward's method considers all pairs; beyond, only neighbours


def seeds_of(points: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Centers by k-means++ (Arthur and Vassilvitskii 2007), float32 [K, E]."""
    if clusters >= len(points):
        return points.copy()
    found = _sklearn("cluster").kmeans_plusplus(
        points, clusters, random_state=int(rng.integers(1 << 31))
    )
    return np.asarray(found[0], np.float32)


def spectral(points: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Spectral clustering of the graph of nearest neighbours: int [N]."""
    if clusters >= len(points):
        return np.arange(len(points))
    near = min(NEIGHBOURS, len(points))
    graph = _sklearn("neighbors").kneighbors_graph(points, near, include_self=True)
    method = _sklearn("cluster").SpectralClustering(
        clusters, affinity="precomputed", assign_labels="kmeans", random_state=seed, n_init=4,
        eigen_solver="arpack",
    )  # fmt: skip
    return _fitted(method, (graph + graph.T) / 2)


def agglomerative(points: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Ward's method, only between neighbours if there are many points: int [N]. Deterministic."""
    del seed
    if clusters >= len(points):
        return np.arange(len(points))
    graph = None
    if len(points) > WHOLE:
        neighbours = _sklearn("neighbors").kneighbors_graph
        graph = neighbours(points, NEIGHBOURS, include_self=False)
    method = _sklearn("cluster").AgglomerativeClustering(
        clusters, linkage="ward", connectivity=graph
    )
    return _fitted(method, points)


def _fitted(method: Any, given: Any) -> np.ndarray:
    """Fit; gives the labels. Warnings about disconnected graphs or equal points are suppressed."""
    with warnings.catch_warnings():
        told = ".*(connect|Exiting|eigen|distinct|distance matrix).*"
        warnings.filterwarnings("ignore", message=told)
        return method.fit_predict(given)


def _sklearn(part: str) -> Any:
    from importlib import import_module

    try:
        return import_module(f"sklearn.{part}")
    except ImportError as error:
        raise ImportError(
            "this clustering needs scikit-learn: pip install 'efficientids-flax[cluster]'"
        ) from error
