"""Rows for evaluation: each user once, with the events before the held-out ones.

      a b c d | e        leave one out: the label e counts, after a b c d
      a b c | d e f      a split by time: d, e and f count, each after all that is before it

Letters: B rows, T time, U users, X excluded items.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from efficientids_flax.data.rows.arrays import Arrays, Rows
from efficientids_flax.data.rows.sequences import Sequences
from efficientids_flax.data.rows.windows import next_items_of
from efficientids_flax.prepared_format import Split

Targets = Literal["all", "first"]


@dataclass(frozen=True)
class Asked:
    """What to predict for each user.

    Attributes:
        split: 'valid' or 'test'.
        length: T.
        targets: 'all' events of the split (the last T if there are more), or only the 'first'.
        exclude_seen: give the items before the row as `exclude`. An evaluation that excludes the
            items of the row then excludes all that the user has seen.
    """

    split: Split
    length: int
    targets: Targets = "all"
    exclude_seen: bool = False


class HeldOut(Rows):
    """Rows for evaluation.

    Attributes:
        sequences: the users' sequences.
        asked: what to predict.
        users: int [B], number of each row's user.
        starts, counts: int64 [B], the first event of each row, and its number of events.
        begins: int64 [B], the first event of the user.
        targets: int64 [B], the first event to predict.
        without_history: number of users with held-out events but none before them; they have no
            row.
        left_out: number of held-out events that do not fit a row.
    """

    def __init__(self, sequences: Sequences, asked: Asked) -> None:
        """Compute only the places; rows are made on demand.

        Raises:
            ValueError: no user has a held-out event with another event before it.
        """
        self.sequences, self.asked = sequences, asked
        begin = sequences.offsets[:, 0]
        first, end = sequences.bounds(asked.split)
        some = end > first
        first = np.maximum(first, begin + 1)
        if asked.targets == "first":
            end = np.minimum(end, first + 1)
        chosen = some & (end > first)
        self.without_history = int(np.count_nonzero(some & ~chosen))
        self.users = sequences.users[chosen]
        begin, first, end = begin[chosen], first[chosen], end[chosen]
        self.begins, self.targets = begin, first
        self.starts = np.maximum(end - (asked.length + 1), begin)
        self.counts = end - self.starts
        self.left_out = int(np.sum(np.maximum(self.starts + 1 - first, 0)))
        self.num_rows = len(self.users)
        if not self.num_rows:
            raise ValueError(
                f"{asked.split}: no user has a held-out event with another before it: there is"
                " nothing to evaluate"
            )
        before = int(np.max(self.starts - begin))
        self._width = 1 << (before - 1).bit_length() if before and asked.exclude_seen else 0

    def take(self, places: np.ndarray) -> Arrays:
        """See `Rows`: the fields of `WindowRows`; with `exclude_seen` `exclude` int32 [B, X]."""
        starts = self.starts[places]
        rows = next_items_of(
            self.sequences.items, starts, self.counts[places], self.asked.length,
            self.targets[places] - starts - 1,
        )  # fmt: skip
        if self._width:
            rows["exclude"] = self.seen(self.begins[places], starts, self._width)
        return rows

    def seen(self, begins: np.ndarray, ends: np.ndarray, width: int) -> np.ndarray:
        """int32 [B, X], the items of a range of events for each row, padded with -1."""
        places = begins[:, None] + np.arange(width)
        there = places < ends[:, None]
        found = self.sequences.items[np.where(there, places, 0)]
        return np.where(there, found, np.int32(-1))

    def facts(self) -> dict[str, Any]:
        """See `Rows`."""
        return {"sequences": self.sequences.digest, **asdict(self.asked)}

    @property
    def people_notes(self) -> tuple[str, ...]:
        """Messages about users, which do not depend on the length of rows."""
        if not self.without_history:
            return ()
        return (
            f"{self.asked.split}: {self.without_history} users have no event before the held-out"
            " ones, so nothing to recommend by; they are left out",
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Rows`."""
        if not self.left_out:
            return self.people_notes
        return (
            *self.people_notes,
            f"{self.asked.split}: {self.left_out} held-out events of users with more than"
            f" {self.asked.length} are left out (a larger length keeps them)",
        )
