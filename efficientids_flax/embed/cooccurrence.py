"""Item vectors from which items occur near each other in users' sequences.

Levy and Goldberg, "Neural Word Embedding as Implicit Matrix Factorization" (2014), with items for
words: the positive pointwise mutual information of two items within a window, factored by its
largest singular values. This is what skip-gram approximates by sampling. Items that often follow
each other get similar vectors, which suits the clusters of a hierarchical softmax over the next
item.

Letters: I items, N events, F dimensions, R users.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_array

DENSE = 512  # most items for which the matrix is factored as a dense one


@dataclass(frozen=True)
class CooccurrenceOptions:
    """How to count and to factor.

    Attributes:
        width: F.
        window: largest distance of two items that counts; a pair at distance d counts 1 / d.
        negatives: log(negatives) is subtracted from the mutual information before taking its
            positive part, like that many negative samples of skip-gram; 1: no effect.
        seed: seed for the initial vector of the solver.

    Raises:
        ValueError: an option is out of range; names it.
    """

    width: int = 64
    window: int = 5
    negatives: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        problems = [
            f"{name}: expected {least} or more, found {getattr(self, name)}"
            for name, least in (("width", 1), ("window", 1), ("negatives", 1), ("seed", 0))
            if not getattr(self, name) >= least
        ]
        if problems:
            raise ValueError("\n  ".join(problems))


def cooccurrence_vectors(
    items: np.ndarray, begins: np.ndarray, ends: np.ndarray, num_items: int,
    options: CooccurrenceOptions,
) -> np.ndarray:  # fmt: skip
    """Vectors whose inner products approximate the mutual information of items.

    Args:
        items: int [N], the sequences of all users concatenated, each oldest first.
        begins, ends: int [R], where each user's training events begin and end in `items`.
        num_items: I.
        options: see `CooccurrenceOptions`.

    Returns:
        float32 [I, F]; zeros for items without positive mutual information.

    Raises:
        ValueError: no two items have positive mutual information.
    """
    information = mutual_information(
        counted(items, begins, ends, num_items, options.window), options.negatives
    )
    if not information.nnz:
        raise ValueError(
            "cooccurrence: no two items stand near each other more often than by chance; there is"
            " nothing to learn from (embed from als, or from text)"
        )
    width = min(options.width, num_items)
    left, values = _largest(information, width, options.seed)
    found = np.zeros((num_items, options.width), np.float32)
    # Signs of singular vectors are arbitrary: make the largest entry of each positive.
    signs = np.sign(left[np.abs(left).argmax(axis=0), np.arange(width)])
    found[:, :width] = left * signs * np.sqrt(np.maximum(values, 0.0))
    found[np.diff(information.indptr) == 0] = 0.0
    return found


def counted(
    items: np.ndarray, begins: np.ndarray, ends: np.ndarray, num_items: int, window: int
) -> csr_array:
    """Co-occurrence counts, float64 [I, I], symmetric; a pair at distance d counts 1 / d.

    Args:
        items, begins, ends, num_items: see `cooccurrence_vectors`.
        window: the largest d.
    """
    from scipy.sparse import coo_array, csr_array

    end_of = np.zeros(len(items), np.int64)  # 0: not a training event
    for begin, end in zip(begins, ends, strict=True):
        end_of[begin:end] = end
    total = csr_array((num_items, num_items))
    for distance in range(1, window + 1):
        first = np.arange(max(len(items) - distance, 0))
        first = first[first + distance < end_of[: len(first)]]
        weights = np.full(len(first), 1.0 / distance)
        pairs = (items[first], items[first + distance])
        one_way = coo_array((weights, pairs), shape=total.shape).tocsr()
        total = total + one_way + one_way.T
    return csr_array(total)


def mutual_information(counts: csr_array, negatives: float = 1.0) -> csr_array:
    """The positive part of log(P(i, j) / (P(i) P(j))) - log(negatives), float64 [I, I]."""
    from scipy.sparse import csr_array

    found = counts.tocoo()
    of_item = np.asarray(counts.sum(axis=1)).ravel()  # [I]
    expected = of_item[found.row] * of_item[found.col] / max(of_item.sum(), 1e-300)
    values = np.maximum(np.log(found.data / (expected * negatives)), 0.0)
    result = csr_array((values, (found.row, found.col)), shape=counts.shape)
    result.eliminate_zeros()
    return result


def _largest(matrix: Any, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest singular vectors [I, F] and values [F], in descending order."""
    if matrix.shape[0] <= max(DENSE, width + 1):
        left, values, _ = np.linalg.svd(matrix.toarray())
        return left[:, :width], values[:width]
    from scipy.sparse.linalg import svds

    start = np.random.default_rng(seed).normal(size=matrix.shape[0])
    given: Any = {"k": width, "v0": start, "return_singular_vectors": "u"}
    found: Any = svds(matrix, **given)
    left, values, _ = found
    order = np.argsort(-values)
    return left[:, order], values[order]
