"""Decides how far a row of a forecast may differ, and whether it does.

The forecast of a series is compared relative to the largest magnitude of its row. Letters: B
series.
"""

from dataclasses import replace

import numpy as np

from parity_tests.compare import Difference, distance, judged, tolerance

# E[x^2] - mean^2 in float32 has an error of about 6e-8 (mean / deviation)^2 of the variance, which
# depends on compilation and machine. So a deviation may differ by three such roundings.
CANCELS = 2e-7
LIMIT = tolerance("activations", "float32")


def allowed_rows(ratios: np.ndarray) -> np.ndarray:
    """The relative tolerance of each row, float64 [B].

    Args:
        ratios: (mean / deviation)^2 of the statistics that a row is normalised with: [B], or [K, B]
            for K steps, whose errors carry over to all later steps.
    """
    ratios = np.asarray(ratios, np.float64)
    return LIMIT + CANCELS * (ratios.sum(0) if ratios.ndim == 2 else ratios)


def compared_rows(
    base: Difference, ours: np.ndarray, recorded: np.ndarray, allowed: np.ndarray | float = LIMIT
) -> Difference:
    """Compare a recorded array with ours, by the row that is worst relative to its limit.

    Args:
        base: the entry to fill in.
        ours, recorded: [B, ...].
        allowed: [B], or one number for all rows.
    """
    if ours.shape != recorded.shape:
        return replace(base, verdict="SHAPE", note=f"ours is {list(ours.shape)}")
    if not recorded.ndim or not recorded.size:
        return judged(base, distance(ours, recorded), float(np.max(allowed)))
    limits = np.broadcast_to(np.asarray(allowed, np.float64), recorded.shape[:1])
    gaps = [distance(mine, theirs) for mine, theirs in zip(ours, recorded, strict=True)]
    shares = [gap.relative / limit for gap, limit in zip(gaps, limits, strict=True)]
    worst = int(np.argmax(shares))
    found = judged(base, gaps[worst], float(limits[worst]))
    if limits[worst] > 2 * LIMIT and not found.note:
        found = replace(found, note=f"row {worst}: its mean is many deviations from zero")
    elif found.fails and not found.note:
        found = replace(found, note=f"row {worst} is the worst")
    return found


def missing(base: Difference, reason: str) -> Difference:
    """The entry for a recorded value that our model does not have."""
    return replace(base, verdict="UNKNOWN", note=reason)
