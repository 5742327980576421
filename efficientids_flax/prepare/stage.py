"""Reads the files into the tables that an engine starts from: rows, their ids, texts of items.

Rows hold codes instead of ids, see `codes`; codes grow with the first occurrence in the source.
The number of a row is `block << 24 | index in the block`, so it grows with the source's order.

    rows.parquet    row int64, user int64, item int64, rating float64?, time int64?
    users.parquet   code int64, id string
    items.parquet   the same for items
    texts.parquet   row int64, id string, title string, text string: in source order
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

GROUP = 1 << 17  # rows per row group
DESCRIPTIONS = pa.schema(
    [("row", pa.int64()), ("id", pa.string()), ("title", pa.string()), ("text", pa.string())]
)
SECOND = 1_000_000


@dataclass
class Staged:
    """What was read.

    Attributes:
        place: the folder of the tables.
        rows: number of rows, without malformed ones.
        malformed: malformed rows in files of interactions.
        malformed_items: malformed rows in files of items.
        times: how times were read; None without times.
        whole_seconds: whether every date is a whole second.
        rated: whether rows have ratings.
        described: number of rows in `texts`.
        numbered: roles whose codes are gapless numbers, one per id.
        span: the first and last time; None without times.
        in_turn: whether the rows of each user are contiguous. Files published by user, such as
            MovieLens', then need no sorting except of each user's rows.
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
        """The unit of times in the output; None without times."""
        if self.times is None:
            return None
        dates = self.times.form == "date"
        return "s" if dates and self.whole_seconds else self.times.kept

    @property
    def divisor(self) -> int:
        """What staged times are divided by to get `unit`."""
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
        max_bad: allowed number of malformed rows, of interactions and again of items.
        unit: unit of times, if chosen by the user.
        size: bytes of text that are read at a time.
        most_ids: how many ids are held in memory, of users and again of items.

    Raises:
        MalformedError: more rows are malformed than allowed.
        UnreadableError: a file is damaged, or changed while it was read.
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
    """Yield all rows in output order, for a source that is `in_turn`.

    Yields:
        Tables of whole users, with the columns of `relations.ordered_rows`.
    """
    kinds = {"user": pa.int32(), "item": pa.int32(), "time": pa.int64(), "rating": pa.float32()}
    with pq.ParquetFile(staged.place / "rows.parquet") as file:
        schema = pa.schema([one for one in kinds.items() if one[0] in file.schema_arrow.names])
        for table in whole_users(file.iter_batches(ROWS, columns=schema.names)):
            yield in_time_order(table.select(schema.names).cast(schema))


def _see_users(staged: Staged, found: np.ndarray, last: int) -> int:
    """Update `in_turn`. Codes grow with first occurrence, so contiguous users mean sorted codes."""
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
    """Changes if a file is written to, or replaced by another of its name."""
    found = path.stat()
    return (found.st_ino, found.st_size, found.st_mtime_ns) if path.is_file() else ()


def _sample(source: Source) -> list[Any]:
    """The times in the first rows of all files."""
    return [
        value
        for file in source.interactions
        for one in file.fields
        if one.role == "time"
        for value in file.look.values(one.columns[0])
    ]


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """Open a temporary table: fast to read, and small enough to stay in the page cache."""
    near = [name for name in schema.names if schema.field(name).type == pa.int64()]
    options: dict[str, Any] = {
        "compression": {name: "none" if name in near else "lz4" for name in schema.names},
        "use_dictionary": [name for name in schema.names if name == "rating"] or False,
        "column_encoding": dict.fromkeys(near, "DELTA_BINARY_PACKED"),
    }
    return pq.ParquetWriter(path, schema, write_statistics=False, **options)


def _write_first(writer: pq.ParquetWriter, numbers: pa.Array, items: pa.Array, part: Part) -> int:
    """Write title and text of each item's first row in the block that has either; counts them."""
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
