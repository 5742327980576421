"""The model's input to predict the next item, as the original's sequence builder makes it.

    ids               <sos>  history ...  placeholder  <eos>  padding
    input_item_weights  0     0 or 1          1          0       0
    inputs_indicator    1       1             0          0       0
    paddings            0       0             0          0       1
                                ^ here the target is predicted: labels are the ids shifted left

The placeholder (id 102 in the original) is in the place of the target; its row of the item table
passes through the input adapter. A causal model does not see it at the position that predicts the
target, but it was trained and evaluated with it, so it is included. The input of a model without
words is the history alone. For other tokens around a history see `around`. Letters: B histories, T
time, X items of the longest history.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from efficientids_flax.array_checks import as_numpy
from efficientids_flax.config import EfficientIDSConfig
from efficientids_flax.inference.around import (
    History,
    around,
    asks_without_items,
    bucket,
    longer_than,
    most_history,
    positions,
    trained_histories,
    trained_history,
    with_words,
)
from efficientids_flax.stored import ItemWords

SHOWN = 5  # problems named; the rest is counted


class Prompts(NamedTuple):
    """Prompts of one padded shape.

    Attributes:
        batch: the model's fields, each int32 [B, T]; rows beyond the histories are padding.
        last: int32 [B], the position that predicts the next item.
        seen: int32 [B, X], items of each whole history, padded with -1; the batch may contain only
            the last ones.
    """

    batch: dict[str, np.ndarray]
    last: np.ndarray
    seen: np.ndarray


def make_prompts(
    config: EfficientIDSConfig,
    histories: Sequence[History],
    item_masks: Sequence[History | None] | None = None,
    *,
    max_history: int | Sequence[int | None] | None = None,
    words: ItemWords | None = None,
    with_seen: bool = True,
) -> Prompts:
    """Prompts for histories.

    Args:
        config: configuration of the model.
        histories: item ids, oldest first; or, with `item_masks`, words and items interleaved.
        item_masks: 1 where the history has an item, 0 where it has a word; None: only items. The
            tokens around a history (`<sos>`, the placeholder and `<eos>`, or `config.prompt`) are
            added here; do not include them.
        max_history: use only this many of the last ids, for all or for each history; None: as many
            as the model was trained on, with a warning, or all if that is unknown.
        words: words around the items, for histories of items alone, if `config.prompt` has some.
        with_seen: whether `seen` is needed, which is as wide as the longest history.

    Returns:
        B and T padded to powers of two.

    Raises:
        ValueError: naming every id that is out of range, and histories that are too long or empty;
            `words` are missing.
    """
    if max_history is None:
        max_history = trained_histories(config, histories, item_masks, words)
        if told := longer_than(max_history, histories):
            warnings.warn(told, stacklevel=3)
    rows, problems = _rows(config, histories, item_masks, max_history)
    raise_problems(problems)
    rows = [
        row if mask is not None else with_words(config, row, words)
        for row, mask in zip(rows, item_masks or [None] * len(rows), strict=True)
    ]
    # Ids and masks were checked above; there is one mask for each id.
    masks = [None] * len(histories) if item_masks is None else item_masks
    every = [
        np.asarray(ids)[np.ones(len(ids), bool) if mask is None else np.asarray(mask) > 0]
        for ids, mask in zip(histories, masks, strict=True)
        if with_seen
    ]
    shape = bucket(len(rows), 1), positions(config, max((len(ids) for ids, _ in rows), default=0))
    return lay_out(config, rows, every, shape)


def lay_out(
    config: EfficientIDSConfig,
    rows: Sequence[tuple[History, History]],
    seen: Sequence[History],
    shape: tuple[int, int],
    width: int | None = None,
) -> Prompts:
    """Prompts of a given shape, from histories that are already checked and cut.

    Args:
        config: the model's.
        rows: for each history its ids, and 1 where they are items.
        seen: the items of each whole history; empty: not needed.
        shape: [B, T], with room for `rows` and the tokens around them.
        width: X; None: a power of two with room for the longest of `seen`.
    """
    frame = around(config)
    before = frame.before
    batch = {
        name: np.zeros(shape, np.int32)
        for name in ("ids", "input_item_weights", "inputs_indicator")
    }
    batch["paddings"] = np.ones(shape, np.int32)
    last = np.zeros(shape[0], np.int32)
    if width is None:
        width = bucket(max(map(len, seen), default=0))
    found = np.full((shape[0], width), -1, np.int32)
    for row, (ids, items) in enumerate(rows):
        whole = [*before, *ids, *frame.after, *frame.placeholder, *frame.end]
        batch["ids"][row, : len(whole)] = whole
        first = len(before)
        batch["input_item_weights"][row, first : first + len(ids)] = items
        asked = first + len(ids) + len(frame.after)
        batch["input_item_weights"][row, asked : asked + len(frame.placeholder)] = 1
        batch["inputs_indicator"][row, :asked] = 1
        batch["paddings"][row, : len(whole)] = 0
        last[row] = asked - 1
        if seen:
            found[row, : len(seen[row])] = seen[row]
    if not config.backbone.vocab_size:
        del batch["input_item_weights"]
    return Prompts(batch, last, found)


def history_problems(
    config: EfficientIDSConfig,
    histories: Sequence[History],
    item_masks: Sequence[History | None] | None = None,
    *,
    exclude: Sequence[History] = (),
    max_history: int | Sequence[int | None] | None = None,
) -> list[str]:
    """A sentence for each problem with histories, and with the ids to exclude for them.

    Args:
        config, histories, item_masks: see `make_prompts`.
        max_history: see `make_prompts`.
        exclude: for each history, ids of items that must not be recommended.
    """
    if max_history is None:
        max_history = trained_history(config)
    problems = _rows(config, histories, item_masks, max_history)[1]
    return problems + exclude_problems(exclude, config.num_items)


def exclude_problems(lists: Sequence[History], items: int) -> list[str]:
    """A sentence for each id to exclude that is no item; one list of ids for each history."""
    found = []
    for row, given in enumerate(lists):
        ids, problem = _read(given, f"history {row}: exclude")
        if problem:
            found.append(problem)
            continue
        wrong = ids[(ids < 0) | (ids >= items)]
        found += [f"history {row}: exclude: {one} is outside of [0, {items})" for one in wrong]
    return found


def _read(given: Any, where: str) -> tuple[np.ndarray, str | None]:
    """(Ids, what is wrong if they are no list of whole numbers)."""
    try:
        ids = as_numpy(given, where)
    except ValueError as error:
        return np.zeros(0, np.int32), str(error)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        return ids, f"{where}: found {list(ids.shape)} of {ids.dtype}, expected a list of ids"
    return ids, None


def padded_ids(lists: Sequence[History], rows: int | None = None) -> np.ndarray:
    """Lists of ids as int32 [rows, X], padded with -1; X is a power of two, or 0 if all are empty.

    Args:
        lists: at most `rows` lists.
        rows: number of rows; None: one for each list.
    """
    longest = max(map(len, lists), default=0)
    width = bucket(longest, 1) if longest else 0
    found = np.full((len(lists) if rows is None else rows, width), -1, np.int32)
    for row, ids in enumerate(lists):
        found[row, : len(ids)] = ids
    return found


def raise_problems(problems: list[str]) -> None:
    """ValueError with the first problems of histories, if there are any."""
    if problems:
        rest = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise ValueError("\n  ".join(["histories:", *problems[:SHOWN], *rest]))


def _rows(
    config: EfficientIDSConfig,
    histories: Sequence[History],
    item_masks: Sequence[History | None] | None,
    max_history: int | Sequence[int | None] | None,
) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[str]]:
    """(ids, 1 where they are items) of each history, cut to `max_history`; and the problems.

    Raises:
        ValueError: numbers of histories and other arguments differ.
    """
    if item_masks is not None and len(item_masks) != len(histories):
        raise ValueError(f"item_masks: found {len(item_masks)} for {len(histories)} histories")
    if max_history is None or isinstance(max_history, int | np.integer):
        each: list[Any] = [max_history] * len(histories)
    else:
        each = list(max_history)
    if wrong := [most for most in each if most is not None and most < 1]:
        raise ValueError(f"max_history: expected above 0, found {wrong[0]}")
    problems: list[str] = []
    rows = []
    for number, history in enumerate(histories):
        mask = None if item_masks is None else item_masks[number]
        ids, items = _checked(config, f"history {number}", history, mask, problems)
        if (most := each[number]) is not None:
            ids, items = ids[-most:], items[-most:]
        rows.append((ids, items))
    return rows, problems + _length_problems(config, rows)


def _checked(
    config: EfficientIDSConfig, where: str, history: Any, mask: Any, problems: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """(ids, 1 where they are items) of one history; appends to the problems."""
    nothing = np.zeros(0, np.int32), np.zeros(0, np.int32)
    ids, problem = _read(history, where)
    if problem:
        problems.append(problem)
        return nothing
    items = np.ones(ids.shape, np.int32) if mask is None else np.asarray(mask)
    if items.shape != ids.shape or not np.isin(items, (0, 1)).all():
        problems.append(
            f"{where}: item mask {items.tolist()}, expected {len(ids)} times 0 or 1, one an id"
        )
        return nothing
    words = config.backbone.vocab_size
    for kind, wanted, count in (("item", 1, config.num_items), ("word", 0, words)):
        for place in np.flatnonzero((items == wanted) & ((ids < 0) | (ids >= count))):
            problems.append(
                f"{where}: {kind} {ids[place]} at place {place} is outside of [0, {count})"
            )
    if not ids.size and not words:
        problems.append(f"{where}: is empty; a model without words needs at least one item")
    elif not ids.size and not asks_without_items(config):
        problems.append(f"{where}: is empty, and so is the prompt of this model without an item")
    return ids.astype(np.int64), items.astype(np.int32)


def _length_problems(
    config: EfficientIDSConfig, rows: list[tuple[np.ndarray, np.ndarray]]
) -> list[str]:
    """Histories that have more positions than the model has learned."""
    room = most_history(config)
    if room is None:
        return []
    return [
        f"history {number}: {len(ids)} ids, the model's {config.backbone.max_positions} positions "
        f"have room for {room} (max_history={room} takes the last ones)"
        for number, (ids, _) in enumerate(rows)
        if len(ids) > room
    ]
