"""Measures how far an array is from the recorded one, and whether that is allowed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from parity_tests.compare.tolerances import FURTHER, HALF, HUGE, MANY, ROUNDING

Verdict = Literal["ok", "DIFFERS", "MISSING", "UNKNOWN", "SHAPE", "ignored", "not run"]
FAILURES = ("DIFFERS", "MISSING", "UNKNOWN", "SHAPE")

EXACT_DTYPE = "float32"  # the dtype that half precision is compared with


@dataclass(frozen=True)
class Difference:
    """The comparison of one recorded value.

    Attributes:
        section: the pass that it belongs to, or 'step n'.
        name: recorded name; for stacked layers, followed by the layer.
        ours: path of our value.
        kind: 'activations', 'loss', 'metrics', 'gradients', 'parameters', 'optimizer'.
        verdict: result of the comparison.
        shape: shape of the recorded array.
        layer: number of the layer; None outside of the layers.
        absolute: largest difference.
        relative: largest difference, relative to the largest magnitude of the recorded array.
        ulps: largest difference, in roundings (units in the last place).
        allowed: largest allowed `relative`.
        note: a remark, in words.
    """

    section: str
    name: str
    ours: str
    kind: str
    verdict: Verdict
    shape: tuple[int, ...] = ()
    layer: int | None = None
    absolute: float = 0.0
    relative: float = 0.0
    ulps: float = 0.0
    allowed: float = 0.0
    note: str = ""

    @property
    def fails(self) -> bool:
        """Whether it makes the comparison fail."""
        return self.verdict in FAILURES


@dataclass(frozen=True)
class Distance:
    """The distance of two arrays, see `Difference`; `note` says what else is wrong."""

    absolute: float
    relative: float
    ulps: float
    note: str = ""


def first_failure(differences: Sequence[Difference]) -> Difference | None:
    """The first entry, in the order of computation, that fails; None if none does."""
    return next((difference for difference in differences if difference.fails), None)


def distance(ours: np.ndarray, recorded: np.ndarray, rows: np.ndarray | None = None) -> Distance:
    """Largest difference of two arrays of one shape.

    Args:
        ours, recorded: arrays of any numbers.
        rows: bool, broadcasts to the arrays: what to compare; None for everything.

    Returns:
        The distance. Values that are not finite or beyond 1e30 must be at the same places with the
        same sign (NaN must match NaN, and finite values must match up to a rounding). Otherwise the
        relative difference is infinite. Such values do not count for the magnitude.
    """
    if not (_inexact(ours) and _inexact(recorded)):
        return _unequal(ours, recorded, rows)
    digits = np.float64 if recorded.dtype == np.float64 else np.float32
    got, want = np.asarray(ours, np.float64), np.asarray(recorded, np.float64)
    blocked = _blocked(want)
    wrong = (_blocked(got) != blocked) | (
        blocked & (np.isnan(got) != np.isnan(want)) | blocked & (np.sign(got) == -np.sign(want))
    )
    wrong |= blocked & (np.isinf(got) != np.isinf(want))
    wrong |= _other_mask(got, want)
    here = np.ones(want.shape, bool) if rows is None else np.broadcast_to(rows, want.shape)
    if np.any(wrong & here):
        count = int(np.sum(wrong & here))
        note = f"{count} value(s) are masked, infinite or NaN in only one of the two, or otherwise"
        return Distance(np.inf, np.inf, np.inf, note)
    use = here & ~blocked
    if not np.any(use):
        return Distance(0.0, 0.0, 0.0)
    off = np.where(use, np.abs(np.where(use, got, 0) - np.where(use, want, 0)), 0.0)
    magnitude = float(np.max(np.abs(want), where=use, initial=0.0))
    place = np.unravel_index(np.argmax(off), off.shape)
    worst = float(off[place])
    if worst == 0:
        return Distance(0.0, 0.0, 0.0)
    relative = worst / magnitude if magnitude else np.inf
    spacing = float(np.spacing(np.abs(np.asarray(want[place], digits))))
    return Distance(worst, relative, worst / spacing)


def half_distance(
    ours: np.ndarray,
    recorded: np.ndarray,
    exact: np.ndarray,
    rows: np.ndarray | None = None,
    *,
    guard: bool = True,
) -> tuple[Distance, float]:
    """Measure a computation in half precision, and what is allowed for it.

    Errors are root mean squares, relative to the largest magnitude, because the largest of many
    roundings is random.

    Args:
        ours, recorded: results of the half-precision runs.
        exact: the value in float32.
        rows: see `distance`.
        guard: whether to fail if the recording is much further off than our rounding (it is then
            of another computation), or if a single value of ours stands out. Off for parameters:
            Adam turns the rounding of a gradient into whole steps, so this shows nothing there.

    Returns:
        (error of ours from float32, 1.5 times the recording's own error).
    """
    error, own = distance(ours, exact, rows), distance(recorded, exact, rows)
    if not _inexact(recorded) or np.inf in (error.relative, own.relative):
        return error, HALF * own.relative
    mean, its_mean = (_mean_square(values, exact, rows) for values in (ours, recorded))
    allowed = HALF * _chance(recorded.size) * its_mean
    note = ""
    if guard and its_mean > FURTHER * max(mean, ROUNDING):
        note = f"the recording is {its_mean:.1e} off float32, ours {mean:.1e} (mean squares)"
    elif guard and error.relative > FURTHER * max(own.relative, ROUNDING):
        note = f"ours is {error.relative:.1e} off float32, the recording {own.relative:.1e}"
    found = Distance(error.absolute, np.inf if note else mean, error.ulps, note)
    return found, allowed


def _chance(count: int) -> float:
    """Factor for few values: their mean square has a standard error of 1 / sqrt(2 n); allow two."""
    return 1.0 if count >= MANY else 1 + 2 / math.sqrt(2 * max(count, 1))


def _mean_square(values: np.ndarray, exact: np.ndarray, rows: np.ndarray | None) -> float:
    """Root mean square of the differences, relative to the largest magnitude."""
    got, want = np.asarray(values, np.float64), np.asarray(exact, np.float64)
    use = ~_blocked(want)
    use &= True if rows is None else np.broadcast_to(rows, want.shape)
    off = np.where(use, np.where(use, got, 0) - np.where(use, want, 0), 0)
    largest = float(np.max(np.abs(want), where=use, initial=0.0))
    root = float(np.sqrt(np.sum(off**2) / max(int(np.sum(use)), 1)))
    return root / largest if largest else float(root > 0)


def _unequal(ours: np.ndarray, recorded: np.ndarray, rows: np.ndarray | None) -> Distance:
    """For integers and truth values: the share that is not equal."""
    off = np.asarray(ours) != np.asarray(recorded)
    here = np.ones(off.shape, bool) if rows is None else np.broadcast_to(rows, off.shape)
    count = int(np.sum(off & here))
    share = count / max(int(np.sum(here)), 1)
    gap = np.abs(np.asarray(ours, np.float64) - np.asarray(recorded, np.float64))
    worst = float(np.max(gap, where=off & here, initial=0.0))
    return Distance(worst, share, float(count), f"{count} not equal" if count else "")


def _inexact(values: np.ndarray) -> bool:
    """Whether the values are floats, including those of `ml_dtypes`."""
    return values.dtype.kind not in "iub"


def _other_mask(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """Where both values are finite and beyond 1e30, but differ by more than a rounding."""
    both = _blocked(want) & np.isfinite(got) & np.isfinite(want)
    mine, recorded = np.where(both, got, 0), np.where(both, want, 0)
    return np.abs(mine - recorded) > ROUNDING * np.abs(recorded)


def _blocked(values: np.ndarray) -> np.ndarray:
    return ~np.isfinite(values) | (np.abs(values) > HUGE)


def judged(base: Difference, found: Distance, allowed: float) -> Difference:
    """The difference with its numbers and verdict filled in."""
    verdict = "ok" if found.relative <= allowed else "DIFFERS"
    return replace(
        base,
        verdict=verdict,
        absolute=found.absolute,
        relative=found.relative,
        ulps=found.ulps,
        allowed=allowed,
        note=found.note or base.note,
    )
