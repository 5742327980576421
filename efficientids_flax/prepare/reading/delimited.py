"""Reads delimited text: whole blocks by pyarrow, or row by row if anything in a block is unusual.

Both give the same result: reading by row defines what a row is, and pyarrow is used only if it
cannot differ. As in Python's `csv`, a quote opens a quoted column only at the column's start, two
quotes inside mean one, and text between the closing quote and the separator belongs to the column.
Columns with line breaks are the exception: there the closing quote must end the column, else a
stray quote would merge many rows into one.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
from pyarrow import compute

from efficientids_flax.prepare.forms import IDS, Delimited, Field
from efficientids_flax.prepare.reading.blocks import Block
from efficientids_flax.prepare.reading.malformed import BadValueError, decoded
from efficientids_flax.prepare.reading.part import Part, Row, part_of
from efficientids_flax.prepare.reading.times import Times
from efficientids_flax.prepare.reading.usual import is_plain, types_of, usual

pc: Any = compute  # pyarrow creates these functions at import
LONGEST = 1 << 20  # bytes of a quoted row; a quote that is open for longer is a mistake
STAND_IN = "\x1f"  # replaces a separator of several characters, which pyarrow does not support
NEWLINE, RETURN = 10, 13
csv.field_size_limit(LONGEST)


@dataclass(frozen=True)
class DelimitedReader:
    """Reads blocks of one file.

    Attributes:
        form: how the file is written.
        columns: all columns of the file, in order.
        fields: what is read.
        times: how times are read.
        header: whether the first line is a header.
    """

    form: Delimited
    columns: tuple[str, ...]
    fields: tuple[Field, ...]
    times: Times
    header: bool

    def read(self, block: Block) -> Part:
        """The rows of a block."""
        block = self.body(block)
        return self._whole(block) or self._by_row(block)

    def body(self, block: Block) -> Block:
        """The block without the header, which is the first non-empty line of the file."""
        if not self.header or block.line > 1:
            return block
        end = re.match(rb"(?:[\r\n]*)[^\n]*(?:\n|\Z)", block.data)
        assert end is not None
        cut = end.end()
        return Block(block.data[cut:], 1 + block.data.count(b"\n", 0, cut), block.last)

    def _whole(self, block: Block) -> Part | None:
        """Read all rows at once; None if any is unusual."""
        data = block.data
        if not is_plain(self.fields):
            return None
        if b"\r" in data and data.count(b"\r") != data.count(b"\r\n"):
            return None
        separator = self.form.separator
        if len(separator) > 1:
            if STAND_IN.encode() in data:
                return None
            data, separator = data.replace(separator.encode(), STAND_IN.encode()), STAND_IN
        quote = self.form.quote
        if quote is not None:
            if quote.encode() not in data:
                quote = None
            elif not _well_quoted(data, separator, quote):
                return None
        types = types_of(self.fields, self.times, hexadecimal=b"x" in data or b"X" in data)
        try:
            table = pa_csv.read_csv(
                pa.BufferReader(data),
                pa_csv.ReadOptions(use_threads=False, block_size=len(data) + 1,
                                   column_names=list(self.columns)),
                pa_csv.ParseOptions(delimiter=separator, quote_char=quote or False,
                                    newlines_in_values=quote is not None),
                pa_csv.ConvertOptions(column_types=types, null_values=[],
                                      include_columns=list(types)),
            )  # fmt: skip
        except pa.ArrowInvalid:
            return None  # also for an empty block
        columns = {
            field.role: table.column(field.columns[0]).combine_chunks() for field in self.fields
        }
        found = usual(columns, self.times)
        return None if found and self._may_hold_header(found) else found

    def _may_hold_header(self, part: Part) -> bool:
        """Whether an id equals its column's name: concatenated files have headers in the middle."""
        if not self.header:
            return False
        one = next(field for field in self.fields if field.role in IDS)
        pattern = rf"^\s*{re.escape(one.columns[0])}" + (":" if self.form.typed else r"\s*$")
        ids = part.columns[one.role].dictionary
        return bool(pc.any(pc.match_substring_regex(ids, pattern)).as_py())

    def _by_row(self, block: Block) -> Part:
        rest: list[Block] = []
        rows = part_of(self.rows(block, rest), self.fields, self.times)
        return replace(rows, rest=rest[0]) if rest else rows

    def rows(self, block: Block, rest: list[Block] | None = None) -> Iterator[Row]:
        """Yield line number and values of each row; an incomplete last row goes to `rest`."""
        lines = block.data.split(b"\n")
        at = 0
        while at < len(lines):
            line, number = lines[at], block.line + at
            at += 1
            if line in {b"", b"\r"}:
                continue
            try:
                text = _text(line, self.form.quote)
                if self.form.quote is None or self.form.quote not in text:
                    yield number, self._named(text.split(self.form.separator))
                    continue
                taken = _Lines(lines, at - 1)
                fields = next(
                    csv.reader(taken, delimiter=self.form.separator, quotechar=self.form.quote)
                )
            except BadValueError as error:
                yield number, error
                continue
            except csv.Error as error:
                yield number, BadValueError("columns cannot be told apart", str(error))
                continue
            if taken.ran_out and not block.last and taken.length < LONGEST:
                if rest is not None:
                    rest.append(Block(b"\n".join(lines[at - 1 :]), number, last=False))
                return
            if taken.ran_out:
                yield number, BadValueError("quote is not closed", "")
                continue
            lines_taken = taken.at - at + 1
            if lines_taken > 1 and not self._ends_well(lines[at - 1 : taken.at]):
                yield number, BadValueError("quote is not closed", "where a column ends")
                continue
            at = taken.at
            try:
                yield number, self._named(fields)
            except BadValueError as error:
                if lines_taken > 1:
                    told = f"{error.told}; by its quotes it goes on to line {block.line + at - 1}"
                    error = BadValueError(error.kind, told)
                yield number, error

    def _ends_well(self, lines: list[bytes]) -> bool:
        """Whether quotes close at the end of a column; if not, a stray quote has merged rows."""
        row = [decoded(line.removesuffix(b"\r")) + "\n" for line in lines]
        try:
            next(csv.reader(row, delimiter=self.form.separator, quotechar=self.form.quote,
                            strict=True))  # fmt: skip
        except csv.Error:
            return False
        return True

    def _named(self, fields: list[str]) -> dict[str, str]:
        if len(fields) != len(self.columns):
            raise BadValueError(
                "number of columns", f"found {len(fields)}, expected {len(self.columns)}"
            )
        if self.header and fields[0].strip().startswith(self.columns[0]):
            names = (name.strip() for name in fields)
            if self.form.typed:
                names = (name.partition(":")[0] for name in names)
            if tuple(names) == self.columns:
                raise BadValueError("header once more", "")
        return dict(zip(self.columns, fields, strict=True))


