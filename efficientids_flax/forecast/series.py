"""Prepares series: checks them, fills gaps, scales, splits, and batches them."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

TINY = 1e-6  # a deviation below which a series is not scaled, as in `timesfm`
SHOWN = 10  # series that a message names


class Series(NamedTuple):
    """Series by name, float64, without gaps."""

    names: tuple[str, ...]
    values: tuple[np.ndarray, ...]


class Batch(NamedTuple):
    """A batch with padding in front, float32 [B, T]; `paddings` [B, T] is 1 for padding."""

    series: np.ndarray
    paddings: np.ndarray


def read_series(given: Sequence[Any] | Mapping[Any, Any] | np.ndarray) -> Series:
    """Series of any lengths; leading NaN are dropped, others interpolated between neighbours.

    Same as `timesfm` 1.3; trailing NaN get the last value. Infinite values are an error here; the
    original treats them as NaN. Masked values of NumPy's masked arrays count as NaN.

    Args:
        given: 1-D arrays: a list, a dict by name, or the rows of a matrix.

    Raises:
        ValueError: lists every series that is empty, all NaN, infinite, or not a row of numbers.
    """
    pairs = given.items() if isinstance(given, Mapping) else enumerate(given)
    named = [(str(n) if isinstance(given, Mapping) else f"series {n}", one) for n, one in pairs]
    if not named:
        raise ValueError("series: found none; give a list of arrays")
    problems: list[str] = []
    values: list[np.ndarray] = []
    for name, one in named:
        try:
            array = np.array(one, np.float64)
            array[np.ma.getmaskarray(one)] = np.nan
        except (TypeError, ValueError) as error:
            problems.append(f"{name}: holds no numbers ({error})")
            continue
        if array.ndim != 1:
            problems.append(f"{name}: found shape {list(array.shape)}, expected one axis")
        elif not array.size:
            problems.append(f"{name}: is empty")
        elif np.isinf(array).any():
            place = int(np.argmax(np.isinf(array)))
            problems.append(f"{name}: point {place} is {array[place]}; give finite values, or NaN")
        elif np.isnan(array).all():
            problems.append(f"{name}: is all NaN")
        else:
            values.append(filled(array))
    if problems:
        shown = problems[:SHOWN]
        rest = [f"... and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise ValueError("\n  ".join([f"{len(problems)} series cannot be used:", *shown, *rest]))
    return Series(tuple(name for name, _ in named), tuple(values))


def filled(values: np.ndarray) -> np.ndarray:
    """Drop leading NaN, and interpolate the others linearly."""
    gaps = np.isnan(values)
    if not gaps.any():
        return values
    values, gaps = values[np.argmin(gaps) :].copy(), gaps[np.argmin(gaps) :]
    places = np.arange(len(values))
    values[gaps] = np.interp(places[gaps], places[~gaps], values[~gaps])
    return values


def scaled(values: np.ndarray) -> tuple[np.ndarray, float, float]:
    """(scaled series, mean, deviation): minus mean, divided by deviation (1 if that is tiny)."""
    mean, deviation = float(np.mean(values)), float(np.std(values))
    deviation = deviation if deviation > TINY else 1.0
    return (values - mean) / deviation, mean, deviation


def parted(values: np.ndarray, window: int) -> tuple[np.ndarray, np.ndarray]:
    """(moving average over the last `window` points, with zeros before the first; the rest)."""
    before = np.concatenate([np.zeros(window - 1), values])
    smooth = np.convolve(before, np.ones(window), "valid") / window
    return smooth, values - smooth


def side_by_side(values: Sequence[np.ndarray], length: int) -> Batch:
    """The last `length` points of each series; shorter ones get zeros in front, as padding."""
    series = np.zeros((len(values), length), np.float32)
    paddings = np.ones((len(values), length), np.float32)
    for row, one in enumerate(values):
        tail = one[-length:]
        series[row, length - len(tail) :] = tail
        paddings[row, length - len(tail) :] = 0
    return Batch(series, paddings)
