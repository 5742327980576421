"""Writes the interactions as Parquet files of whole users, independent of the input batches.

The same rows give the same bytes: row groups have a fixed size, counted from the file's start.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from efficientids_flax.prepare.reading import to_numpy
from efficientids_flax.prepare.sequences import SHORTEST
from efficientids_flax.prepared_format import SPLITS, TRAIN, shard_name

NEAR = ("user", "item", "time", "count")
GROUP = 1 << 17  # rows per row group


@dataclass(frozen=True)
class Shard:
    """One file: name, number of rows, first and last user."""

    file: str
    rows: int
    users: tuple[int, int]


class Counts:
    """Counts of the rows that are written.

    Attributes:
        of_user: interactions of each user, in all parts.
        of_item: interactions of each item in the training part.
        of_item_later: interactions of each item in the other parts.
        parts: interactions of each part, by name in `SPLITS`.
        new_users: number of users without a training row.
        short_users: number of users with fewer rows than leave-one-out needs.
    """

    def __init__(self, num_items: int) -> None:
        self.of_user: list[np.ndarray] = []
        self.of_item = np.zeros(num_items, np.int64)
        self.parts = dict.fromkeys(SPLITS, 0)
        self.of_item_later = np.zeros(num_items, np.int64)
        self.new_users = self.short_users = 0

    def add(self, rows: pa.Table) -> None:
        """Count rows of whole users."""
        users, items, parts = (to_numpy(rows.column(name)) for name in ("user", "item", "split"))
        starts = np.append(0, np.flatnonzero(users[1:] != users[:-1]) + 1)
        lengths = np.diff(np.append(starts, len(users)))
        self.of_user.append(lengths.astype(np.int32))
        train = parts == TRAIN
        self.of_item += np.bincount(items[train], minlength=len(self.of_item))
        self.of_item_later += np.bincount(items[~train], minlength=len(self.of_item))
        self.new_users += int((np.add.reduceat(train.astype(np.int64), starts) == 0).sum())
        self.short_users += int((lengths < SHORTEST).sum())
        for part, name in enumerate(SPLITS):
            self.parts[name] += int((parts == part).sum())

    @property
    def interactions(self) -> int:
        """The number of interactions in all parts."""
        return sum(self.parts.values())

    @property
    def cold(self) -> np.ndarray:
        """Whether each item is cold, without a training row; bool [I]."""
        return self.of_item == 0


class ShardWriter:
    """Writes tables of whole users one after another.

    Args:
        place: the output folder.
        schema: schema of the rows.
        shard_rows: a file ends with the user who reaches this number of rows.
    """

    def __init__(self, place: Path, schema: pa.Schema, shard_rows: int) -> None:
        self._place, self._schema, self._shard_rows = place, schema, shard_rows
        self._shards: list[Shard] = []
        self._held: list[pa.Table] = []
        self._holds = self._rows = 0
        self._users: tuple[int, int] | None = None
        self._writer: pq.ParquetWriter | None = None

    def write(self, rows: pa.Table) -> None:
        """Add rows of whole users."""
        rows = rows.select(self._schema.names).cast(self._schema)
        while len(rows):
            users = to_numpy(rows.column("user"))
            wanted = self._shard_rows - self._rows
            end = len(rows)
            if wanted <= end:
                end = int(np.searchsorted(users, users[wanted - 1], side="right"))
            self._add(rows.slice(0, end), (int(users[0]), int(users[end - 1])))
            rows = rows.slice(end)
            if self._rows >= self._shard_rows:
                self._finish()

    def close(self) -> list[Shard]:
        """Finish the last file, and give all files their final names."""
        if self._rows or not self._shards:
            self._finish()
        total = len(self._shards)
        named = []
        for index, shard in enumerate(self._shards):
            file = shard_name(index, total)
            (self._place / shard.file).rename(self._place / file)
            named.append(Shard(file, shard.rows, shard.users))
        return named

    def abandon(self) -> None:
        """Close the open file, complete or not."""
        if self._writer is not None:
            self._writer.close()

    def _add(self, rows: pa.Table, users: tuple[int, int]) -> None:
        self._users = (self._users or users)[0], users[1]
        self._held.append(rows)
        self._holds += len(rows)
        self._rows += len(rows)
        while self._holds >= GROUP:
            self._write_group(GROUP)

    def _write_group(self, size: int) -> None:
        held = pa.concat_tables(self._held)
        if self._writer is None:
            path = self._place / f"{len(self._shards)}.parquet"
            self._writer = open_parquet(path, self._schema)
        self._writer.write_table(held.slice(0, size).combine_chunks(), row_group_size=GROUP)
        rest = held.slice(size)
        self._held, self._holds = [rest] if len(rest) else [], len(rest)

    def _finish(self) -> None:
        if self._holds:
            self._write_group(self._holds)
        if self._writer is None or self._users is None:
            raise ValueError("there are no interactions to write")
        self._writer.close()
        self._shards.append(Shard(f"{len(self._shards)}.parquet", self._rows, self._users))
        self._writer, self._users, self._rows = None, None, 0


def open_parquet(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Open a Parquet file with the settings of all output files."""
    options: dict[str, Any] = {}
    near = [name for name in NEAR if name in schema.names]  # neighbouring rows differ little
    options["use_dictionary"] = [name for name in schema.names if name not in near]
    options["column_encoding"] = dict.fromkeys(near, "DELTA_BINARY_PACKED")
    return pq.ParquetWriter(path, schema, compression="snappy", **options)
