"""Questions of an evaluation: users' histories, and the items held out of them.

Letters: B questions, T time, X items seen, Y held-out items, V words.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from efficientids_flax.config import EfficientIDSConfig
from efficientids_flax.core.batch import check_batch
from efficientids_flax.data.rows import HeldOut
from efficientids_flax.inference.prompts import History, Prompts, make_prompts, padded_ids
from efficientids_flax.stored import ItemWords

FIELDS = (
    "ids", "input_item_weights", "paddings", "segment_ids", "segment_pos", "inputs_indicator",
)  # fmt: skip
AT_ONCE = 512  # questions


class Questions(NamedTuple):
    """Some questions.

    Attributes:
        users: int [B], number of each question's user.
        seen: int [B, X], items of the whole history, one per event, padded with -1.
        held_out: int [B, Y], items to be recommended, padded with -1.
        prompts: prompts for a model; None if the recommender takes `histories`.
        histories: B lists of items, oldest first; None if there are only prompts.
    """

    users: np.ndarray
    seen: np.ndarray
    held_out: np.ndarray
    prompts: Prompts | None
    histories: Sequence[History] | None = None

    @property
    def lengths(self) -> np.ndarray:
        """int [B], events of each history."""
        return np.sum(self.seen >= 0, axis=1)

    @property
    def left_out(self) -> np.ndarray:
        """int [B, X], items seen that are not held out; -1 elsewhere."""
        again = np.any(self.seen[:, :, None] == self.held_out[:, None, :], axis=-1)
        return np.where(again, -1, self.seen)


def of_histories(
    histories: Sequence[History],
    held_out: Sequence[History],
    config: EfficientIDSConfig | None = None,
    max_history: int | None = None,
    users: Sequence[int] | None = None,
    words: ItemWords | None = None,
) -> Iterator[Questions]:
    """Questions from users' histories, some at a time.

    Args:
        histories: item ids of each user, oldest first.
        held_out: held-out items of each user, asked for together; users without any are skipped.
        config: configuration of the model to make prompts for; None: make no prompts.
        max_history: see `make_prompts`.
        users: number of each history's user; None: each is a different user.
        words: see `make_prompts`.

    Raises:
        ValueError: numbers of held-out lists, histories and users differ; a list is not one of item
            ids.
    """
    if len(histories) != len(held_out):
        raise ValueError(f"held_out: found {len(held_out)} lists for {len(histories)} histories")
    most = np.iinfo(np.int32).max if config is None else config.num_items - 1
    wrong = [
        f"{name} {number}: found {ids.tolist()!r}, expected item ids up to {most}"
        for name, lists in (("held_out", held_out), ("history", histories))
        for number, ids in enumerate(map(np.asarray, lists))
        if ids.ndim != 1
        or (ids.size and (ids.dtype.kind not in "iu" or ids.min() < 0 or ids.max() > most))
    ]
    if users is not None and len(users) != len(histories):
        wrong.append(f"users: found {len(users)} numbers for {len(histories)} histories")
    if wrong:
        raise ValueError("\n  ".join(["questions:", *wrong[:5]]))
    asked = np.array([number for number, ids in enumerate(held_out) if len(ids)], np.int64)
    of = np.arange(len(histories)) if users is None else np.asarray(users)
    for start in range(0, len(asked), AT_ONCE):
        part = asked[start : start + AT_ONCE]
        given = [histories[number] for number in part]
        seen = padded_ids(given)
        prompts = None
        if config is not None:
            prompts = make_prompts(config, given, max_history=max_history, words=words)
        wanted = padded_ids([held_out[number] for number in part])
        yield Questions(of[part], seen, wanted, prompts, given)


class Asked(NamedTuple):
    """Histories and their held-out items; see `of_histories`."""

    histories: list[np.ndarray]
    held_out: list[np.ndarray]
    users: np.ndarray


def of_sequences(rows: HeldOut, together: bool) -> Asked:
    """Histories and held-out items from whole sequences, not cut to the length of rows.

    Args:
        rows: evaluation rows of a split.
        together: see `EvaluationOptions`.
    """
    items = rows.sequences.items
    ends = rows.starts + rows.counts
    begins, targets = rows.begins, rows.targets
    if together:
        spans = zip(begins, targets, ends, strict=True)
        users = rows.users
    else:
        counts = ends - targets
        user = np.repeat(np.arange(len(counts)), counts)
        place = targets[user] + _inside(counts)
        spans, users = zip(begins[user], place, place + 1, strict=True), rows.users[user]
    parts = [(items[begin:first], items[first:end]) for begin, first, end in spans]
    return Asked([one for one, _ in parts], [other for _, other in parts], users)


def of_rows(fields: Mapping[str, np.ndarray], together: bool) -> Asked:
    """Histories and held-out items from rows of items, each row a user; see `of_batches`."""
    places, times, held_out = _asked(fields, together)
    there = np.ones(fields["ids"].shape, bool)
    if "paddings" in fields:
        there = fields["paddings"] == 0
    histories = [
        fields["ids"][row, : time + 1][there[row, : time + 1]]
        for row, time in zip(places, times, strict=True)
    ]
    return Asked(histories, [ids[ids >= 0] for ids in held_out], places)


def of_batches(
    batches: Iterable[Mapping[str, Any]], config: EfficientIDSConfig, together: bool
) -> Iterator[Questions]:
    """Questions from evaluation batches in which every row is a user.

    Args:
        batches: fields of the model, `labels` and `weights`, [N, T] each, and optionally `exclude`
            int [N, X], further items that the user has seen.
        config: the model's.
        together: see `EvaluationOptions`.

    Raises:
        ValueError: a batch lacks a field, or has labels or ids out of range.
    """
    users = 0
    for batch in batches:
        given = {name: np.asarray(value) for name, value in batch.items()}
        check_batch(config, given, labels=True)  # a label that is no item would count as missed
        for questions in _of_batch(given, config, together):
            yield questions._replace(users=questions.users + users)
        users += len(given["ids"])


def _of_batch(
    given: Mapping[str, np.ndarray], config: EfficientIDSConfig, together: bool
) -> Iterator[Questions]:
    rows, times, held_out = _asked(given, together)
    for start in range(0, len(rows), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        chosen, last = rows[part], times[part].astype(np.int32)
        seen = _seen(given, config, chosen, last)
        # Padded with the first row, so that few shapes are compiled.
        places = np.pad(np.arange(len(chosen)), (0, _bucket(len(chosen)) - len(chosen)))
        fields = {name: given[name][chosen[places]] for name in FIELDS if name in given}
        prompts = Prompts(fields, last[places], seen[places])
        yield Questions(chosen, seen, held_out[part], prompts)


def _asked(
    given: Mapping[str, np.ndarray], together: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row int [B], position int [B], held-out items int32 [B, Y]) of each question of a batch."""
    asked = given["weights"] > 0
    if "label_item_weights" in given:
        asked = asked & (given["label_item_weights"] > 0)
    rows, times = np.nonzero(asked)
    labels = given["labels"][asked].astype(np.int32)
    if not together:
        return rows, times, labels[:, None]
    firsts = np.flatnonzero(np.diff(rows, prepend=-1))
    counts = np.diff(np.append(firsts, len(rows)))
    held_out = np.full((len(firsts), _bucket(counts.max(initial=1))), -1, np.int32)
    held_out[np.repeat(np.arange(len(firsts)), counts), _inside(counts)] = labels
    return rows[firsts], times[firsts], held_out


