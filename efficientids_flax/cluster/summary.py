"""Summarises a clustering: sizes, and how close the items of each cluster are.

Letters: I items, K clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from efficientids_flax.cluster.centers import means, squared_distances
from efficientids_flax.cluster.points import Points
from efficientids_flax.core.clustering import ClusteringInfo
from efficientids_flax.text import table

BINS = 12  # of the histogram of sizes


@dataclass(frozen=True)
class Summary:
    """Summary of one clustering.

    Attributes:
        method, metric: as requested.
        sizes: int [K], items per cluster.
        within: [K], variance of each cluster: the mean squared distance of its items to their mean,
            by the metric; empty without embeddings.
        counted: int [K], items with a vector per cluster; empty without embeddings.
        inertia: sum of squared distances of all items to the mean of their cluster; None without
            embeddings.
        total: sum of squared distances of all items to their overall mean.
        excess: for balanced k-means, see `Balanced`; None for other methods.
        duplicates: number of items with the same vector as an earlier item.
        without_vector: number of items without a vector.
        notes: what was found and done, for people.
    """

    method: str
    metric: str
    sizes: np.ndarray
    within: np.ndarray
    counted: np.ndarray
    inertia: float | None
    total: float | None
    excess: float | None
    duplicates: int
    without_vector: int
    notes: tuple[str, ...]

    @property
    def share(self) -> float | None:
        """Inertia over total: 0 if items equal their cluster's mean, 1 if clusters explain nothing.

        None without embeddings; 0 if all items are equal.
        """
        if self.inertia is None or self.total is None:
            return None
        return self.inertia / self.total if self.total > 0 else 0.0

    @property
    def variance(self) -> float | None:
        """The mean squared distance of all items to their mean; None without embeddings."""
        items = int(self.sizes.sum()) - self.without_vector
        return None if self.total is None else self.total / max(items, 1)

    def histogram(self) -> list[tuple[int, int, int]]:
        """(Smallest size, largest size, number of clusters) for at most `BINS` ranges of sizes."""
        low, high = int(self.sizes.min()), int(self.sizes.max())
        step = max(1, -(-(high - low + 1) // BINS))
        starts = range(low, high + 1, step)
        counts = np.bincount((self.sizes - low) // step, minlength=len(starts))
        return [
            (start, min(start + step - 1, high), int(count))
            for start, count in zip(starts, counts, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """The summary as JSON values."""
        sizes = self.sizes
        return {
            "method": self.method,
            "metric": self.metric,
            "items": int(sizes.sum()),
            "clusters": len(sizes),
            "sizes": {"min": int(sizes.min()), "median": float(np.median(sizes)),
                      "max": int(sizes.max()), "histogram": self.histogram()},
            "inertia": self.inertia,
            "total": self.total,
            "inertia_share": self.share,
            "variance": self._variances(),
            "excess": self.excess,
            "duplicates": self.duplicates,
            "without_vector": self.without_vector,
            "notes": list(self.notes),
        }  # fmt: skip

    def _variances(self) -> dict[str, float] | None:
        """Variances over clusters that have vectors, and of all items; None without embeddings."""
        if self.variance is None:
            return None
        there = self.within[self.counted > 0]
        return {"min": float(there.min()), "median": float(np.median(there)),
                "max": float(there.max()), "of_all": self.variance}  # fmt: skip

    def text(self) -> str:
        """The summary as tables for people."""
        sizes = self.sizes
        rows = [
            ("method", self.method if self.inertia is None else f"{self.method}, {self.metric}"),
            ("items", str(sizes.sum())),
            ("clusters", str(len(sizes))),
            ("smallest", str(sizes.min())),
            ("median", f"{np.median(sizes):g}"),
            ("largest", str(sizes.max())),
        ]
        if self.share is not None:
            rows.append(("within clusters", f"{self.share:.1%} of the variance"))
        found = self._variances()
        if found is not None and found["of_all"] > 0:
            least, middle, most = (
                found[name] / found["of_all"] for name in ("min", "median", "max")
            )
            rows.append(("of each", f"{least:.0%} to {most:.0%}, median {middle:.0%}"))
        if self.excess is not None and self.inertia:
            rows.append(("above the best", f"at most {self.excess / self.inertia:.2%}"))
        histogram = [("items", "clusters"), *(
            (f"{low}" if low == high else f"{low}-{high}", str(count))
            for low, high, count in self.histogram()
        )]  # fmt: skip
        lines = [table(rows), "", table(histogram)]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def summary_of(
    clustering: ClusteringInfo,
    method: str,
    metric: str,
    points: Points | None,
    excess: float | None,
    notes: Sequence[str],
) -> Summary:
    """The summary of a clustering of these points."""
    sizes = np.bincount(clustering.cluster_of, minlength=clustering.num_clusters)
    if points is None:
        nothing = np.zeros(0, np.int64)
        return Summary(
            method, metric, sizes, nothing, nothing, None, None, excess, 0, 0, tuple(notes)
        )
    labels = clustering.cluster_of[points.items]
    vectors = points.vectors
    apart = squared_distances(vectors, means(vectors, labels, len(sizes)), labels)
    counts = np.bincount(labels, minlength=len(sizes))
    within = np.bincount(labels, apart.astype(np.float64), len(sizes)) / np.maximum(counts, 1)
    middle = vectors.mean(axis=0, dtype=np.float64)[None].astype(np.float32)
    total = squared_distances(vectors, middle, np.zeros(len(vectors), np.intp))
    return Summary(
        method, metric, sizes, within, counts, float(apart.sum(dtype=np.float64)),
        float(total.sum(dtype=np.float64)), excess, points.duplicates, len(points.without),
        tuple(notes),
    )  # fmt: skip
