"""From files to the tables that an engine begins with: rows, the ids in them, texts of items.

A row has codes in place of ids, which grow with the first occurrence in the source, see `codes`.
The number of a row is `block << 24 | place in the block`: it grows with the source's order.

    rows.parquet    row int64, user int64, item int64, rating float64?, time int64?
    users.parquet   code int64, id string
    items.parquet   the same of items
    texts.parquet   row int64, id string, title string, text string: as they are found
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from efficientids_flax.prepare.codes import BITS, IDS, MOST, Codes
from efficientids_flax.prepare.forms import TEXTS
from efficientids_flax.prepare.layouts import Source, Taken
from efficientids_flax.prepare.reading import (
    SIZE,
    Malformed,
    Part,
    Times,
    UnreadableError,
    rows_of,
    times_of,
    to_arrow,
    to_numpy,
)
from efficientids_flax.prepare.sequences import ROWS, in_time_order, whole_users

GROUP = 1 << 17  # rows of a row group
DESCRIPTIONS = pa.schema(
    [("row", pa.int64()), ("id", pa.string()), ("title", pa.string()), ("text", pa.string())]
)
SECOND = 1_000_000


@dataclass
class Staged:
    """What was read.

    Attributes:
        place: the folder of the tables.
        rows: that were read and are not malformed.
        malformed: of files of interactions.
        malformed_items: of files of items.
        times: how times were read; None without any.
        whole_seconds: every date is a whole second.
        rated: rows have ratings.
        described: rows of texts.
        numbered: roles whose codes are numbers without gaps, each id having one.
        span: the first and last time; None without times.
        in_turn: no row of a user comes after another user's, as far as this is known: the files
            that are published by user, as MovieLens', need no sorting but of each user's rows.
    """

    place: Path
    malformed: Malformed
    malformed_items: Malformed
    times: Times | None
    rated: bool
    rows: int = 0
    whole_seconds: bool = True
    described: int = 0
    numbered: frozenset[str] = frozenset()
    span: tuple[int, int] | None = None
    in_turn: bool = True
    tables: tuple[str, ...] = field(default=("rows", "users", "items", "texts"))

    @property
    def unit(self) -> str | None:
        """What the times that come out count; None without times."""
        if self.times is None:
            return None
        dates = self.times.form == "date"
        return "s" if dates and self.whole_seconds else self.times.kept

    @property
    def divisor(self) -> int:
        """What staged times are divided by to be in `unit`."""
        is_date = self.times is not None and self.times.form == "date"
        return SECOND if is_date and self.whole_seconds else 1


def stage(
    source: Source,
    place: Path,
    *,
    max_bad: int,
    unit: str | None,
    size: int = SIZE,
    most_ids: int = MOST,
) -> Staged:
    """Read all files of a source.

    Args:
        source: the files.
        place: an empty folder.
        max_bad: malformed rows that are allowed, of interactions and as many of items.
        unit: of times, where it is told.
        size: bytes of text that are read at a time.
        most_ids: that are held in memory, of users and of items.

    Raises:
        MalformedError: there are more malformed rows.
        UnreadableError: a file is damaged, or written to meanwhile.
    """
    stamps = {one.look.path: _stamp(one.look.path) for one in (*source.interactions, *source.items)}
    times = times_of(_sample(source), unit)
    staged = Staged(
        place, Malformed(max_bad), Malformed(max_bad),
        times if source.has("time") else None, source.has("rating"),
    )  # fmt: skip
    columns: list[tuple[str, Any]] = [(name, pa.int64()) for name in ("row", "user", "item")]
    columns += [("rating", pa.float64())] if staged.rated else []
    columns += [("time", pa.int64())] if staged.times else []
    with (
        _writer(place / "rows.parquet", pa.schema(columns)) as rows,
        _writer(place / "users.parquet", IDS) as users,
        _writer(place / "items.parquet", IDS) as items,
        _writer(place / "texts.parquet", DESCRIPTIONS) as texts,
    ):
        block, last = 0, -1
        codes = {"user": Codes(users, most_ids), "item": Codes(items, most_ids)}
        for part in _parts(source.interactions, times, staged.malformed, size, stamps):
            if not part.rows:
                continue
            block += 1
            numbers = to_arrow(np.arange(part.rows, dtype=np.int64) + (block << BITS))
            found = {"row": numbers, **{name: part.columns[name] for name in rows.schema.names[3:]}}
            found |= {role: one.of(part.columns[role], block) for role, one in codes.items()}
            rows.write_table(pa.table(found, schema=rows.schema), row_group_size=GROUP)
            last = _see_users(staged, to_numpy(found["user"]), last)
            staged.rows += part.rows
            if staged.times:
                _see_times(staged, to_numpy(part.columns["time"]))
            if not source.items and set(part.columns) & set(TEXTS):
                staged.described += _write_first(texts, numbers, found["item"], part)
        for part in _parts(source.items, times, staged.malformed_items, size, stamps):
            numbers = to_arrow(np.arange(staged.described, staged.described + part.rows))
            texts.write_table(_descriptions(numbers, part.columns))
            staged.described += part.rows
    staged.numbered = frozenset(role for role, one in codes.items() if one.complete)
    staged.in_turn = staged.in_turn and len(staged.numbered) == len(codes)
    return staged


def users_in_turn(staged: Staged) -> Iterator[pa.Table]:
    """All rows in the order in which they are written, of a source that is `in_turn`.

    Yields:
        Tables of whole users, with the columns that `relations.ordered_rows` has.
    """
    kinds = {"user": pa.int32(), "item": pa.int32(), "time": pa.int64(), "rating": pa.float32()}
    with pq.ParquetFile(staged.place / "rows.parquet") as file:
        schema = pa.schema([one for one in kinds.items() if one[0] in file.schema_arrow.names])
        for table in whole_users(file.iter_batches(ROWS, columns=schema.names)):
            yield in_time_order(table.select(schema.names).cast(schema))


def _see_users(staged: Staged, found: np.ndarray, last: int) -> int:
    """Look whether users come one after another: numbers grow with the first occurrence."""
    if staged.in_turn:
        staged.in_turn = bool(last <= found[0] and (found[1:] >= found[:-1]).all())
    return int(found[-1])


def _see_times(staged: Staged, found: np.ndarray) -> None:
    least, greatest = int(found.min()), int(found.max())
    if staged.span is not None:
        least, greatest = min(least, staged.span[0]), max(greatest, staged.span[1])
    staged.span = least, greatest
    if staged.divisor > 1:
        staged.whole_seconds = not (found % SECOND).any()


def _parts(
    files: tuple[Taken, ...], times: Times, malformed: Malformed, size: int,
    stamps: dict[Path, tuple[int, ...]],
) -> Iterator[Part]:  # fmt: skip
    for file in files:
        for part in rows_of(file.look, file.fields, times, size=size):
            malformed.add(str(file.look.path), list(part.bad))
            yield part
        if _stamp(file.look.path) != stamps[file.look.path]:
            raise UnreadableError(
                f"{file.look.path}: was changed while it was read; prepare again once it is whole"
            )


def _stamp(path: Path) -> tuple[int, ...]:
    """What tells that a file was written to, or that another has its name."""
    found = path.stat()
    return (found.st_ino, found.st_size, found.st_mtime_ns) if path.is_file() else ()


def _sample(source: Source) -> list[Any]:
    """The times of the first rows of all files."""
    return [
        value
        for file in source.interactions
        for one in file.fields
        if one.role == "time"
        for value in file.look.values(one.columns[0])
    ]


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """For files that are read a few times and removed: fast, and small enough to stay in memory."""
    near = [name for name in schema.names if schema.field(name).type == pa.int64()]
    options: dict[str, Any] = {
        "compression": {name: "none" if name in near else "lz4" for name in schema.names},
        "use_dictionary": [name for name in schema.names if name == "rating"] or False,
        "column_encoding": dict.fromkeys(near, "DELTA_BINARY_PACKED"),
    }
    return pq.ParquetWriter(path, schema, write_statistics=False, **options)


def _write_first(writer: pq.ParquetWriter, numbers: pa.Array, items: pa.Array, part: Part) -> int:
    """Title and text of each item's first row in the block that has any."""
    has = np.zeros(part.rows, bool)
    for role in TEXTS:
        if role in part.columns:
            has |= part.columns[role].is_valid().to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(has)
    _, first = np.unique(to_numpy(items)[rows], return_index=True)
    taken = to_arrow(np.sort(rows[first]))
    columns = {role: column.take(taken) for role, column in part.columns.items()}
    writer.write_table(_descriptions(numbers.take(taken), columns))
    return len(taken)


def _descriptions(numbers: pa.Array, columns: dict[str, pa.Array]) -> pa.Table:
    none = pa.nulls(len(numbers), pa.string())
    ids = columns["item"]
    if isinstance(ids, pa.DictionaryArray):
        ids = ids.cast(pa.string())
    texts = [columns.get(role, none) for role in TEXTS]
    return pa.table([numbers, ids, *texts], schema=DESCRIPTIONS)
