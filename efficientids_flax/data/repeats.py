"""Detection of a stream of batches that repeats the same rows over and over."""

from typing import Any

import jax
import numpy as np

TIMES = 64  # mean number of times that each row came, from which a stream may count as repeating
LEAST = 512  # rows before the first test
MOST = 1 << 18  # distinct rows to remember; with more the guard gives up
EVEN = 0.25  # variance of the rows' counts, relative to that of random draws


class RepeatGuard:
    """Watches batches as they are read.

    A stream repeats if no new rows come for long, and all rows came about equally often, as they do
    in epochs. (Rows that are equal by chance come with unequal frequency.)

    Attributes:
        rows: number of rows read.
        distinct: number of different rows among them.
    """

    def __init__(self) -> None:
        self.rows = self.distinct = 0
        self._counts: dict[int, int] = {}
        self._next = LEAST
        self._looks = True

    def repeats(self, batch: Any) -> bool:
        """Add a batch; returns whether the stream repeats."""
        found = [leaf for leaf in jax.tree.leaves(batch) if np.ndim(leaf)]
        readable = all(getattr(leaf, "is_fully_addressable", True) for leaf in found)
        if not (self._looks and found and readable):
            return False
        leaves = [np.asarray(leaf) for leaf in found]  # those on devices are fetched
        count = min(len(leaf) for leaf in leaves)
        parts = [np.ascontiguousarray(leaf[:count]).reshape(count, -1) for leaf in leaves]
        for row in range(count):
            key = hash(b"".join(part[row].tobytes() for part in parts))
            self._counts[key] = self._counts.get(key, 0) + 1
        self.rows, self.distinct = self.rows + count, len(self._counts)
        if self.distinct > MOST:
            self._looks = False
            self._counts.clear()
        if not self._looks or self.rows < self._next:
            return False
        if self.rows < TIMES * self.distinct:
            return False
        self._next = 2 * self.rows
        counts = np.fromiter(self._counts.values(), np.float64)
        few = len(counts) < 8  # too few to tell chance from epochs
        return bool(np.ptp(counts) <= 1 if few else counts.var() <= EVEN * counts.mean())