def _seen(
    given: Mapping[str, np.ndarray], config: EfficientIDSConfig, rows: np.ndarray, times: np.ndarray
) -> np.ndarray:
    """int32 [B, X], the items of the input up to each position, and those of `exclude`."""
    ids = given["ids"][rows]
    counts = np.arange(ids.shape[1]) <= times[:, None]
    if "paddings" in given:
        counts &= given["paddings"][rows] == 0
    if config.backbone.vocab_size:
        counts &= given["input_item_weights"][rows] > 0
    if "segment_ids" in given:
        segments = given["segment_ids"][rows]
        counts &= segments == np.take_along_axis(segments, times[:, None], axis=1)
    if (placeholder := config.placeholder_item_id) is not None:
        known = np.zeros_like(counts)
        if "inputs_indicator" in given:  # 1 in the history, 0 at placeholders
            known = given["inputs_indicator"][rows] > 0
        counts &= known | (ids != placeholder)
    seen = np.where(counts, ids, -1).astype(np.int32)
    if "exclude" in given:
        seen = np.concatenate([given["exclude"][rows].astype(np.int32), seen], axis=1)
    return seen


def _bucket(size: int) -> int:
    return 1 << max(int(size) - 1, 0).bit_length()


def _inside(counts: np.ndarray) -> np.ndarray:
    """int [sum of counts], 0, 1, ... of each."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
