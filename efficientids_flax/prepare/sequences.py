"""Removes duplicates and assigns parts of the split, on sorted rows of whole users.

What depends on the order of a user's rows is done here, once for all engines.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from efficientids_flax.prepare.reading import to_arrow, to_numpy
from efficientids_flax.prepared_format import TEST, TRAIN, VALID

SHORTEST = 3  # least interactions of a user for leave-one-out
ROWS = 1 << 19  # rows that are processed together
LARGEST = 1 << 62  # limit of a sorting key


@dataclass(frozen=True)
class Rule:
    """How duplicates are removed and rows are split.

    Attributes:
        duplicates: "keep-first", "keep-last" or "all".
        split: "leave-one-out", "time" or "none".
        valid_from, test_from: boundaries of a split by time; the part begins with rows of that
            time, in the unit of the rows.
        num_items: number of items.
    """

    duplicates: str
    split: str
    num_items: int
    valid_from: int | None = None
    test_from: int | None = None

    def apply(self, rows: pa.Table) -> pa.Table:
        """Remove duplicates, and add the column `split`, int8.

        Args:
            rows: all rows of some users, by user, time and source order.
        """
        if self.duplicates != "all":
            rows = self._without_duplicates(rows)
        return rows.append_column("split", to_arrow(self._parts(rows)))

    def _without_duplicates(self, rows: pa.Table) -> pa.Table:
        pairs = _numpy(rows, "user").astype(np.int64) * self.num_items + _numpy(rows, "item")
        found = np.sort(pairs)
        if not (found[1:] == found[:-1]).any():
            return rows
        order = np.argsort(pairs, kind="stable")  # stable: rows of a pair keep their order
        same = pairs[order[1:]] == pairs[order[:-1]]
        dropped = order[1:][same] if self.duplicates == "keep-first" else order[:-1][same]
        kept = np.ones(len(pairs), bool)
        kept[dropped] = False
        return rows.filter(to_arrow(kept))

    def _parts(self, rows: pa.Table) -> np.ndarray:
        parts = np.full(len(rows), TRAIN, np.int8)
        if self.split == "leave-one-out" and len(rows):
            users = _numpy(rows, "user")
            ends = np.append(np.flatnonzero(users[1:] != users[:-1]), len(users) - 1)
            long = ends[np.diff(ends, prepend=-1) >= SHORTEST]
            parts[long], parts[long - 1] = TEST, VALID
        elif self.split == "time":
            times = _numpy(rows, "time")
            if self.valid_from is not None:
                parts[times >= self.valid_from] = VALID
            if self.test_from is not None:
                parts[times >= self.test_from] = TEST
        return parts


def in_time_order(rows: pa.Table) -> pa.Table:
    """Sort each user's rows by time; rows of equal time keep their order.

    Args:
        rows: all rows of some users, by user.
    """
    if "time" not in rows.column_names:
        return rows
    users, times = _numpy(rows, "user"), _numpy(rows, "time")
    later = times[1:] >= times[:-1]
    if (later | (users[1:] != users[:-1])).all():
        return rows
    order = _order(users, times)
    columns = {name: to_arrow(_numpy(rows, name)[order]) for name in rows.column_names}
    return pa.table({**columns, "user": rows.column("user")}).select(rows.column_names)


def _order(users: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Sort order by user, time and index; as one integer if it fits, which is much faster."""
    first, bits = int(times.min()), len(users).bit_length()
    wide = int(times.max()) - first + 1
    if (int(users[-1] - users[0]) + 1) * wide << bits >= LARGEST:
        return np.lexsort((times, users))
    keys = ((users.astype(np.int64) - users[0]) * wide + (times - first)) << bits
    keys |= np.arange(len(users))
    keys.sort()
    return keys & ((1 << bits) - 1)


def whole_users(batches: Iterable[pa.RecordBatch], rows: int = ROWS) -> Iterator[pa.Table]:
    """Regroup sorted rows into tables that end with a user's last row.

    Args:
        batches: rows by user.
        rows: minimal rows per table; all rows of a user are in one table, however many.
    """
    held: list[pa.RecordBatch] = []
    length = 0
    for batch in batches:
        held.append(batch)
        length += len(batch)
        if length < rows:
            continue
        table = pa.Table.from_batches(held).combine_chunks()
        users = _numpy(table, "user")
        end = int(np.searchsorted(users, users[-1]))
        if end:
            yield table.slice(0, end)
        held, length = table.slice(end).to_batches(), len(table) - end
        # Wait for more rows, so that a very long user is not scanned again at each batch.
        rows = max(rows, length + ROWS) if not end else ROWS
    if length:
        yield pa.Table.from_batches(held).combine_chunks()


def _numpy(table: pa.Table, column: str) -> np.ndarray:
    return to_numpy(table.column(column))
