"""Metrics of segments: cold and warm items, users with short and with long histories.

Letters: Q questions, M metrics, U users.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from efficientids_flax.evaluation.asking import Answers
from efficientids_flax.evaluation.metrics.intervals import Interval, bootstrap
from efficientids_flax.evaluation.options import EvaluationOptions


class Segment(NamedTuple):
    """Metrics of a segment.

    Attributes:
        name: name of the segment.
        by: 'all', 'items' or 'history': the property that defines it.
        users, questions, held_out: their numbers; held-out items of this segment only.
        metrics: name -> mean and its interval.
    """

    name: str
    by: str
    users: int
    questions: int
    held_out: int
    metrics: Mapping[str, Interval]


def segment(
    name: str,
    by: str,
    answers: Answers,
    options: EvaluationOptions,
    names: tuple[str, ...],
    *,
    kind: str = "all",
    chosen: np.ndarray | None = None,
) -> Segment:
    """Metrics of one segment.

    Args:
        name, by: see `Segment`.
        answers: answers to all questions.
        options: options of the evaluation.
        names: M names of metrics.
        kind: kind of held-out items that count, see `Answers.values`.
        chosen: bool [Q], questions in the segment; None: all.
    """
    values, number = answers.values[kind], answers.of_kind[kind]
    there = number > 0
    if chosen is not None:
        there &= chosen
    users, place = np.unique(answers.users[there], return_inverse=True)
    sums = np.zeros((len(users), values.shape[1]))
    np.add.at(sums, place, values[there].astype(np.float64))
    weights = np.bincount(place, minlength=len(users)).astype(np.float64)
    found = bootstrap(
        sums, weights, resamples=options.resamples, level=options.level, seed=options.seed
    )
    metrics = dict(zip(names, found, strict=True))
    return Segment(name, by, len(users), int(there.sum()), int(number[there].sum()), metrics)


def segments(
    answers: Answers, options: EvaluationOptions, names: tuple[str, ...]
) -> tuple[Segment, ...]:
    """All segments: by items (if training counts are known), and by the length of histories."""
    found = []
    for kind, told in (("warm", "warm items"), ("cold", "cold items")):
        if kind in answers.values:
            found.append(segment(told, "items", answers, options, names, kind=kind))
    short, long = _bounds(answers.lengths, options)
    lengths = answers.lengths
    parts = (
        (f"histories up to {short}", lengths <= short),
        (f"histories of {short + 1} to {long - 1}", (lengths > short) & (lengths < long)),
        (f"histories from {long}", lengths >= long),
    )
    for told, chosen in parts:
        if chosen.any():
            found.append(segment(told, "history", answers, options, names, chosen=chosen))
    return tuple(found)


def _bounds(lengths: np.ndarray, options: EvaluationOptions) -> tuple[int, int]:
    """(length of the longest short history, length of the shortest long one)."""
    third, two_thirds = np.quantile(lengths, [1 / 3, 2 / 3], method="inverted_cdf")
    short = int(third) if options.short is None else options.short
    long = int(two_thirds) + 1 if options.long is None else options.long
    return short, max(long, short + 1)
