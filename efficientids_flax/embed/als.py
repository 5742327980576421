"""Item vectors from interactions: alternating least squares for implicit feedback.

Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets" (2008): each pair
of a user and an item is preferred or not, with a confidence that grows with its count. Every step
solves its least squares problem exactly. Letters: U users, I items, N pairs, F factors.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

ENGINES = ("exact", "implicit")
ROOM = 1 << 22  # gathered factors in memory at a time, in numbers


class Pairs(NamedTuple):
    """Which user chose which item, how often; sorted by user, then item, without duplicates.

    Attributes:
        users, items: int [N].
        counts: float32 [N], above 0.
        num_users, num_items: U, I.
    """

    users: np.ndarray
    items: np.ndarray
    counts: np.ndarray
    num_users: int
    num_items: int

    @classmethod
    def of_events(
        cls, users: np.ndarray, items: np.ndarray, num_users: int, num_items: int
    ) -> Pairs:
        """Count events, which may be in any order and repeat."""
        keys = users.astype(np.int64) * num_items + items
        once, counts = np.unique(keys, return_counts=True)
        return cls(
            once // num_items, once % num_items, counts.astype(np.float32), num_users, num_items
        )


@dataclass(frozen=True)
class AlsOptions:
    """How to factor.

    Attributes:
        factors: F.
        regularization: weight of the squared norms of all factors.
        alpha: a pair that occurs r times has the weight 1 + alpha r; other pairs have 1.
        iterations: number of iterations; each solves for the users, then for the items.
        seed: seed of the initial factors of the items.
        engine: 'exact', or 'implicit', the package of that name, whose steps are approximate
            (conjugate gradients).
    """

    factors: int = 64
    regularization: float = 0.01
    alpha: float = 40.0
    iterations: int = 15
    seed: int = 0
    engine: Literal["exact", "implicit"] = "exact"

    def __post_init__(self) -> None:
        problems = [
            f"{name}: expected {least} or more, found {value}"
            + (", which is not finite" if value == math.inf else "")
            for name, least in (("factors", 1), ("regularization", 0), ("alpha", 0),
                                ("iterations", 1), ("seed", 0))
            if not least <= (value := getattr(self, name)) < math.inf
        ]  # fmt: skip
        if self.engine not in ENGINES:
            problems.append(f"engine: found {self.engine!r}, there are {', '.join(ENGINES)}")
        if problems:
            raise ValueError("\n  ".join(problems))


class Factors(NamedTuple):
    """Factors, float32 [U, F] and [I, F]; zeros for users and items in no pair."""

    users: np.ndarray
    items: np.ndarray


def factorize(pairs: Pairs, options: AlsOptions, items: np.ndarray | None = None) -> Factors:
    """Factors whose inner products predict preference.

    Args:
        pairs: pairs of the training split.
        options: see `AlsOptions`.
        items: initial factors, float [I, F]; None: random.

    Raises:
        ValueError: there are no pairs, or the equations cannot be solved in float64.
        ImportError: the engine is `implicit`, which is not installed.
    """
    if not len(pairs.users):
        raise ValueError("als: no interactions to factor")
    if not options.regularization and options.factors > min(pairs.num_users, pairs.num_items):
        raise ValueError(_unsolved(options))  # singular: NumPy's solution would be rounding errors
    if items is None:
        rng = np.random.default_rng(options.seed)
        items = rng.normal(0, 0.01, (pairs.num_items, options.factors))
    found = np.asarray(items, np.float32)
    if options.engine == "implicit":
        return _by_implicit(pairs, options, found)
    by_user = _grouped(pairs.users, pairs.items, pairs.counts, pairs.num_users)
    order = np.lexsort((pairs.users, pairs.items))
    by_item = _grouped(pairs.items[order], pairs.users[order], pairs.counts[order], pairs.num_items)
    users = np.zeros((0, options.factors), np.float32)
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # checked below
            for _ in range(options.iterations):
                users = _solved(by_user, found, options)
                found = _solved(by_item, users, options)
    except np.linalg.LinAlgError:
        raise ValueError(_unsolved(options)) from None
    if not (np.isfinite(users).all() and np.isfinite(found).all()):
        raise ValueError(_unsolved(options))
    return Factors(users, found)


def _unsolved(options: AlsOptions) -> str:
    return (
        "als: the equations have no solution in float64 with regularization"
        f" {options.regularization:g} and alpha {options.alpha:g}; give a larger regularization, a"
        " smaller alpha, or fewer factors"
    )


def objective(pairs: Pairs, factors: Factors, options: AlsOptions) -> float:
    """The objective: weighted squared errors of all U x I pairs, plus the regularized norms."""
    users, items = (array.astype(np.float64) for array in factors)
    scores = np.einsum("nf,nf->n", users[pairs.users], items[pairs.items])
    sure = 1 + options.alpha * pairs.counts.astype(np.float64)
    chosen = float((sure * (1 - scores) ** 2 - scores**2).sum())
    others = float(np.einsum("fg,fg->", users.T @ users, items.T @ items))
    norms = float((users**2).sum() + (items**2).sum())
    return chosen + others + options.regularization * norms


class _Grouped(NamedTuple):
    """Pairs grouped by row; those of row r begin at `first[r]`, `first` is [R + 1]."""

    first: np.ndarray
    others: np.ndarray
    counts: np.ndarray


def _grouped(rows: np.ndarray, others: np.ndarray, counts: np.ndarray, size: int) -> _Grouped:
    return _Grouped(np.searchsorted(rows, np.arange(size + 1)), others, counts)


def _solved(side: _Grouped, others: np.ndarray, options: AlsOptions) -> np.ndarray:
    """The optimal factors of each row, given those of the other side: float32 [R, F].

    Rows with similar numbers of pairs are solved together, padded with pairs of weight zero.
    """
    width = others.shape[1]
    sizes = np.diff(side.first)
    common = others.astype(np.float64).T @ others.astype(np.float64)
    common[np.diag_indices(width)] += options.regularization
    found = np.zeros((len(sizes), width), np.float32)
    order = np.argsort(sizes, kind="stable")
    order = order[np.searchsorted(sizes[order], 1) :]  # rows without pairs keep zeros
    start = 0
    while start < len(order):
        # As many rows as fit, all padded to the size of the largest, which is the last.
        stop = start + 1
        while (
            stop < len(order) and (stop + 1 - start) * sizes[order[stop]] * width <= ROOM
            and sizes[order[stop]] <= 2 * sizes[order[start]]
        ):  # fmt: skip
            stop += 1
        rows = order[start:stop]
        left, right = _sums(side, rows, int(sizes[rows[-1]]), others, options.alpha)
        found[rows] = np.linalg.solve(common + left, right[..., None])[..., 0]
        start = stop
    return found


def _sums(
    side: _Grouped, rows: np.ndarray, largest: int, others: np.ndarray, alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    """Contributions of some rows' pairs to both sides of their equations, float64."""
    width = others.shape[1]
    left = np.zeros((len(rows), width, width))
    right = np.zeros((len(rows), width))
    step = max(1, ROOM // (len(rows) * width))
    first, last = side.first[rows], side.first[rows + 1]
    for begin in range(0, largest, step):
        at = first[:, None] + np.arange(begin, min(begin + step, largest))
        there = at < last[:, None]
        at = np.where(there, at, 0)
        weights = np.where(there, np.float32(alpha) * side.counts[at], 0).astype(np.float32)
        gathered = others[side.others[at]]  # [r, n, F]
        left += np.matmul((gathered * weights[..., None]).swapaxes(1, 2), gathered)
        right += np.matmul((there + weights)[:, None, :], gathered)[:, 0]
    return left, right


def _by_implicit(pairs: Pairs, options: AlsOptions, items: np.ndarray) -> Factors:
    """Factor with the package `implicit`, from the same initial factors."""
    try:
        from implicit.cpu.als import (  # pyright: ignore[reportMissingImports]
            AlternatingLeastSquares,
        )
    except ImportError as error:
        raise ImportError(
            "engine implicit needs that package: pip install 'efficientids-flax[als]'"
        ) from error
    from scipy.sparse import csr_matrix

    sure = (1 + options.alpha * pairs.counts).astype(np.float32)
    matrix = csr_matrix(
        (sure, (pairs.users, pairs.items)), shape=(pairs.num_users, pairs.num_items)
    )
    model: Any = AlternatingLeastSquares(
        options.factors, options.regularization, 1.0, iterations=options.iterations,
        random_state=options.seed,
    )  # fmt: skip
    model.item_factors = items.copy()
    model.fit(matrix, show_progress=False)
    return Factors(np.asarray(model.user_factors), np.asarray(model.item_factors))
