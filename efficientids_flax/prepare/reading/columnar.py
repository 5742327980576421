"""Reads Parquet files in batches; malformed rows are reported by row number."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import compute

from efficientids_flax.prepare.forms import IDS, Field
from efficientids_flax.prepare.reading.part import Part, part_of
from efficientids_flax.prepare.reading.streams import UnreadableError
from efficientids_flax.prepare.reading.times import FIRST, LAST, Times
from efficientids_flax.prepare.reading.usual import is_plain, usual

pc: Any = compute  # pyarrow creates these functions at import
ROWS = 1 << 19  # rows per batch; fewer than 2**24


@dataclass(frozen=True)
class ColumnarReader:
    """Reads one file.

    Attributes:
        path: the file.
        fields: what is read.
        times: how times are read.
    """

    path: Path
    fields: tuple[Field, ...]
    times: Times

    def parts(self) -> Iterator[Part]:
        """Yield the rows, batch by batch.

        Raises:
            UnreadableError: the file is damaged.
        """
        names = list(dict.fromkeys(name for field in self.fields for name in field.columns))
        first = 1
        try:
            with pq.ParquetFile(self.path) as file:
                for batch in file.iter_batches(ROWS, columns=names):
                    yield self._part(batch, first)
                    first += len(batch)
        except (pa.ArrowInvalid, OSError) as error:
            raise UnreadableError(f"{self.path}: is no whole Parquet file: {error}") from error

    def _part(self, batch: pa.RecordBatch, first: int) -> Part:
        if (whole := self._whole(batch)) is not None:
            return whole
        return part_of(enumerate(plain_rows(batch), first), self.fields, self.times)

    def _whole(self, batch: pa.RecordBatch) -> Part | None:
        if not is_plain(self.fields):
            return None
        columns = {}
        for field in self.fields:
            column = batch.column(field.columns[0])
            wanted = _read_as(field.role, column.type, self.times)
            if wanted is None:
                return None
            try:
                # Nanoseconds are truncated to microseconds.
                options = pc.CastOptions(wanted, allow_time_truncate=True)
                columns[field.role] = column.cast(options=options)
            except pa.ArrowInvalid:
                return None
        if self.times.form == "date" and _beyond(columns.get("time")):
            return None
        return usual(columns, self.times)


def plain_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The rows as Python values, with nanoseconds truncated to microseconds.

    Python's dates have no nanoseconds, and PyArrow refuses to convert them without pandas.
    """
    columns = [_values(_in_microseconds(column)) for column in batch.columns]
    return [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]


def _values(column: pa.Array) -> list[Any]:
    try:
        return column.to_pylist()
    except (OverflowError, ValueError):  # dates outside of Python's range become numbers
        return [_value(one) for one in column]


def _value(one: Any) -> Any:
    try:
        return one.as_py()
    except (OverflowError, ValueError):
        return getattr(one, "value", None)


def _in_microseconds(column: pa.Array) -> pa.Array:
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return column.cast(pa.timestamp("us", kind.tz), safe=False)
    if pa.types.is_time64(kind) and kind.unit == "ns":
        return column.cast(pa.time64("us"), safe=False)
    if pa.types.is_duration(kind) and kind.unit == "ns":
        return column.cast(pa.duration("us"), safe=False)
    return column


def _beyond(column: pa.Array | None) -> bool:
    """Whether there are dates outside the years 1 to 9999."""
    if column is None or column.null_count == len(column):
        return False
    found = pc.min_max(column.cast(pa.int64())).as_py()
    return found["min"] < FIRST or found["max"] > LAST


def types_in(path: Path) -> dict[str, pa.DataType]:
    """The columns of a file and their types.

    Raises:
        UnreadableError: it is not a Parquet file.
    """
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UnreadableError(f"{path}: is no whole Parquet file: {error}") from error
    return dict(zip(schema.names, schema.types, strict=True))


def type_problem(role: str, kind: pa.DataType) -> str | None:
    """Why a column of this type cannot have this role; None if it can."""
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    whole = pa.types.is_integer(kind)
    number = whole or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    date = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    if role in IDS and not (text or whole):
        return f"ids are texts or whole numbers, and not {kind}; cast the column"
    if role == "rating" and not (text or number):
        return f"ratings are numbers, and not {kind}"
    if role == "time" and not (text or number or date):
        return f"times are numbers or dates, and not {kind}"
    return None


def _read_as(role: str, kind: pa.DataType, times: Times) -> pa.DataType | None:
    """The type to cast a column to; None: read it row by row."""
    if isinstance(kind, pa.DictionaryType):
        kind = kind.value_type
    if role == "rating":
        return pa.float64() if pa.types.is_integer(kind) or pa.types.is_floating(kind) else None
    if role != "time":
        return None if pa.types.is_list(kind) or pa.types.is_large_list(kind) else pa.string()
    if times.form == "date":
        return pa.timestamp("us") if pa.types.is_timestamp(kind) or pa.types.is_date(kind) else None
    if pa.types.is_floating(kind):
        return pa.float64()
    return pa.int64() if pa.types.is_integer(kind) and times.form == "whole" else None
