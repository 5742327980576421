"""The whole evaluation: metrics with intervals, for all users and by segments.

found = evaluate(Ranker(model, params), histories, held_out)
found.metrics["ndcg_at_10"]                          # Interval(value=0.09, low=..., high=...)
write_report("reports/first", found)
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from efficientids_flax.array_checks import described
from efficientids_flax.evaluation.asking import Answers, Ask, Recommender, answers, asks
from efficientids_flax.evaluation.metrics.catalogue import average_popularity, coverage, gini
from efficientids_flax.evaluation.metrics.intervals import Interval
from efficientids_flax.evaluation.metrics.lists import METRICS
from efficientids_flax.evaluation.options import EvaluationOptions
from efficientids_flax.evaluation.questions import Questions, of_batches, of_histories
from efficientids_flax.evaluation.segments import Segment, segment, segments
from efficientids_flax.inference.prompts import History
from efficientids_flax.inference.ranker import Ranker

CURVE = 101  # points of a Lorenz curve


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        options: options of the evaluation.
        num_items: I, size of the catalogue.
        whole: metrics over all users, with counts.
        catalogue: 'coverage_at_10', ... -> metrics of all lists together; popularity if known.
        segments: the same metrics for each segment.
        places: number of lists with their first hit at each place, from the first on.
        curve: Lorenz curve of the largest cutoff: share of all places that the least shown items
            take, at shares of the catalogue from 0 to 1 in steps of 0.01.
        empty: number of lists without any item, for example if scores are NaN.
        notes: messages for the reader.
    """

    options: EvaluationOptions
    num_items: int
    whole: Segment
    catalogue: Mapping[str, float]
    segments: tuple[Segment, ...]
    places: tuple[int, ...]
    curve: tuple[float, ...]
    empty: int
    notes: tuple[str, ...] = ()

    @property
    def metrics(self) -> Mapping[str, Interval]:
        """The metrics over all users."""
        return self.whole.metrics

    def values(self) -> dict[str, float]:
        """Name -> value, for the metrics over users and those of the catalogue."""
        found = {name: interval.value for name, interval in self.metrics.items()}
        return found | dict(self.catalogue)


def evaluate(
    recommender: Ranker | Recommender,
    histories: Sequence[History],
    held_out: Sequence[History],
    options: EvaluationOptions | None = None,
    *,
    num_items: int | None = None,
    counts: np.ndarray | None = None,
    max_history: int | None = None,
    users: Sequence[int] | None = None,
    notes: Sequence[str] = (),
) -> Evaluation:
    """Evaluate recommendations for users' histories, over the full catalogue.

    Args:
        recommender: a `Ranker`, or any object with the method of `Recommender`.
        histories: item ids of each user, oldest first.
        held_out: held-out items of each user, asked for together. Users without any are skipped,
            and counted in the notes.
        options: None: the defaults.
        num_items: I; None: that of the ranker's model.
        counts: [I], how often each item occurs in training; None: unknown. Then there are no
            metrics of cold items and popularity.
        max_history: see `make_prompts`.
        users: the number of the user of each history; None: each history is another user's.
            Intervals are over users.
        notes: further notes for the report.

    Raises:
        ValueError: lists or options that do not fit; nothing is held out.
    """
    config = words = None
    if isinstance(recommender, Ranker):
        config, words = recommender.model.config, recommender.words
    if num_items is None:
        if config is None:
            raise ValueError("num_items: missing; the recommender does not say how many there are")
        num_items = config.num_items
    options = options or EvaluationOptions()
    questions = of_histories(histories, held_out, config, max_history, users, words)
    told = list(notes)
    if nobody := sum(not np.size(ids) for ids in held_out):
        told.append(f"{nobody} users have nothing held out, and are left out")
    return evaluated(questions, asks(recommender, options), num_items, options, counts, told)


def evaluate_batches(
    ranker: Ranker,
    batches: Iterable[Mapping[str, Any]],
    options: EvaluationOptions | None = None,
    *,
    counts: np.ndarray | None = None,
    notes: Sequence[str] = (),
) -> Evaluation:
    """Evaluate a model on evaluation batches in which every row is a user.

    Args:
        ranker: ranker of the model.
        batches: see `of_batches`; they have to end.
        options, counts, notes: see `evaluate`.

    Raises:
        ValueError: nothing is held out; options that do not fit.
    """
    options = options or EvaluationOptions()
    config = ranker.model.config
    questions = of_batches(batches, config, options.together)
    return evaluated(questions, asks(ranker, options), config.num_items, options, counts, notes)


