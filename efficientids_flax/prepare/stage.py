"""From files to the tables that an engine begins with: rows, the ids in them, texts of items.

An id goes into a row as its place among the ids of the same block, so that texts are written once a
block. The number of a row is `block << 24 | place in the block`: it grows with the source's order.

    rows.parquet    row int64, user int32, item int32, rating float64?, time int64?
    users.parquet   code int64, id string; code is `block << 24 | place among the block's ids`
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

from efficientids_flax.prepare.forms import TEXTS
from efficientids_flax.prepare.layouts import Source, Taken
from efficientids_flax.prepare.reading import SIZE, Malformed, Part, Times, rows_of, times_of

BITS = 24  # of a row's number that are its place in the block
GROUP = 1 << 17  # rows of a row group
IDS = pa.schema([("code", pa.int64()), ("id", pa.string())])
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
    """

    place: Path
    malformed: Malformed
    malformed_items: Malformed
    times: Times | None
    rated: bool
    rows: int = 0
    whole_seconds: bool = True
    described: int = 0
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
    source: Source, place: Path, *, max_bad: int, unit: str | None, size: int = SIZE
) -> Staged:
    """Read all files of a source.

    Args:
        source: the files.
        place: an empty folder.
        max_bad: malformed rows that are allowed, of interactions and as many of items.
        unit: of times, where it is told.
        size: bytes of text that are read at a time.

    Raises:
        MalformedError: there are more malformed rows.
        UnreadableError: a file is damaged.
    """
    times = times_of(_sample(source), unit)
    staged = Staged(
        place, Malformed(max_bad), Malformed(max_bad),
        times if source.has("time") else None, source.has("rating"),
    )  # fmt: skip
    columns: list[tuple[str, Any]] = [
        ("row", pa.int64()),
        ("user", pa.int32()),
        ("item", pa.int32()),
    ]
    columns += [("rating", pa.float64())] if staged.rated else []
    columns += [("time", pa.int64())] if staged.times else []
    with (
        _writer(place / "rows.parquet", pa.schema(columns)) as rows,
        _writer(place / "users.parquet", IDS) as users,
        _writer(place / "items.parquet", IDS) as items,
        _writer(place / "texts.parquet", DESCRIPTIONS) as texts,
    ):
        block = 0
        for part in _parts(source.interactions, times, staged.malformed, size):
            if not part.rows:
                continue
            base = block << BITS
            block += 1
            places = {}
            for role, writer in (("user", users), ("item", items)):
                coded = _coded(part.columns[role])
                codes = pa.array(np.arange(len(coded.dictionary)) + base)
                writer.write_table(pa.table([codes, coded.dictionary], schema=IDS))
                places[role] = coded.indices
            numbers = pa.array(np.arange(part.rows) + base)
            found = {"row": numbers, **places}
            found |= {
                role: part.columns[role] for role in ("rating", "time") if role in rows.schema.names
            }
            rows.write_table(pa.table(found, schema=rows.schema), row_group_size=GROUP)
            staged.rows += part.rows
            if staged.divisor > 1:
                staged.whole_seconds = not (part.columns["time"].to_numpy() % SECOND).any()
            if not source.items and set(part.columns) & set(TEXTS):
                staged.described += _write_first(texts, numbers, places["item"], part)
        for part in _parts(source.items, times, staged.malformed_items, size):
            numbers = pa.array(np.arange(staged.described, staged.described + part.rows))
            texts.write_table(_descriptions(numbers, part.columns))
            staged.described += part.rows
    return staged


def _parts(
    files: tuple[Taken, ...], times: Times, malformed: Malformed, size: int
) -> Iterator[Part]:
    for file in files:
        for part in rows_of(file.look, file.fields, times, size=size):
            malformed.add(str(file.look.path), list(part.bad))
            yield part


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
    return pq.ParquetWriter(
        path, schema, compression="lz4", use_dictionary=False, write_statistics=False
    )


def _coded(column: pa.Array) -> pa.DictionaryArray:
    return column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()


def _write_first(writer: pq.ParquetWriter, numbers: pa.Array, items: pa.Array, part: Part) -> int:
    """Title and text of each item's first row in the block that has any."""
    has = np.zeros(part.rows, bool)
    for role in TEXTS:
        if role in part.columns:
            has |= part.columns[role].is_valid().to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(has)
    _, first = np.unique(items.to_numpy()[rows], return_index=True)
    taken = pa.array(np.sort(rows[first]))
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