class _Lines:
    """Feeds lines to `csv.reader`, which takes as many as a row has."""

    def __init__(self, lines: list[bytes], at: int) -> None:
        self.lines, self.at, self.length, self.ran_out = lines, at, 0, False

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        last = self.at >= len(self.lines) - 1 and not self.lines[-1]
        if self.at >= len(self.lines) or last or self.length > LONGEST:
            self.ran_out = True
            raise StopIteration
        line = self.lines[self.at]
        self.at += 1
        self.length += len(line)
        return decoded(line) + "\n"


def _text(line: bytes, quote: str | None) -> str:
    text = decoded(line).removesuffix("\r")
    if "\r" in text and (quote is None or quote not in text):
        raise BadValueError("carriage return inside of a row", "")
    return text


def _well_quoted(data: bytes, separator: str, quote: str) -> bool:
    """Whether each quote opens a column, closes one, or is one of two that mean a quote."""
    text = np.frombuffer(data, np.uint8)
    at = np.flatnonzero(text == ord(quote))
    if len(at) % 2:
        return False
    opening, closing = at[::2], at[1::2]
    twice = np.zeros(len(opening), bool)  # closes and opens again: a doubled quote
    twice[1:] = closing[:-1] + 1 == opening[1:]
    ends = [ord(separator), NEWLINE]
    before = text[np.maximum(opening - 1, 0)]
    starts = (opening == 0) | np.isin(before, ends) | twice
    after = text[np.minimum(closing + 1, len(text) - 1)]
    again = np.append(twice[1:], False)
    stops = (closing == len(text) - 1) | np.isin(after, [*ends, RETURN]) | again
    return bool(starts.all() and stops.all())
