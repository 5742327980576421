"""The first rows of a file: its columns, and values that show how it is written."""

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

ROWS = 1000  # that are looked at
START = 1 << 17  # bytes, which most often hold as many
MOST_ODD = 0.1  # of them that may not be as a pattern says, for the file to be taken for one


@dataclass(frozen=True)
class Look:
    """What the first rows of a file show.

    Attributes:
        path: of the file.
        form: how it is written.
        columns: all of them, in order; of JSON those of the first rows.
        rows: values by column; malformed ones are passed over here.
        encoding: of the file.
        empty: it holds nothing.
    """

    path: Path
    form: Form
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, Any], ...]
    encoding: str = "utf-8"
    empty: bool = False

    def values(self, column: str) -> list[Any]:
        """Those of a column that the first rows have."""
        return [row[column] for row in self.rows if row.get(column) is not None]

    def fits(self, patterns: tuple[str, ...]) -> bool:
        """Whether the columns look as the regular expressions say, but for a few rows."""
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
        path: of the file.
        form: how it is taken to be written.
        encoding: where it is told; None: what the form says.

    Raises:
        UnreadableError: the file is damaged.
        OSError: it cannot be read.
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
    for part in (_start(data), data):  # seldom are more looked at than the start has
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
    """The names in the first line that is not empty; without the types of RecBole."""
    lines = io.StringIO(data.decode(errors="replace").lstrip("\r\n"), newline="")
    if form.quote is None:
        names = lines.readline().rstrip("\r\n").split(form.separator)
    else:
        names = next(csv.reader(lines, delimiter=form.separator, quotechar=form.quote), [])
    names = [name.strip() for name in names]
    return tuple(name.partition(":")[0] for name in names) if form.typed else tuple(names)


def types_of_header(data: bytes, form: Delimited) -> tuple[str, ...]:
    """The types in RecBole's first line, empty where there is none."""
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
    """The first that the whole file is written in; the last is not checked."""
    if len(tried) > 1 and is_utf_8(path):
        return "utf-8"
    return next(reversed(tried))
