"""Metrics of parts of the questions: cold and warm items, users with short and with long histories.

Letters: Q questions, M metrics, U users.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from efficientids_flax.evaluation.asking import Answers
from efficientids_flax.evaluation.metrics.intervals import Interval, bootstrap
from efficientids_flax.evaluation.options import EvaluationOptions


class Segment(NamedTuple):
    """Metrics of a part.

    Attributes:
        name: what it is.
        by: 'all', 'items' or 'history', what it is a part by.
        users, questions, held_out: how many there are; held-out items of this part alone.
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
    """Metrics of some questions.

    Args:
        name, by: of the segment.
        answers: of all.
        options: of the evaluation.
        names: M, of the metrics.
        kind: of the held-out items that count, see `Answers.values`.
        chosen: bool [Q], questions that belong to it; None: all.
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
    """All parts that are there: of items where it is known what was trained on, of histories."""
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
    """The longest short history, and the shortest long one."""
    third, two_thirds = np.quantile(lengths, [1 / 3, 2 / 3], method="inverted_cdf")
    short = int(third) if options.short is None else options.short
    long = int(two_thirds) + 1 if options.long is None else options.long
    return short, max(long, short + 1)
