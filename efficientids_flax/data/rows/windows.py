"""Rows for training: windows of users' sequences, in which each item predicts the next.

      windows="all", length=3          windows="prefixes"           windows="last"
      a b c d e f  ->  c d e|f         a|b, a b|c, a b c|d, ...     c d e|f
                       a b|c           (the last label counts)

Letters: B rows, T time, N events, U users, W windows.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from efficientids_flax.data.rows.arrays import Arrays, Rows
from efficientids_flax.data.rows.sequences import Sequences

Kind = Literal["all", "last", "prefixes"]
KINDS: tuple[Kind, ...] = ("all", "last", "prefixes")


@dataclass(frozen=True)
class Windows:
    """How windows are cut out of sequences.

    Attributes:
        length: T of the rows; a window has one item more, the last label.
        kind: 'all': windows from each sequence's end to its beginning; 'last': only the last one;
            'prefixes': one for each item but the first, with this item as its only label.
        stride: for 'all': items from one window to the next; None: `length`, so that every item
            but a sequence's first is a label once.

    Raises:
        ValueError: an option is wrong; names it.
    """

    length: int
    kind: Kind = "all"
    stride: int | None = None

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"length: expected at least 1, found {self.length}")
        if self.kind not in KINDS:
            raise ValueError(f"windows: found {self.kind!r}, there are {', '.join(KINDS)}")
        if self.stride is not None and self.kind != "all":
            raise ValueError(f"stride: goes with windows 'all', found {self.kind!r}")
        if self.stride is not None and not 1 <= self.stride <= self.length:
            raise ValueError(
                f"stride: expected in [1, {self.length}], the length, so that no item is left out;"
                f" found {self.stride}"
            )


class WindowRows(Rows):
    """Rows for training.

    Attributes:
        sequences: the users' sequences.
        windows: how windows are cut.
        starts: int64 [W], the first event of each window.
        counts: int32 [W], its number of events, at most T + 1.
        short: number of users with fewer than two training events, who have no row.
    """

    def __init__(self, sequences: Sequences, windows: Windows) -> None:
        """Compute only the places; rows are made on demand.

        Raises:
            ValueError: there is no window.
        """
        self.sequences, self.windows = sequences, windows
        begin, end = sequences.bounds("train")
        sizes = end - begin
        self.short = int(np.count_nonzero(sizes < 2))
        self.starts, self.counts = _cut(begin[sizes >= 2], sizes[sizes >= 2], windows)
        self.num_rows = len(self.starts)
        if not self.num_rows:
            raise ValueError(
                f"train: none of {len(sequences.users)} users has two events to train on: there is"
                " no label"
            )

    def take(self, places: np.ndarray) -> Arrays:
        """See `Rows`: `ids`, `labels` int32, `weights`, `paddings` float32, each [B, T]."""
        counts = self.counts[places]
        first = None
        if self.windows.kind == "prefixes":
            first = counts - 2  # the position of the last label
        return next_items_of(
            self.sequences.items, self.starts[places], counts, self.windows.length, first,
        )  # fmt: skip

    def facts(self) -> dict[str, Any]:
        """See `Rows`."""
        return {"sequences": self.sequences.digest, **asdict(self.windows)}

    @property
    def sizes(self) -> np.ndarray:
        """See `Rows`: number of positions with a label."""
        return self.counts - 1

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Rows`."""
        if not self.short:
            return ()
        return (
            f"train: {self.short} of {len(self.sequences.users)} users have fewer than two events"
            " to train on, and no row",
        )


def next_items_of(
    items: np.ndarray,
    starts: np.ndarray,
    counts: np.ndarray,
    length: int,
    first: np.ndarray | None = None,
) -> Arrays:
    """The fields of `next_items`, of events of one flat array.

    Args:
        items: int32 [N].
        starts, counts: int [B], the first event of each row, and how many it has, up to T + 1.
        length: T.
        first: int [B], the first position whose label counts; None: all labels do.

    Returns:
        Each [B, T], filled up at the end.
    """
    time = np.arange(length + 1)
    there = time < counts[:, None]  # [B, T + 1]
    found = items[np.minimum(starts[:, None] + time, max(len(items) - 1, 0))]
    found = np.where(there, found, np.int32(0))
    counted = there[:, 1:] if first is None else there[:, 1:] & (time[:-1] >= first[:, None])
    return {
        "ids": np.ascontiguousarray(found[:, :-1]),
        "labels": np.ascontiguousarray(found[:, 1:]),
        "weights": counted.astype(np.float32),
        "paddings": (~there[:, :-1]).astype(np.float32),
    }


def _cut(begin: np.ndarray, sizes: np.ndarray, windows: Windows) -> tuple[np.ndarray, np.ndarray]:
    """(first event, number of events) of each window, user by user.

    Args:
        begin: int64 [U], each user's first event.
        sizes: int64 [U], number of events, at least 2.
        windows: how windows are cut.
    """
    most = windows.length + 1
    if windows.kind == "last":
        counts = np.minimum(sizes, most)
        return begin + sizes - counts, counts.astype(np.int32)
    if windows.kind == "prefixes":
        numbers = sizes - 1
    else:
        stride = windows.stride or windows.length
        numbers = 1 + -(-np.maximum(sizes - most, 0) // stride)
    person = np.repeat(np.arange(len(sizes)), numbers)
    rank = np.arange(int(numbers.sum())) - np.repeat(np.cumsum(numbers) - numbers, numbers)
    if windows.kind == "prefixes":
        ends = rank + 2
    else:
        ends = sizes[person] - rank * (windows.stride or windows.length)
    counts = np.minimum(ends, most)
    return begin[person] + ends - counts, counts.astype(np.int32)
