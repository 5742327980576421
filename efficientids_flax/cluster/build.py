"""Runs a clustering method, and does what is common to all methods.

    made = cluster_items(embeddings, ClusterOptions("balanced-kmeans", clusters=64))
    made.clustering.save("clustering.npz")

Every item is in one cluster, no cluster is empty, and none exceeds the requested size. Letters: I
items, N items with a vector, K clusters, E item width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from efficientids_flax.cluster.balanced import balanced_kmeans
from efficientids_flax.cluster.centers import means, squared_distances
from efficientids_flax.cluster.kmeans import fill_empty
from efficientids_flax.cluster.methods import METHODS, Method
from efficientids_flax.cluster.points import METRICS, Metric, Points, points_of
from efficientids_flax.cluster.split import Cut, split_large, spread
from efficientids_flax.cluster.summary import Summary, summary_of
from efficientids_flax.core.clustering import ClusteringInfo


@dataclass(frozen=True)
class ClusterOptions:
    """How to cluster.

    Attributes:
        method: a name of `METHODS`.
        clusters: K; None: the square root of the number of items, rounded up.
        max_size: most items of a cluster. Larger clusters are split, which increases K
            ('balanced-kmeans' keeps K). None: no limit.
        shortlist: the first N items get clusters of their own, which come first.
        metric: 'l2', or 'cosine', which scales vectors to length one.
        seed: random seed.
        spread_nonfinite: see `points_of`.
    """

    method: str
    clusters: int | None = None
    max_size: int | None = None
    shortlist: int = 0
    metric: Metric = "l2"
    seed: int = 0
    spread_nonfinite: bool = False

    def __post_init__(self) -> None:
        problems = [
            f"{name}: expected {least} or more, found {value}"
            for name, least in (("clusters", 1), ("max_size", 1), ("shortlist", 0), ("seed", 0))
            if (value := getattr(self, name)) is not None and value < least
        ]
        if self.method not in METHODS:
            problems.append(f"method: found {self.method!r}, there are {', '.join(METHODS)}")
        if self.metric not in METRICS:
            problems.append(f"metric: found {self.metric!r}, there are {', '.join(METRICS)}")
        if problems:
            raise ValueError("\n  ".join(problems))


class Clustered(NamedTuple):
    """A clustering and its summary."""

    clustering: ClusteringInfo
    summary: Summary


def cluster_items(
    embeddings: np.ndarray | None,
    options: ClusterOptions,
    *,
    num_items: int | None = None,
    ranks: np.ndarray | None = None,
    catalogue: str | None = None,
) -> Clustered:
    """Group items in clusters.

    Args:
        embeddings: floats [I, E]; None for methods that use none.
        options: see `ClusterOptions`.
        num_items: I, if there are no embeddings.
        ranks: int [I], 0 for the most frequent item, for 'frequency' and the shortlist;
            None: the ids are the ranks.
        catalogue: digest of the catalogue, which the clustering keeps.

    Returns:
        The clustering and its `Summary`. Clusters are numbered by their first item, in order of
        rank, with those of the shortlist first. Means are those of the given embeddings (None
        without embeddings).

    Raises:
        ValueError: options or embeddings that do not fit; see `points_of`.
        ImportError: the method needs scikit-learn.
    """
    method = METHODS[options.method]
    if embeddings is None and (method.vectors is not None or num_items is None):
        raise ValueError(f"{options.method}: needs embeddings")
    items = len(embeddings) if embeddings is not None else int(num_items or 0)
    if items < 1:
        raise ValueError("items: there are none to cluster")
    order = _order(ranks, items)
    clusters = _clusters(options, items, method)
    points = None
    if embeddings is not None:
        points = points_of(embeddings, options.metric, spread_nonfinite=options.spread_nonfinite)
    notes = [] if points is None else list(points.notes)

    rest = order[options.shortlist :]  # item ids
    labels = np.empty(items, np.int64)
    labels[order[: options.shortlist]] = np.arange(options.shortlist)
    wanted = clusters - options.shortlist
    excess = None
    if len(rest):
        if method.order is not None:
            found = method.order(np.arange(len(rest)), wanted, options.seed)
            if options.max_size is not None:
                found = split_large(found, options.max_size, _dealt)
        else:
            assert points is not None
            found, excess = _of_vectors(points, rest, wanted, options, method, notes)
        labels[rest] = options.shortlist + found
    labels = _numbered(labels, order)
    made = int(labels.max()) + 1
    if made > clusters:
        notes.append(f"{made - clusters} clusters more than {clusters}, as larger ones were split")
    vectors = None if points is None or embeddings is None else _means(embeddings, points, labels)
    info = ClusteringInfo.from_assignments(labels, vectors, catalogue=catalogue)
    return Clustered(info, summary_of(info, options.method, options.metric, points, excess, notes))


def _order(ranks: np.ndarray | None, items: int) -> np.ndarray:
    """Item ids in order of rank."""
    if ranks is None:
        return np.arange(items)
    order = np.argsort(ranks, kind="stable")
    if len(ranks) != items or not np.array_equal(ranks[order], np.arange(items)):
        raise ValueError(f"ranks: expected each of 0 to {items - 1} once, for {items} items")
    return order


def _clusters(options: ClusterOptions, items: int, method: Method) -> int:
    """K; raises if it does not fit the items or the method."""
    shortlist = options.shortlist
    clusters = options.clusters
    if clusters is None:
        clusters = math.isqrt(items - 1) + 1
    needed = shortlist + (1 if items > shortlist else 0)
    problems = []
    if shortlist > items:
        problems.append(f"shortlist: found {shortlist}, there are {items} items")
    elif clusters < needed:
        problems.append(
            f"clusters: found {clusters}, a shortlist of {shortlist} needs {needed} at least"
        )
    if clusters > items:
        problems.append(f"clusters: found {clusters}, {items} items fill no more than {items}")
    if method.most is not None and items > method.most:
        problems.append(
            f"method: {options.method} takes at most {method.most:,} items, there are {items:,};"
            " take kmeans or balanced-kmeans"
        )
    if problems:
        raise ValueError("\n  ".join(problems))
    return clusters


def _of_vectors(
    points: Points,
    rest: np.ndarray,
    clusters: int,
    options: ClusterOptions,
    method: Method,
    notes: list[str],
) -> tuple[np.ndarray, float | None]:
    """Cluster items by vectors; gives (cluster of each item of `rest`, excess of balanced k-means).

    Items without a vector are put into the smallest clusters, into empty ones first.
    """
    assert method.vectors is not None
    place = np.full(len(points.items) + len(points.without), -1)
    place[points.items] = np.arange(len(points.items))
    rows = place[rest]  # index of each item's vector, -1 without one
    there = rows >= 0
    vectors = points.vectors if len(rest) == len(points.items) and there.all() else (
        points.vectors[rows[there]])  # fmt: skip
    found = np.full(len(rest), -1)
    excess = None
    if len(vectors):
        mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        vectors = vectors - mean  # else a large common part would cancel digits of distances
        filled = min(clusters, len(vectors))
        if method.even:
            even = balanced_kmeans(vectors, filled, options.seed, options.max_size)
            labels, excess = even.labels.astype(np.int64), even.excess
        else:
            labels = method.vectors(vectors, filled, options.seed).astype(np.int64)
        empty = _filled(vectors, labels, filled)
        if empty:
            notes.append(f"{empty} clusters came out empty and were given the farthest items")
        if options.max_size is not None:
            cut = _cut_by(method, vectors, options.seed)
            labels = split_large(labels, options.max_size, cut)
        found[there] = labels
    spread(found, max(clusters, int(found.max()) + 1), options.max_size)
    return found, excess


def _filled(vectors: np.ndarray, labels: np.ndarray, clusters: int) -> int:
    """Give each empty cluster an item, in place; returns how many were empty."""
    if len(np.unique(labels)) == clusters:
        return 0
    centers = means(vectors, labels, clusters)
    return fill_empty(labels, squared_distances(vectors, centers, labels), clusters)


def _cut_by(method: Method, vectors: np.ndarray, seed: int) -> Cut:
    def cut(rows: np.ndarray, parts: int) -> np.ndarray:
        assert method.vectors is not None
        return method.vectors(vectors[rows], parts, seed)

    return cut


def _dealt(rows: np.ndarray, parts: int) -> np.ndarray:
    return np.arange(len(rows)) % parts


def _numbered(labels: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Renumber clusters from 0, in order of their first item by rank."""
    _, first, inverse = np.unique(labels[order], return_index=True, return_inverse=True)
    numbers = np.empty(len(first), np.int64)
    numbers[np.argsort(first)] = np.arange(len(first))
    numbered = np.empty_like(labels)
    numbered[order] = numbers[inverse.ravel()]
    return numbered


def _means(embeddings: np.ndarray, points: Points, labels: np.ndarray) -> np.ndarray:
    """Means of the given, unscaled embeddings over items that have a vector, float32 [K, E]."""
    clusters = int(labels.max()) + 1
    rows = embeddings if not len(points.without) else embeddings[points.items]
    return means(rows.astype(np.float32, copy=False), labels[points.items], clusters)