def evaluate_lists(
    lists: np.ndarray,
    held_out: Sequence[History],
    num_items: int,
    options: EvaluationOptions | None = None,
    *,
    histories: Sequence[History] | None = None,
    counts: np.ndarray | None = None,
) -> Evaluation:
    """Evaluate existing lists of recommendations.

    Args:
        lists: int [U, k], one list for each user, best first; -1 fills up shorter lists. Only
            cutoffs up to k are measured.
        held_out, num_items, options, counts: see `evaluate`. Nothing is left out of the lists.
        histories: histories of the users, for segments by length; None: unknown.

    Raises:
        ValueError: see `evaluate`.
    """
    options = options or EvaluationOptions()
    lists = np.asarray(lists)
    if lists.ndim != 2 or lists.dtype.kind not in "iu":
        raise ValueError(f"lists: found {described(lists)}, expected integers [U, k]")
    options = _without(options, lists.shape[1], "the lists")
    if len(lists) != len(held_out):
        raise ValueError(f"held_out: found {len(held_out)} lists for {len(lists)} users")
    known = histories if histories is not None else [[]] * len(lists)

    def ask(questions: Questions, k: int, allowed: Any) -> np.ndarray:
        del allowed
        return lists[questions.users, :k]

    if options.sampled:
        raise ValueError("sampled: the lists are there already; leave it out")
    return evaluated(of_histories(known, held_out), ask, num_items, options, counts)


def evaluated(
    questions: Iterable[Questions],
    ask: Ask,
    num_items: int,
    options: EvaluationOptions,
    counts: np.ndarray | None = None,
    notes: Sequence[str] = (),
) -> Evaluation:
    """Ask all questions and compute the metrics; see `evaluate`."""
    if counts is not None and np.shape(counts) != (num_items,):
        raise ValueError(f"counts: found {list(np.shape(counts))}, expected [{num_items}]")
    if options.sampled >= num_items:
        raise ValueError(
            f"sampled: found {options.sampled}, the catalogue has {num_items} items: leave it out"
        )
    options = _without(options, num_items, "the catalogue")
    found = answers(questions, ask, num_items, options, counts)
    prefix = "sampled_" if options.sampled else ""
    names = tuple(f"{prefix}{name}_at_{k}" for name in METRICS for k in options.cutoffs)
    told = list(notes)
    if found.empty:
        told.append(
            f"{found.empty} of {len(found.users)} lists have no item: every score is NaN or"
            " everything is left out; they count as lists that find nothing"
        )
    if counts is None:
        told.append("how often items occur in training is unknown: there is no popularity, and"
                    " no metrics of cold items")  # fmt: skip
    return Evaluation(
        options,
        num_items,
        segment("all", "all", found, options, names),
        _catalogue(found, options, counts, prefix),
        segments(found, options, names),
        tuple(found.places.tolist()),
        _curve(found.shown[-1]),
        found.empty,
        tuple(told),
    )


def _without(options: EvaluationOptions, most: int, what: str) -> EvaluationOptions:
    """The options with sorted cutoffs, without those above `most`.

    Raises:
        ValueError: no cutoff is left.
    """
    left = tuple(sorted(k for k in options.cutoffs if k <= most))
    if not left:
        raise ValueError(f"cutoffs: found {list(options.cutoffs)}, {what} has {most} items")
    return replace(options, cutoffs=left)


def _catalogue(
    found: Answers, options: EvaluationOptions, counts: np.ndarray | None, prefix: str
) -> dict[str, float]:
    made = {"coverage": coverage(found.shown), "gini": gini(found.shown)}
    if counts is not None:
        made["average_popularity"] = average_popularity(found.shown, counts)
    return {
        f"{prefix}{name}_at_{k}": float(value)
        for name, values in made.items()
        for k, value in zip(options.cutoffs, values, strict=True)
    }


def _curve(shown: np.ndarray) -> tuple[float, ...]:
    """The Lorenz curve of the items' exposure, int [I]."""
    total = np.concatenate([[0.0], np.cumsum(np.sort(shown.astype(np.float64)))])
    at = np.linspace(0.0, len(shown), CURVE)
    return tuple((np.interp(at, np.arange(len(total)), total) / max(total[-1], 1.0)).tolist())
