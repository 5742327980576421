"""Bootstrap intervals of means over users (Efron 1979): percentiles of resampled means.

Users are drawn with replacement, each with all that was asked about her, so that several answers of
one user do not count as independent. Letters: U users, M metrics, R resamples.
"""

from typing import NamedTuple

import numpy as np

AT_ONCE = 1 << 24  # numbers of a block of resamples


class Interval(NamedTuple):
    """Of a mean.

    Attributes:
        value: the mean itself, over what was asked.
        low, high: of the interval; NaN where there are no two users.
    """

    value: float
    low: float
    high: float


def bootstrap(
    sums: np.ndarray, weights: np.ndarray, *, resamples: int, level: float, seed: int
) -> list[Interval]:
    """Means over users, and how far they may be off.

    Args:
        sums: float [U, M], of each user, over what was asked about her.
        weights: float [U], how much that was.
        resamples: R; 0: no intervals.
        level: of the intervals, such as 0.95: the percentiles are equally far from both ends.
        seed: of the draws.

    Returns:
        Of each metric: sum of the sums / sum of the weights. NaN where nothing was asked.
    """
    sums, weights = np.asarray(sums, np.float64), np.asarray(weights, np.float64)
    there = weights > 0
    sums, weights = sums[there], weights[there]
    users, metrics = sums.shape
    if not users:
        return [Interval(np.nan, np.nan, np.nan)] * metrics
    values = sums.sum(axis=0) / weights.sum()
    if users < 2 or not resamples:
        return [Interval(float(value), np.nan, np.nan) for value in values]
    rng, means = np.random.default_rng(seed), []
    size = max(1, AT_ONCE // users)
    for start in range(0, resamples, size):
        draws = rng.integers(0, users, (min(size, resamples - start), users))
        times = np.stack([np.bincount(draw, minlength=users) for draw in draws]).astype(np.float64)
        means.append(times @ sums / (times @ weights)[:, None])
    edges = (0.5 - level / 2.0, 0.5 + level / 2.0)
    low, high = np.quantile(np.concatenate(means), edges, axis=0)
    return [
        Interval(float(value), float(at), float(to))
        for value, at, to in zip(values, low, high, strict=True)
    ]
