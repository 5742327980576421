"""Assigns points to centers at the least cost, with limits on points per center, by prices.

Solves the dual of the transportation problem: each center has a price, and each point takes the
center with the least sum of distance and price. Prices come from Sinkhorn iterations with falling
temperature (Cuturi 2013, Schmitzer 2019), and are zero if a center is within its limits. Remaining
violations are repaired by moving the points that lose least. It is deterministic, and small cases
are solved exactly. Letters: N points, K centers, L nearest centers considered per point.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from efficientids_flax.cluster.centers import scored
from efficientids_flax.cluster.points import blocks

EXACT = 1 << 20  # largest matrix, in entries, that is solved exactly
NEAREST = 32  # L
TEMPERATURES = (0.3, 0.1, 0.03, 0.01)  # relative to the spread between a point's nearest centers
STEPS = 5  # at each temperature
ROOM = 1 << 22  # bytes of weights at a time


@dataclass(frozen=True)
class Limits:
    """Limits on the points of each center, the same for all.

    Attributes:
        least, most: 0 <= least <= most.
    """

    least: int
    most: int

    @classmethod
    def even(cls, points: int, centers: int) -> Limits:
        """Limits for sizes that differ by at most one."""
        return cls(points // centers, -(-points // centers))

    def check(self, points: int, centers: int) -> None:
        """Raise ValueError if no assignment can keep the limits."""
        if not self.least * centers <= points <= self.most * centers:
            raise ValueError(
                f"{points} items do not go into {centers} clusters of {self.least} to {self.most};"
                f" give {-(-points // max(self.most, 1))} clusters at least, or a larger size"
            )


class Transport(NamedTuple):
    """An assignment.

    Attributes:
        labels: int32 [N], within the limits.
        prices: float64 [K], in units of half squared distances; zeros if solved exactly.
        excess: upper bound on how far the sum of squared distances is above the optimum; 0 if
            solved exactly.
    """

    labels: np.ndarray
    prices: np.ndarray
    excess: float


def transported(
    points: np.ndarray,
    centers: np.ndarray,
    limits: Limits,
    prices: np.ndarray | None = None,
    *,
    exact: int = EXACT,
) -> Transport:
    """The cheapest assignment of points to centers within limits, or nearly so.

    Args:
        points: float32 [N, E].
        centers: float32 [K, E].
        limits: see `Limits`.
        prices: initial prices, from similar centers.
        exact: entries of the largest matrix that is solved exactly.

    Raises:
        ValueError: the limits cannot be kept.
    """
    limits.check(len(points), len(centers))
    limits = Limits(limits.least, min(limits.most, len(points)))
    if (len(centers) * limits.most) ** 2 <= exact:
        return Transport(_exact(points, centers, limits), np.zeros(len(centers)), 0.0)
    begun = np.zeros(len(centers)) if prices is None else prices
    # Prices of similar centers are nearly right; a high temperature would discard them.
    temperatures = TEMPERATURES if prices is None else TEMPERATURES[-2:]
    prices = _prices(_nearest_of(points, centers, begun), limits, begun, temperatures)
    labels, bound = _cheapest(points, centers, prices, limits)
    _spill(labels, points, centers, prices, limits)
    _pull(labels, points, centers, prices, limits)
    return Transport(labels, prices, max(2 * (_cost(points, centers, labels) - bound), 0.0))


class _Near(NamedTuple):
    """Nearest centers of each point, [N, L]: their indices, and half squared distances."""

    centers: np.ndarray
    costs: np.ndarray


def _nearest_of(points: np.ndarray, centers: np.ndarray, prices: np.ndarray) -> _Near:
    """The nearest centers of each point by distance plus price."""
    wanted = min(NEAREST, len(centers))
    shape = (len(points), wanted)
    near = _Near(np.empty(shape, np.int32), np.empty(shape, np.float32))
    charged = prices.astype(np.float32)
    for part, scores in scored(points, centers, prices):
        taken = np.argpartition(scores, wanted - 1, axis=1)[:, :wanted]
        costs = np.take_along_axis(scores, taken, axis=1) - charged[taken]
        near.centers[part] = taken
        near.costs[part] = costs - costs.min(axis=1, keepdims=True)  # only differences matter
    return near


def _prices(
    near: _Near, limits: Limits, prices: np.ndarray, temperatures: Sequence[float]
) -> np.ndarray:
    """Prices at which about as many points choose each center as it may have, float64 [K]."""
    spread = float(near.costs.max(axis=1).mean(dtype=np.float64)) or 1.0
    prices = prices.astype(np.float64)
    least = max(limits.least, 1e-3)
    for share in temperatures:
        warmth = share * spread
        for _ in range(STEPS):
            wanted = np.log(np.maximum(_wanted(near, prices, warmth), 1e-6))
            lowest = prices + warmth * (wanted - np.log(limits.most))
            highest = prices + warmth * (wanted - np.log(least))
            prices = np.clip(0.0, lowest, highest)
    return prices


def _wanted(near: _Near, prices: np.ndarray, warmth: float) -> np.ndarray:
    """The expected number of points that choose each center, float64 [K] (softmax)."""
    charged = (prices / warmth).astype(np.float32)

    def of(part: slice) -> np.ndarray:
        weights = near.costs[part] * np.float32(-1 / warmth)
        weights -= charged[near.centers[part]]
        weights -= weights.max(axis=1, keepdims=True)
        np.exp(weights, out=weights)
        weights /= weights.sum(axis=1, keepdims=True)
        return np.bincount(near.centers[part].ravel(), weights.ravel(), len(prices))

    found = np.zeros(len(prices))
    with ThreadPoolExecutor() as pool:  # NumPy releases the lock; summed in order
        for share in pool.map(of, blocks(len(near.costs), 8 * near.costs.shape[1], ROOM)):
            found += share
    return found


def _cheapest(
    points: np.ndarray, centers: np.ndarray, prices: np.ndarray, limits: Limits
) -> tuple[np.ndarray, float]:
    """(Each point's cheapest center, int32 [N]; the dual lower bound on the cost)."""
    labels, total = np.empty(len(points), np.int32), 0.0
    for part, scores in scored(points, centers, prices):
        labels[part] = scores.argmin(axis=1)
        total += float(scores.min(axis=1).sum(dtype=np.float64))
    # The most the prices can bring in: the dearest centers full, the others at the minimum.
    dearest = np.sort(prices)[::-1]
    room = limits.most - limits.least
    left = len(points) - limits.least * len(prices) - np.arange(len(prices)) * room
    return labels, total - float(dearest @ (limits.least + np.clip(left, 0, room)))


def _spill(
    labels: np.ndarray, points: np.ndarray, centers: np.ndarray, prices: np.ndarray, limits: Limits
) -> None:
    """Move points from overfull centers to those with room, in place; least loss first."""
    sizes = np.bincount(labels, minlength=len(centers))
    over = sizes - limits.most
    members = np.flatnonzero((over > 0)[labels])
    if not len(members):
        return
    lost, _ = _losses(members, labels, points, centers, prices, sizes < limits.most)
    order = np.lexsort((members, lost, labels[members]))  # cluster by cluster
    ordered = labels[members[order]]
    rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    leave = order[rank < over[ordered]]
    leave = members[leave[np.lexsort((members[leave], lost[leave]))]]
    for part, scores in scored(points[leave], centers, prices):
        for point, row in zip(leave[part], scores, strict=True):
            row[sizes >= limits.most] = np.inf
            target = row.argmin()
            sizes[labels[point]] -= 1
            labels[point] = target
            sizes[target] += 1


def _pull(
    labels: np.ndarray, points: np.ndarray, centers: np.ndarray, prices: np.ndarray, limits: Limits
) -> None:
    """Move points to centers with too few, in place, in rounds; least loss first."""
    sizes = np.bincount(labels, minlength=len(centers))
    while (lacking := limits.least - sizes).max() > 0:
        spare = np.flatnonzero((sizes > limits.least)[labels])
        lost, targets = _losses(spare, labels, points, centers, prices, lacking > 0)
        order = np.lexsort((spare, lost, targets))
        ordered = targets[order]
        rank = np.arange(len(order)) - np.searchsorted(ordered, ordered)
        for index in order[rank < lacking[ordered]]:
            home, target = labels[spare[index]], targets[index]
            if sizes[home] > limits.least:
                labels[spare[index]] = target
                sizes[home] -= 1
                sizes[target] += 1


def _losses(
    rows: np.ndarray, labels: np.ndarray, points: np.ndarray, centers: np.ndarray,
    prices: np.ndarray, open_to: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """(What each point loses by moving to the cheapest open center, float32; that center)."""
    lost, targets = np.empty(len(rows), np.float32), np.empty(len(rows), np.int32)
    chosen = np.flatnonzero(open_to)
    charged = np.einsum("ke,ke->k", centers, centers, dtype=np.float64) / 2 + prices
    for some in blocks(len(rows), 8 * points.shape[1]):
        these, mine = points[rows[some]], labels[rows[some]]
        own = charged[mine] - np.einsum("ne,ne->n", these, centers[mine])
        for part, scores in scored(these, centers[chosen], prices[chosen]):
            place = slice(some.start + part.start, some.start + part.stop)
            targets[place] = chosen[scores.argmin(axis=1)]
            lost[place] = scores.min(axis=1) - own[part]
    return lost, targets


def _exact(points: np.ndarray, centers: np.ndarray, limits: Limits) -> np.ndarray:
    """Solve by the Hungarian method: one column per place of a center, spare rows for free places.

    Places up to `least` must be filled, so spare rows are expensive there.
    """
    from scipy.optimize import linear_sum_assignment

    costs = np.concatenate([scores.astype(np.float64) for _, scores in scored(points, centers)])
    places = len(centers) * limits.most
    dear = (costs.max() - costs.min() + 1.0) * (len(points) + 1)
    free = np.where(np.arange(limits.most) < limits.least, dear, 0.0)
    matrix = np.empty((places, places))
    matrix[: len(points)] = np.repeat(costs, limits.most, axis=1)
    matrix[len(points) :] = np.tile(free, len(centers))
    taken = linear_sum_assignment(matrix)[1]
    return (taken[: len(points)] // limits.most).astype(np.int32)


def _cost(points: np.ndarray, centers: np.ndarray, labels: np.ndarray) -> float:
    """The cost as `_cheapest` counts it, without prices."""
    total = 0.0
    for part in blocks(len(points), 8 * points.shape[1]):
        mine = centers[labels[part]]
        total += float(np.einsum("ke,ke->", mine, mine, dtype=np.float64)) / 2
        total -= float(np.einsum("ne,ne->", points[part], mine, dtype=np.float64))
    return total
