"""Finds the cause of a difference by tests for the signatures of usual causes.

There are two kinds of tests. Closed ones only look at the two arrays: a constant factor, a constant
shift, a soft cap. Others run the model with a fault corrected (`corrections`): if the value then
agrees, that fault was the cause.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from efficientids_flax.settings import assumed
from parity_tests.check import compared, meant_pair
from parity_tests.compare import TOLERANCES, Difference, Wanted, rows_of, wanted
from parity_tests.finding import find_agreement
from parity_tests.hints.corrections import CORRECTIONS
from parity_tests.names import TABLES
from parity_tests.recording import Pass, Recording
from parity_tests.run import Found, Subject, run

CLOSE = TOLERANCES["float32"]["activations"]
MOST = 3  # hints for one difference
SECONDS = 60.0  # time for a search, if several settings are wrong at once


@dataclass(frozen=True)
class Hint:
    """A cause that fits.

    Attributes:
        cause: what is wrong, in words.
        advice: what to try.
    """

    cause: str
    advice: str


def find_hints(
    subject: Subject,
    recording: Recording,
    one: Pass,
    first: Difference,
    origins: Mapping[str, str] | None = None,
) -> list[Hint]:
    """Find causes that explain the first difference, the most certain first; often just one.

    Args:
        subject: the model, with the parameters that the pass belongs to.
        recording: the recording that was compared with.
        one: the pass in which the difference is.
        first: the first difference.
        origins: origins of the settings. If no single cause explains the difference, 'assumed'
            settings are searched for several that are wrong at once. None: no search.
    """
    found: list[Hint] = []
    subject = subject.in_dtype("float32")
    ours = run(subject, one, gradients=False)
    item = _item(subject, recording, one, first, ours)
    if item is None:
        return found
    for correction in CORRECTIONS:
        if not correction.fits(first.ours):
            continue
        for candidate in correction.candidates(subject, one, first):
            values = run(candidate.subject, candidate.one, gradients=False, only=item.needs)
            result = compared(item, candidate.subject, recording, one, values)
            if not result.fails and Hint(candidate.cause, candidate.advice) not in found:
                found.append(Hint(candidate.cause, candidate.advice))
                break
        if len(found) >= MOST:
            return found
    if not found and origins is not None:
        found += _together(subject, recording, one, origins)
    pair = meant_pair(item, subject, ours.values)
    if pair is not None and item.row is not None:
        rows = rows_of(item.row.axes, pair[1].shape, one)
        found += list(_closed(subject, *pair, rows))
    return found[:MOST]


def _together(
    subject: Subject, recording: Recording, one: Pass, origins: Mapping[str, str]
) -> Iterator[Hint]:
    """Search for several assumed settings that together make everything agree."""
    if not assumed(subject.config, origins):
        return
    try:
        agreed = find_agreement(subject, recording, one, origins, seconds=SECONDS, partly=False)
    except ValueError:  # the batch does not fit the model, which no setting can explain
        return
    changed = [verdict for verdict in agreed.verdicts if verdict.value != verdict.before]
    if agreed.agrees and changed:
        advice = " ".join(
            f"--set {verdict.key}={json.dumps(verdict.value).strip(chr(34))}" for verdict in changed
        )
        yield Hint(f"{len(changed)} settings are others", advice)


def _item(
    subject: Subject, recording: Recording, one: Pass, first: Difference, ours: Found
) -> Wanted | None:
    """The recorded value that has the difference."""
    items = wanted(one, TABLES[recording.names], subject.backbone, ours.values)
    return next((i for i in items if i.name == first.name and i.row is not None), None)


def _closed(
    subject: Subject, ours: np.ndarray, recorded: np.ndarray, rows: np.ndarray | None
) -> Iterator[Hint]:
    """Hints from the two arrays alone."""
    if ours.dtype.kind != "f" or recorded.dtype.kind != "f" or not ours.size:
        return
    use = np.isfinite(recorded) & np.isfinite(ours)
    use &= True if rows is None else np.broadcast_to(rows, recorded.shape)
    if not np.any(use):
        return
    mine, want = ours[use].astype(np.float64), recorded[use].astype(np.float64)
    largest = float(np.max(np.abs(want)))
    if not largest:
        return
    factor = float(mine @ want) / max(float(mine @ mine), 1e-300)
    if np.max(np.abs(factor * mine - want)) <= CLOSE * largest:
        yield Hint(f"the recorded value is {factor:.6g} times ours{_named(subject, factor)}",
                   "look for a scale that one of the two lacks")  # fmt: skip
        return
    cap = _cap(mine, want)
    if cap is not None:
        yield Hint(f"the recorded value is ours under a soft cap of {cap:.6g}",
                   f"set the cap of this value to {cap:.6g}")  # fmt: skip
        return
    cap = _cap(want, mine)
    if cap is not None:
        yield Hint(f"ours is the recorded value under a soft cap of {cap:.6g}",
                   "set the cap of this value to null")  # fmt: skip
        return
    shift = np.where(use, recorded, 0).astype(np.float64) - np.where(use, ours, 0)
    whole = use.all(axis=tuple(range(2, use.ndim)))  # positions [B, T]
    if shift.ndim >= 3 and np.any(whole):
        shifts = shift[whole]
        if np.max(np.abs(shifts - shifts.mean(0))) <= CLOSE * largest:
            yield Hint(
                "the difference is the same at every position: a bias that one of the two lacks",
                "check the bias of this projection, and its rule",
            )


def _named(subject: Subject, factor: float) -> str:
    """Name the model's number that equals a factor."""
    backbone = subject.backbone
    names = {
        "sqrt(D)": math.sqrt(backbone.model_dims),
        "1 / sqrt(D)": 1 / math.sqrt(backbone.model_dims),
        "sqrt(H)": math.sqrt(backbone.head_dim),
        "1 / sqrt(H)": 1 / math.sqrt(backbone.head_dim),
    }
    return next(
        (f", which is {n}" for n, v in names.items() if math.isclose(v, factor, rel_tol=1e-4)), ""
    )


def _cap(plain: np.ndarray, capped: np.ndarray) -> float | None:
    """The cap c with capped = c tanh(plain / c); None if there is none."""
    place = int(np.argmax(np.abs(plain)))
    top, below = abs(float(plain[place])), abs(float(capped[place]))
    if not 0 < below < top * (1 - 1e-6):
        return None
    low, high = below, below * 1e6
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if middle * math.tanh(top / middle) > below else (middle, high)
    cap = round(math.sqrt(low * high), 3)
    near = np.max(np.abs(cap * np.tanh(plain / cap) - capped)) <= CLOSE * np.max(np.abs(capped))
    return cap if near else None
