"""Bootstrap intervals of means over users (Efron 1979): percentiles of resampled means.

Users are drawn with replacement, each with all of her questions, so that several questions of one
user do not count as independent. Letters: U users, M metrics, R resamples.
"""

from typing import NamedTuple

import numpy as np

AT_ONCE = 1 << 24  # numbers of a block of resamples


class Interval(NamedTuple):
    """A mean and its interval.

    Attributes:
        value: the mean over all questions.
        low, high: bounds of the interval; NaN with fewer than two users.
    """

    value: float
    low: float
    high: float


def bootstrap(
    sums: np.ndarray, weights: np.ndarray, *, resamples: int, level: float, seed: int
) -> list[Interval]:
    """Means with bootstrap intervals over users.

    Args:
        sums: float [U, M], sums over each user's questions.
        weights: float [U], weight of these questions.
        resamples: R; 0: no intervals.
        level: level of the intervals, such as 0.95; the percentiles are symmetric.
        seed: seed of the draws.

    Returns:
        For each metric: sum of the sums / sum of the weights; NaN if there are no questions.
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
