"""Item vectors made ready to be clustered: what is wrong with them is counted, and said.

Letters: I items, N items that have a vector, E item width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from efficientids_flax.text import first_of

Metric = Literal["l2", "cosine"]
METRICS: tuple[Metric, ...] = ("l2", "cosine")
FAR = 40  # powers of two, up to which sums of float32 squares are far from both ends
BLOCK = 1 << 24  # bytes looked at together


@dataclass(frozen=True)
class Points:
    """What a method is given.

    Attributes:
        vectors: float32 [N, E], of length one under 'cosine', else perhaps those that were given,
            or by a power of two.
        items: int64 [N], the row of each among all items, ascending.
        without: int64 [I - N], items with no vector: rows of zeros, or not finite.
        duplicates: how many of the N have the very vector of an item before them.
        notes: what was found, for people.
    """

    vectors: np.ndarray
    items: np.ndarray
    without: np.ndarray
    duplicates: int
    notes: tuple[str, ...]


def points_of(
    embeddings: np.ndarray, metric: Metric = "l2", *, spread_nonfinite: bool = False
) -> Points:
    """The vectors that can be clustered.

    Args:
        embeddings: floats [I, E].
        metric: 'l2' takes them as they are, 'cosine' at length one.
        spread_nonfinite: take rows with NaN or infinities as items without a vector.

    Raises:
        ValueError: not [I, E] floats; rows that are not finite and `spread_nonfinite` is not set;
            no item with a vector.
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
        vectors = np.ldexp(vectors, -exponent)  # which moves none to another cluster
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
    """Slices of rows that need at most so many bytes together."""
    step = max(1, most // max(row_bytes, 1))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


def _kinds(embeddings: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each row whether it is finite, and whether it is all zeros, in float32."""
    finite, zero = (np.empty(len(embeddings), bool) for _ in range(2))
    for part in blocks(*_form(embeddings)):
        with np.errstate(over="ignore"):
            rows = embeddings[part].astype(np.float32, copy=False)
        finite[part] = np.isfinite(rows).all(axis=1)
        zero[part] = ~rows.any(axis=1)
    return finite, zero


def _far(vectors: np.ndarray) -> int:
    """The power of two of the largest number, where its square is too large or small; else 0."""
    exponent = int(np.frexp(max(-float(vectors.min()), float(vectors.max())))[1])
    return exponent if abs(exponent) > FAR else 0


def _lengths(vectors: np.ndarray) -> np.ndarray:
    """Of each row, float32; of their largest number first, so that no square overflows."""
    lengths = np.empty(len(vectors), np.float32)
    for part in blocks(*_form(vectors)):
        largest = np.abs(vectors[part]).max(axis=1)
        scaled = vectors[part] / largest[:, None]
        lengths[part] = largest * np.sqrt(np.einsum("ne,ne->n", scaled, scaled))
    return lengths


def _distinct(vectors: np.ndarray) -> int:
    """How many rows differ, by 64 bits a row."""
    factors = np.random.default_rng(0).integers(1, 1 << 63, vectors.shape[1], dtype=np.uint64) | 1
    hashed = np.empty(len(vectors), np.uint64)
    for part in blocks(*_form(vectors)):
        bits = (vectors[part] + np.float32(0)).view(np.uint32).astype(np.uint64)  # -0 is 0
        bits ^= bits << np.uint64(29)
        bits *= factors
        bits ^= bits >> np.uint64(32)
        hashed[part] = (bits * factors[::-1]).sum(axis=1, dtype=np.uint64)
    return len(np.unique(hashed))


def _form(array: np.ndarray) -> tuple[int, int]:
    return len(array), array.shape[1] * 8
