"""How far a row of a forecast may be off, and whether it is.

A series' forecast is compared relative to the largest magnitude of its row. Letters: B series.
"""

from dataclasses import replace

import numpy as np

from parity_tests.compare import Difference, distance, judged, tolerance

# E[x^2] - mean^2 in float32 is off by about 6e-8 (mean / deviation)^2 of the variance, and gives
# other digits compiled, uncompiled and on other machines: a deviation by three roundings of that.
CANCELS = 2e-7
LIMIT = tolerance("activations", "float32")


def allowed_rows(ratios: np.ndarray) -> np.ndarray:
    """float64 [B], relative.

    Args:
        ratios: (mean / deviation)^2 of what a row is normalised by: [B], or [K, B] of K steps,
            whose errors go on into all that follow.
    """
    ratios = np.asarray(ratios, np.float64)
    return LIMIT + CANCELS * (ratios.sum(0) if ratios.ndim == 2 else ratios)


def compared_rows(
    base: Difference, ours: np.ndarray, recorded: np.ndarray, allowed: np.ndarray | float = LIMIT
) -> Difference:
    """A recorded array against ours; the row that is nearest to what it may be off, or beyond it.

    Args:
        base: what it is; `ok` so far.
        ours, recorded: [B, ...].
        allowed: [B] or one for all.
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
    """A recorded value that ours does not have."""
    return replace(base, verdict="UNKNOWN", note=reason)
