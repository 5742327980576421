"""Reads the first rows of a file: its columns, and values that show how it is written."""

import csv
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from efficientids_flax.prepare.forms import Columnar, Delimited, Form, JsonLines
from efficientids_flax.prepare.reading.blocks import Block
from efficientids_flax.prepare.reading.columnar import plain_rows, types_in
from efficientids_flax.prepare.reading.delimited import DelimitedReader
from efficientids_flax.prepare.reading.lines import LinesReader
from efficientids_flax.prepare.reading.malformed import BadValueError
from efficientids_flax.prepare.reading.streams import UnreadableError, head, is_utf_8
from efficientids_flax.prepare.reading.times import Times

ROWS = 1000  # rows to look at
START = 1 << 17  # bytes that usually hold as many
MOST_ODD = 0.1  # share of rows that may violate the patterns


@dataclass(frozen=True)
class Look:
    """The first rows of a file.

    Attributes:
        path: the file.
        form: how it is written.
        columns: all columns, in order; for JSON, the keys of the first rows.
        rows: values by column; malformed rows are skipped.
        encoding: encoding of the file.
        empty: whether the file holds nothing.
    """

    path: Path
    form: Form
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    encoding: str = "utf-8"
    empty: bool = False

    def values(self, column: str) -> list[Any]:
        """The values of a column in the first rows."""
        return [row[column] for row in self.rows if row.get(column) is not None]

    def fits(self, patterns: tuple[str, ...]) -> bool:
        """Whether almost all rows match the regular expressions, one per column."""
        if not self.rows:
            return False
        odd = sum(
            not all(
                re.fullmatch(pattern, str(row[name]))
                for pattern, name in zip(patterns, self.columns, strict=True)
            )
            for row in self.rows
        )
        return odd <= MOST_ODD * len(self.rows)


def look(path: Path, form: Form, encoding: str | None = None) -> Look:
    """Look at the first rows of a file.

    Args:
        path: the file.
        form: the assumed form.
        encoding: the encoding, if chosen by the user; None: as the form says.

    Raises:
        UnreadableError: the file is damaged.
        OSError: the file cannot be read.
    """
    if isinstance(form, Columnar):
        columns = tuple(types_in(path))
        return Look(path, form, columns, _first_of_parquet(path))
    tried: tuple[str, ...] = form.encodings if isinstance(form, Delimited) else ("utf-8",)
    encoding = encoding or _encoding(path, tried)
    data = head(path, encoding)
    if b"\n" not in data and b"\r" in data.strip():
        raise UnreadableError(
            f"{path}: its lines end in carriage returns alone; convert them to line feeds"
        )
    if isinstance(form, JsonLines):
        return _of_lines(path, form, data, encoding)
    header = form.columns is None
    columns, rows = (), ()
    for part in (_start(data), data):  # the start almost always has enough rows
        columns = form.columns or header_of(part, form)
        reader = DelimitedReader(form, columns, (), Times("s"), header)
        rows = _good(reader.rows(reader.body(Block(part, 1, last=False))))
        if len(rows) == ROWS:
            break
    return Look(path, form, columns, rows, encoding, empty=not data.strip())


def _start(data: bytes) -> bytes:
    """The first whole lines."""
    return data[: data.rfind(b"\n", 0, START) + 1]


def header_of(data: bytes, form: Delimited) -> tuple[str, ...]:
    """The names in the first non-empty line, without RecBole's types."""
    lines = io.StringIO(data.decode(errors="replace").lstrip("\r\n"), newline="")
    if form.quote is None:
        names = lines.readline().rstrip("\r\n").split(form.separator)
    else:
        names = next(csv.reader(lines, delimiter=form.separator, quotechar=form.quote), [])
    names = [name.strip() for name in names]
    return tuple(name.partition(":")[0] for name in names) if form.typed else tuple(names)


def types_of_header(data: bytes, form: Delimited) -> tuple[str, ...]:
    """The types in RecBole's header; empty strings for columns without one."""
    line = data.decode(errors="replace").lstrip("\r\n").split("\n", 1)[0].rstrip("\r")
    return tuple(name.partition(":")[2].strip() for name in line.split(form.separator))


def _of_lines(path: Path, form: JsonLines, data: bytes, encoding: str) -> Look:
    reader = LinesReader(form, (), Times("s"))
    rows = _good(reader.rows(Block(data, 1, last=True)))
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    return Look(path, form, columns, rows, encoding, empty=not data.strip())


def _first_of_parquet(path: Path) -> tuple[Mapping[str, Any], ...]:
    with pq.ParquetFile(path) as file:
        batch = next(file.iter_batches(ROWS), None)
    return () if batch is None else tuple(plain_rows(batch))


def _good(rows: Any) -> tuple[Mapping[str, Any], ...]:
    return tuple(one for _, one in islice(rows, ROWS) if not isinstance(one, BadValueError))


def _encoding(path: Path, tried: tuple[str, ...]) -> str:
    """The encoding of the whole file: UTF-8 if valid or the only candidate, else the last one."""
    if len(tried) > 1 and is_utf_8(path):
        return "utf-8"
    return next(reversed(tried))
