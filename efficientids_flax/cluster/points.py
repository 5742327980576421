"""Prepares item vectors for clustering, and reports what is wrong with them.

Letters: I items, N items that have a vector, E item width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from efficientids_flax.text import first_of

Metric = Literal["l2", "cosine"]
METRICS: tuple[Metric, ...] = ("l2", "cosine")
FAR = 40  # largest exponent of two for which sums of squares are safe in float32
BLOCK = 1 << 24  # bytes processed at once


@dataclass(frozen=True)
class Points:
    """Input of a clustering method.

    Attributes:
        vectors: float32 [N, E]; under 'cosine' of length one, else the given array or a copy,
            perhaps scaled by a power of two.
        items: int64 [N], the item of each vector, ascending.
        without: int64 [I - N], items without a vector: rows that are zero or not finite.
        duplicates: how many of the N have the same vector as an earlier item.
        notes: findings for people.
    """

    vectors: np.ndarray
    items: np.ndarray
    without: np.ndarray
    duplicates: int
    notes: tuple[str, ...]


def points_of(
    embeddings: np.ndarray, metric: Metric = "l2", *, spread_nonfinite: bool = False
) -> Points:
    """Select and prepare the vectors that can be clustered.

    Args:
        embeddings: floats [I, E].
        metric: 'l2' takes them as they are, 'cosine' scales them to length one.
        spread_nonfinite: treat rows with NaN or infinities as items without a vector.

    Raises:
        ValueError: not [I, E] floats; rows that are not finite although `spread_nonfinite` is not
            set; no item with a vector.
    """
    if embeddings.ndim != 2 or embeddings.dtype.kind != "f" or not embeddings.size:
        raise ValueError(
            f"embeddings: found {list(embeddings.shape)} of {embeddings.dtype}, expected [I, E]"
            " floats"
        )
    finite, zero = _kinds(embeddings)
    notes = []
    if not finite.all():
        rows = np.flatnonzero(~finite)
        told = f"{len(rows)} of {len(finite)} rows are not finite ({first_of(rows.tolist())})"
        if embeddings.dtype == np.float64:
            told += " in float32"
        if not spread_nonfinite:
            raise ValueError(
                f"embeddings: {told}; correct them, or treat them as items without a vector"
                " (`nonfinite` spread)"
            )
        notes.append(f"{told}; taken as items without a vector")
    zero &= finite
    if zero.any():
        rows = np.flatnonzero(zero)
        notes.append(f"{len(rows)} of {len(zero)} rows are zeros ({first_of(rows.tolist())})")
    there = finite & ~zero
    items = np.flatnonzero(there)
    if not len(items):
        raise ValueError("embeddings: no item has a vector; cluster at random, or by frequency")
    chosen = embeddings if there.all() else embeddings[items]
    vectors = np.asarray(chosen, np.float32)
    if metric == "cosine":
        vectors = vectors / _lengths(vectors)[:, None]
    elif exponent := _far(vectors):
        vectors = np.ldexp(vectors, -exponent)  # scaling all vectors does not change clusters
        notes.append(
            f"vectors are scaled by 2^{-exponent}, as their squares do not fit float32; so is the"
            " inertia"
        )
    duplicates = len(items) - _distinct(vectors)
    if duplicates:
        notes.append(f"{duplicates} items have the same vector as an item before them")
    without = np.flatnonzero(~there)
    if len(without):
        notes.append(
            f"{len(without)} items without a vector are dealt to the smallest clusters, by their id"
        )
    return Points(vectors, items, without, duplicates, tuple(notes))


def blocks(rows: int, row_bytes: int, most: int = BLOCK) -> list[slice]:
    """Slices of rows that need at most `most` bytes each."""
    step = max(1, most // max(row_bytes, 1))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def _kinds(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Whether each row is finite, and whether it is all zeros, in float32."""
    finite, zero = (np.empty(len(embeddings), bool) for _ in range(2))
    for part in blocks(*_form(embeddings)):
        with np.errstate(over="ignore"):
            rows = embeddings[part].astype(np.float32, copy=False)
        finite[part] = np.isfinite(rows).all(axis=1)
        zero[part] = ~rows.any(axis=1)
    return finite, zero


def _far(vectors: np.ndarray) -> int:
    """Exponent of the largest number, if its square would be too large or small; else 0."""
    exponent = int(np.frexp(max(-float(vectors.min()), float(vectors.max())))[1])
    return exponent if abs(exponent) > FAR else 0


def _lengths(vectors: np.ndarray) -> np.ndarray:
    """Length of each row, float32; divides by its largest number first against overflow."""
    lengths = np.empty(len(vectors), np.float32)
    for part in blocks(*_form(vectors)):
        largest = np.abs(vectors[part]).max(axis=1)
        scaled = vectors[part] / largest[:, None]
        lengths[part] = largest * np.sqrt(np.einsum("ne,ne->n", scaled, scaled))
    return lengths


def _distinct(vectors: np.ndarray) -> int:
    """The number of distinct rows, by 64-bit hashes."""
    factors = np.random.default_rng(0).integers(1, 1 << 63, vectors.shape[1], dtype=np.uint64) | 1
    hashed = np.empty(len(vectors), np.uint64)
    for part in blocks(*_form(vectors)):
        bits = (vectors[part] + np.float32(0)).view(np.uint32).astype(np.uint64)  # makes -0 equal 0
        bits ^= bits << np.uint64(29)
        bits *= factors
        bits ^= bits >> np.uint64(32)
        hashed[part] = (bits * factors[::-1]).sum(axis=1, dtype=np.uint64)
    return len(np.unique(hashed))


def _form(array: np.ndarray) -> tuple[int, int]:
    return len(array), array.shape[1] * 8
