"""Gets recommendations for questions, and keeps of each list what the metrics need.

Letters: B questions at a time, Q all questions, k items of a list, I items, A cutoffs, M metrics.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from efficientids_flax.evaluation.metrics.catalogue import exposure
from efficientids_flax.evaluation.metrics.lists import METRICS, list_metrics
from efficientids_flax.evaluation.options import EvaluationOptions
from efficientids_flax.evaluation.questions import AT_ONCE, Questions
from efficientids_flax.evaluation.sampled import candidates
from efficientids_flax.inference.ranker import Ranker


class Recommender(Protocol):
    """Anything that recommends for histories, such as a baseline."""

    def recommend(self, histories: Any, k: int, *, exclude: Any) -> Any:
        """The k best items of each history, as (ids int [B, k], scores) or an object with `ids`.

        Args:
            histories: B lists of item ids, oldest first.
            k: number of items; lists with fewer items are padded with -1.
            exclude: B lists of ids that must not be recommended. With `EvaluationOptions.sampled`
                there is also `allowed`, bool [B, I], items that may be recommended.
        """
        ...


class Answers(NamedTuple):
    """What is kept of the answers to Q questions.

    Attributes:
        users, lengths, held_out: int [Q]: user, events of the history, number of held-out items.
        values: 'all', and if training counts are known 'cold' and 'warm' -> float32 [Q, M A],
            metrics by held-out items of this kind only; NaN if there are none.
        of_kind: 'all', ... -> int [Q], number of held-out items of this kind.
        shown: int [A, I], number of lists that contain each item.
        places: int [k], number of lists with their first hit at each place.
        empty: number of lists without any item.
    """

    users: np.ndarray
    lengths: np.ndarray
    held_out: np.ndarray
    values: dict[str, np.ndarray]
    of_kind: dict[str, np.ndarray]
    shown: np.ndarray
    places: np.ndarray
    empty: int


Ask = Callable[[Questions, int, np.ndarray | None], np.ndarray]


def asks(recommender: Ranker | Recommender, options: EvaluationOptions) -> Ask:
    """A function that asks a recommender: (questions, k, allowed bool [B, I]) -> ids int [B, k]."""

    def ranker(questions: Questions, k: int, allowed: np.ndarray | None) -> np.ndarray:
        assert isinstance(recommender, Ranker) and questions.prompts is not None
        prompts, rows = questions.prompts, len(questions.prompts.last)
        left_out = np.full((rows, questions.seen.shape[1]), -1, np.int32)
        left_out[: len(questions.users)] = questions.left_out
        return recommender.rank(
            prompts._replace(seen=left_out), k, count=len(questions.users),
            exclude_seen=options.exclude_seen, allowed=allowed, scoring=options.scoring,
        ).ids  # fmt: skip

    def other(questions: Questions, k: int, allowed: np.ndarray | None) -> np.ndarray:
        assert questions.histories is not None
        exclude = [row[row >= 0] for row in questions.left_out]
        if not options.exclude_seen:
            exclude = [row[:0] for row in exclude]
        more: dict[str, Any] = {} if allowed is None else {"allowed": allowed}
        asked: Any = recommender
        found: Any = asked.recommend(questions.histories, k, exclude=exclude, **more)
        ids = np.asarray(found.ids if hasattr(found, "ids") else found[0])
        wanted = (len(questions.users), k)
        if ids.shape != wanted or ids.dtype.kind not in "iu":
            raise ValueError(
                f"{type(recommender).__name__}.recommend: found ids {list(ids.shape)} of"
                f" {ids.dtype}, expected integers {list(wanted)}"
            )
        return ids

    return ranker if isinstance(recommender, Ranker) else other


def answers(
    questions: Iterable[Questions],
    ask: Ask,
    num_items: int,
    options: EvaluationOptions,
    counts: np.ndarray | None = None,
) -> Answers:
    """Ask all questions.

    Args:
        questions: questions, some at a time.
        ask: returns the lists.
        num_items: I.
        options: options of the evaluation, with cutoffs in [1, I].
        counts: [I], how often each item occurs in training; None: unknown.

    Raises:
        ValueError: there is no question; a list has an id that is no item.
    """
    cutoffs = tuple(sorted(options.cutoffs))
    rng = np.random.default_rng(options.seed)
    kept: list[tuple[np.ndarray, ...]] = []
    values: dict[str, list[np.ndarray]] = {}
    of_kind: dict[str, list[np.ndarray]] = {}
    shown: Any = 0
    places, empty = np.zeros(max(cutoffs), np.int64), 0
    for some in questions:
        allowed = None
        if options.sampled:
            allowed = candidates(some, num_items, options.sampled, rng)
        top = np.asarray(ask(some, max(cutoffs), allowed))
        if top.max(initial=-1) >= num_items:
            raise ValueError(f"lists: found item {top.max()}, expected below {num_items}, or -1")
        empty += int(np.sum(np.all(top < 0, axis=1)))
        padded = _rows(top)
        shown = shown + exposure(padded, num_items, cutoffs)
        for kind, held_out in _kinds(some.held_out, counts).items():
            found = jax.device_get(list_metrics(padded, _rows(held_out), cutoffs))
            joined = np.concatenate([found[name] for name in METRICS], axis=1)[: len(top)]
            values.setdefault(kind, []).append(joined)
            of_kind.setdefault(kind, []).append(_number(held_out))
        hits = np.any(top[:, :, None] == np.where(some.held_out < 0, -2, some.held_out)[:, None],
                      axis=-1)  # fmt: skip
        first = np.argmax(hits, axis=1)[np.any(hits, axis=1)]
        places += np.bincount(first, minlength=len(places))
        kept.append((some.users, some.lengths, _number(some.held_out)))
    if not kept:
        raise ValueError("evaluation: nothing is held out: there is no question to ask")
    users, lengths, held_out = (np.concatenate(part) for part in zip(*kept, strict=True))
    return Answers(
        users, lengths, held_out,
        {kind: np.concatenate(parts) for kind, parts in values.items()},
        {kind: np.concatenate(parts) for kind, parts in of_kind.items()},
        np.asarray(shown), places, empty,
    )  # fmt: skip


def _kinds(held_out: np.ndarray, counts: np.ndarray | None) -> dict[str, np.ndarray]:
    """Held-out items of each kind, int [B, Y]; -1 in place of the others."""
    if counts is None:
        return {"all": held_out}
    inside = (held_out >= 0) & (held_out < len(counts))
    warm = inside & (counts[np.where(inside, held_out, 0)] > 0)
    return {
        "all": held_out,
        "warm": np.where(warm, held_out, -1),
        "cold": np.where(warm, -1, held_out),
    }


def _number(held_out: np.ndarray) -> np.ndarray:
    """int [B], number of distinct items."""
    ids = np.sort(held_out, axis=1)
    new = np.concatenate([np.ones((len(ids), 1), bool), ids[:, 1:] != ids[:, :-1]], axis=1)
    return np.sum(new & (ids >= 0), axis=1)


def _rows(values: np.ndarray) -> np.ndarray:
    """Pad to the usual number of rows, with -1, so that one shape is compiled."""
    return np.pad(values, ((0, -len(values) % AT_ONCE), (0, 0)), constant_values=-1)
