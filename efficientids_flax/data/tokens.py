"""Rows of tokens (words and items), and the fields of a batch made of them.

Letters: B rows, T time.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from efficientids_flax.data.packing import first_fit

FIELDS = (
    "ids", "labels", "weights", "input_item_weights", "label_item_weights", "inputs_indicator",
    "segment_ids", "segment_pos",
)  # fmt: skip


class Tokens(NamedTuple):
    """One row without padding, each [T]: ids, whether items, whether prompt, ids as labels."""

    ids: np.ndarray
    is_item: np.ndarray
    prefix: np.ndarray
    targets: np.ndarray

    @classmethod
    def of(cls, pieces: Sequence[tuple[Sequence[int], Sequence[int], int, int]]) -> "Tokens":
        """Concatenate pieces: (ids, ids as labels, whether items, whether part of the prompt)."""
        marks = [(item, mark) for ids, _, item, mark in pieces for _ in ids]
        columns = (
            [one for ids, *_ in pieces for one in ids],
            [item for item, _ in marks],
            [mark for _, mark in marks],
            [one for _, targets, *_ in pieces for one in targets],
        )
        return cls(*(np.asarray(column, np.int32) for column in columns))


def packed(rows: Sequence[Tokens], length: int) -> list[list[Tokens]]:
    """Pack rows by first fit: for each packed row, the rows in it."""
    bins = first_fit([len(row.ids) for row in rows], length)
    places: list[list[Tokens]] = [[] for _ in range(int(bins.max(initial=-1)) + 1)]
    for row, place in zip(rows, bins.tolist(), strict=True):
        places[place].append(row)
    return places


def padded(
    places: Sequence[Sequence[Tokens]], length: int | None, padding: str, answer_words: bool
) -> dict[str, np.ndarray]:
    """The fields of a batch, each [B, T].

    Args:
        places: for each row of the batch, the rows that become its segments.
        length: T; None: that of the longest.
        padding: 'right' or 'left'.
        answer_words: whether the words of an answer are learned too.
    """
    longest = max((sum(len(row.ids) for row in rows) for rows in places), default=0)
    shape = (len(places), length or longest)
    found: dict[str, np.ndarray] = {name: np.zeros(shape, np.int32) for name in FIELDS}
    found["weights"] = np.zeros(shape, np.float32)
    found["paddings"] = np.ones(shape, np.int32)
    for place, rows in enumerate(places):
        start = shape[1] - len(rows[0].ids) if padding == "left" else 0
        for segment, row in enumerate(rows, start=1):
            part = np.s_[place, start : start + len(row.ids)]
            found["ids"][part] = row.ids
            found["input_item_weights"][part] = row.is_item
            found["inputs_indicator"][part] = row.prefix
            found["labels"][part] = _shifted(row.targets)
            # As in the original: items of the prompt are no labels, so they are not ranked.
            items = _shifted(row.is_item * (1 - row.prefix))
            found["label_item_weights"][part] = items
            found["weights"][part] = _shifted(1 - row.prefix) if answer_words else items
            found["segment_ids"][part] = segment
            found["segment_pos"][part] = np.arange(len(row.ids))
            found["paddings"][part] = 0
            start += len(row.ids)
    return found


def _shifted(values: np.ndarray) -> np.ndarray:
    """The values shifted left, with 0 at the end."""
    return np.append(values[1:], 0)
