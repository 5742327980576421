"""The sequence that asks for the next item, as the original's sequence builder makes it.

    ids               <sos>  history ...  placeholder  <eos>  padding
    input_item_weights  0     0 or 1          1          0       0
    inputs_indicator    1       1             0          0       0
    paddings            0       0             0          0       1
                                ^ here the target is predicted: labels are the ids shifted left

The placeholder (id 102 in the original) stands where the target would; its row of the item table
passes through the input adapter. A causal model does not see it where the target is predicted, but
the model was trained and evaluated with it in place, so it is there. A model without words has the
history alone. Letters: B histories, T time, X items of the longest history.
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from efficientids_flax.config import EfficientIDSConfig

SOS, EOS = 0, 1  # words of the original's sequence builder
SHORTEST = 8  # lengths and batch sizes are padded to powers of two, so that few shapes compile
SHOWN = 5  # problems named; the rest is counted

History = Sequence[int] | np.ndarray


class Prompts(NamedTuple):
    """Prompts of one padded shape.

    Attributes:
        batch: the model's fields, each int32 [B, T]; rows beyond the histories are padding.
        last: int32 [B], the position whose prediction is asked for.
        seen: int32 [B, X], items of each whole history, of which the batch may have the last ones
            alone; -1 to the row's end.
    """

    batch: dict[str, np.ndarray]
    last: np.ndarray
    seen: np.ndarray


def make_prompts(
    config: EfficientIDSConfig,
    histories: Sequence[History],
    item_masks: Sequence[History] | None = None,
    *,
    max_history: int | None = None,
) -> Prompts:
    """Prompts for histories.

    Args:
        config: of the model.
        histories: item ids, oldest first; or, with `item_masks`, words and items interleaved.
        item_masks: 1 where the history has an item, 0 where it has a word. `<sos>`, the
            placeholder and `<eos>` are added here, not given.
        max_history: only so many of the last ids are used; None: as many as the model was trained
            on, with a warning, or all where that is not known.

    Returns:
        B and T padded to powers of two.

    Raises:
        ValueError: naming every id that is out of range, and histories that are too long or empty.
    """
    if max_history is None:
        max_history = trained_history(config)
        if told := longer_than(max_history, histories):
            warnings.warn(told, stacklevel=3)
    rows, problems = _rows(config, histories, item_masks, max_history)
    raise_problems(problems)
    # Checked above: the ids, and the masks, one an id.
    masks = [None] * len(histories) if item_masks is None else item_masks
    every = [
        np.asarray(ids)[np.ones(len(ids), bool) if mask is None else np.asarray(mask) > 0]
        for ids, mask in zip(histories, masks, strict=True)
    ]
    shape = _bucket(len(rows), 1), positions(config, max((len(ids) for ids, _ in rows), default=0))
    return lay_out(config, rows, every, shape)


def lay_out(
    config: EfficientIDSConfig,
    rows: Sequence[tuple[History, History]],
    seen: Sequence[History],
    shape: tuple[int, int],
    width: int | None = None,
) -> Prompts:
    """Prompts of a shape that is known, of histories that are checked and cut already.

    Args:
        config: of the model.
        rows: for each history its ids, and 1 where they are items.
        seen: for each history the items of the whole of it.
        shape: [B, T] with room for `rows` and for what is added to each.
        width: X; None: a power of two with room for the longest of `seen`.
    """
    placeholder = config.placeholder_item_id
    before, after = _around(config)
    batch = {
        name: np.zeros(shape, np.int32)
        for name in ("ids", "input_item_weights", "inputs_indicator")
    }
    batch["paddings"] = np.ones(shape, np.int32)
    last = np.zeros(shape[0], np.int32)
    if width is None:
        width = _bucket(max(map(len, seen), default=0))
    found = np.full((shape[0], width), -1, np.int32)
    for row, (ids, items) in enumerate(rows):
        whole = [*before, *ids, *after]
        batch["ids"][row, : len(whole)] = whole
        first = len(before)
        batch["input_item_weights"][row, first : first + len(ids)] = items
        if placeholder is not None:
            batch["input_item_weights"][row, first + len(ids)] = 1
        batch["inputs_indicator"][row, : first + len(ids)] = 1
        batch["paddings"][row, : len(whole)] = 0
        last[row] = first + len(ids) - 1
        found[row, : len(seen[row])] = seen[row]
    if not config.backbone.vocab_size:
        del batch["input_item_weights"]
    return Prompts(batch, last, found)


def positions(config: EfficientIDSConfig, ids: int) -> int:
    """T of a prompt with so many ids of a history: with what is added, the next power of two."""
    length = _bucket(ids + sum(map(len, _around(config))))
    if config.backbone.position_embedding == "learned":
        return min(length, config.backbone.max_positions or length)
    return length


def history_lengths(config: EfficientIDSConfig, most: int, step: int) -> tuple[int, ...]:
    """Ids that fill prompts of few lengths: `most`, and what is left of each `step`-th of it."""
    found, added = [most], sum(map(len, _around(config)))
    length = positions(config, most) // step
    while length >= SHORTEST and length > added:
        found.insert(0, length - added)
        length //= step
    return tuple(found)


def trained_history(config: EfficientIDSConfig) -> int | None:
    """How many ids a history may have to be as long as those that were trained on; None: any."""
    if config.trained_length is None:
        return None
    return max(config.trained_length - sum(map(len, _around(config))), 1)


def most_history(config: EfficientIDSConfig) -> int | None:
    """How many ids of a history fit a model that has learned its positions; None: any number."""
    limit = config.backbone.max_positions
    if config.backbone.position_embedding != "learned" or limit is None:
        return None
    return limit - sum(map(len, _around(config)))


def longer_than(length: int | None, histories: Sequence[History]) -> str | None:
    """That histories are cut to the length that the model was trained on; None if none is."""
    if length is None or not (longer := sum(len(history) > length for history in histories)):
        return None
    return (
        f"{longer} of {len(histories)} histories have more than the {length} ids that the model was"
        f" trained on: their last {length} are used (max_history takes more)"
    )


def history_problems(
    config: EfficientIDSConfig,
    histories: Sequence[History],
    item_masks: Sequence[History] | None = None,
    *,
    exclude: Sequence[History] = (),
    max_history: int | None = None,
) -> list[str]:
    """A sentence for each thing wrong with histories, and with ids that are left out for them.

    Args:
        config, histories, item_masks: see `make_prompts`.
        max_history: only so many of the last ids are used; None: as many as were trained on.
        exclude: for each history ids of items that are not to be found.
    """
    if max_history is None:
        max_history = trained_history(config)
    problems = _rows(config, histories, item_masks, max_history)[1]
    return problems + exclude_problems(exclude, config.num_items)


def exclude_problems(lists: Sequence[History], items: int) -> list[str]:
    """A sentence for each id that is left out and is no item: lists of ids, one a history."""
    return [
        f"history {row}: exclude: {number} is outside of [0, {items})"
        for row, ids in enumerate(lists)
        for number in ids
        if not 0 <= number < items
    ]


def padded_ids(lists: Sequence[History], rows: int | None = None) -> np.ndarray:
    """Lists of ids as int32 [rows, X]: X a power of two, 0 if all are empty; -1 where none is.

    Args:
        lists: at most as many as rows.
        rows: None: one a list.
    """
    longest = max(map(len, lists), default=0)
    width = _bucket(longest, 1) if longest else 0
    found = np.full((len(lists) if rows is None else rows, width), -1, np.int32)
    for row, ids in enumerate(lists):
        found[row, : len(ids)] = ids
    return found


def raise_problems(problems: list[str]) -> None:
    """ValueError with the first problems of histories, if there are any."""
    if problems:
        rest = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise ValueError("\n  ".join(["histories:", *problems[:SHOWN], *rest]))


def _around(config: EfficientIDSConfig) -> tuple[list[int], list[int]]:
    """What stands before and after a history."""
    before, after = ([SOS], [EOS]) if config.backbone.vocab_size else ([], [])
    placeholder = config.placeholder_item_id
    return before, after if placeholder is None else [placeholder, *after]


def _rows(
    config: EfficientIDSConfig,
    histories: Sequence[History],
    item_masks: Sequence[History] | None,
    max_history: int | None,
) -> tuple[list[tuple[np.ndarray, np.ndarray]], list[str]]:
    """(ids, 1 where they are items) of each history, as long as wanted; and what is wrong.

    Raises:
        ValueError: arguments that are not about one history.
    """
    if item_masks is not None and len(item_masks) != len(histories):
        raise ValueError(f"item_masks: found {len(item_masks)} for {len(histories)} histories")
    if max_history is not None and max_history < 1:
        raise ValueError(f"max_history: expected above 0, found {max_history}")
    problems: list[str] = []
    rows = []
    for number, history in enumerate(histories):
        mask = None if item_masks is None else item_masks[number]
        ids, items = _checked(config, f"history {number}", history, mask, problems)
        if max_history is not None:
            ids, items = ids[-max_history:], items[-max_history:]
        rows.append((ids, items))
    return rows, problems + _length_problems(config, rows)


def _checked(
    config: EfficientIDSConfig, where: str, history: Any, mask: Any, problems: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """(ids, 1 where they are items) of one history; what is wrong is added to the problems."""
    nothing = np.zeros(0, np.int32), np.zeros(0, np.int32)
    ids = np.asarray(history)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        problems.append(f"{where}: found {list(ids.shape)} of {ids.dtype}, expected a list of ids")
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


def _bucket(size: int, least: int = SHORTEST) -> int:
    """The next power of two, at least `least`."""
    return max(least, 1 << max(size - 1, 0).bit_length())
