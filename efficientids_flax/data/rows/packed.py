"""Several rows packed into one, as segments that do not see each other, to avoid padding.

Letters: N rows, P packed rows, B of a batch, T time.
"""

from typing import Any

import numpy as np

from efficientids_flax.data.packing import first_fit
from efficientids_flax.data.rows.arrays import Arrays, Rows


class PackedRows(Rows):
    """Rows packed in order, each into the first packed row where it fits.

    Attributes:
        rows: the rows to pack; right padded, each field [B, T].
        efficiency: share of positions that are used.
        before: the same share without packing.
    """

    def __init__(self, rows: Rows, length: int) -> None:
        """Find a place for each row.

        Args:
            rows: rows that have `sizes`.
            length: T of the packed rows.

        Raises:
            ValueError: the rows have no sizes, or are longer than the packed ones.
        """
        sizes = rows.sizes
        if sizes is None:
            raise ValueError(f"pack: {type(rows).__name__} does not know the sizes of its rows")
        if (wrong := np.flatnonzero(sizes > length)).size:
            raise ValueError(
                f"pack: row {wrong[0]} has {sizes[wrong[0]]} positions, length is {length}"
            )
        self.rows, self.length, self._sizes = rows, length, sizes
        places = first_fit(sizes.tolist(), length)
        self.num_rows = int(places.max(initial=-1)) + 1
        # The rows of packed row p are order[first[p] : first[p + 1]].
        self._order = np.argsort(places, kind="stable")
        counts = np.bincount(places, minlength=self.num_rows)
        self._first = np.concatenate([[0], np.cumsum(counts)])
        total = int(sizes.sum(dtype=np.int64))
        self.efficiency = total / max(self.num_rows * length, 1)
        self.before = total / max(rows.num_rows * length, 1)

    def take(self, places: np.ndarray) -> Arrays:
        """See `Rows`: the fields of the rows, and `segment_ids`, `segment_pos` int32 [B, T]."""
        counts = self._first[places + 1] - self._first[places]
        row = np.repeat(np.arange(len(places)), counts)  # packed row of each that goes into one
        segment = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
        chosen = self._order[np.repeat(self._first[places], counts) + segment]
        sizes = self._sizes[chosen].astype(np.int64)
        begin = np.cumsum(sizes) - sizes
        offset = begin - np.repeat(begin[np.cumsum(counts) - counts], counts)
        given = self.rows.take(chosen)
        width = next(iter(given.values())).shape[1]
        inside = np.arange(width) < sizes[:, None]
        source = np.flatnonzero(inside)
        starts = np.repeat(np.arange(len(sizes)) * width, sizes)
        time = source - starts
        target = np.repeat(row * self.length + offset, sizes) + time
        shape = (len(places), self.length)
        found: Arrays = {}
        for name, value in given.items():
            made = np.full(shape, name == "paddings", value.dtype)
            made.reshape(-1)[target] = value.reshape(-1)[source]
            found[name] = made
        for name, value in (("segment_ids", np.repeat(segment + 1, sizes)), ("segment_pos", time)):
            made = np.zeros(shape, np.int32)
            made.reshape(-1)[target] = value
            found[name] = made
        return found

    def facts(self) -> dict[str, Any]:
        """See `Rows`."""
        return {**self.rows.facts(), "packed": self.length}

    @property
    def words(self) -> str | None:
        """See `Rows`."""
        return self.rows.words

    @property
    def notes(self) -> tuple[str, ...]:
        """See `Rows`."""
        return (
            *self.rows.notes,
            f"packed: {self.rows.num_rows} rows in {self.num_rows}; {self.efficiency:.1%} of the"
            f" positions are of use, {self.before:.1%} without packing",
        )
