"""Lines of columns: whole blocks by pyarrow, row by row where anything in a block is unusual.

Both ways read the same: the second defines what a row is, the first is taken only where it cannot
differ. A quote opens a quoted column at the column's start alone, two of them inside are one, and
what follows the closing one up to the separator belongs to the column, as in Python's `csv`, but
for columns with line breaks: there a stray quote would make one row of many.
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

pc: Any = compute  # its functions are made when it is imported
LONGEST = 1 << 20  # bytes of a row: a quote that is not closed until then is a mistake
STAND_IN = "\x1f"  # for separators of several characters, which pyarrow does not take
NEWLINE, RETURN = 10, 13
csv.field_size_limit(LONGEST)


@dataclass(frozen=True)
class DelimitedReader:
    """Reads blocks of one file.

    Attributes:
        form: how the file is written.
        columns: of the file, all of them, in order.
        fields: what is taken.
        times: how times are read.
        header: the first line is one.
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
        """A block without the header: of the file's first, the first line that is not empty."""
        if not self.header or block.line > 1:
            return block
        end = re.match(rb"(?:[\r\n]*)[^\n]*(?:\n|\Z)", block.data)
        assert end is not None
        cut = end.end()
        return Block(block.data[cut:], 1 + block.data.count(b"\n", 0, cut), block.last)

    def _whole(self, block: Block) -> Part | None:
        """All rows at once; None where one is unusual."""
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
            return None  # an empty block too
        columns = {
            field.role: table.column(field.columns[0]).combine_chunks() for field in self.fields
        }
        found = usual(columns, self.times)
        return None if found and self._may_hold_header(found) else found

    def _may_hold_header(self, part: Part) -> bool:
        """Whether an id is as its column is named: files that were joined hold headers inside."""
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
        """Line and values of each row; what is not whole goes to `rest`."""
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
        """Whether quotes close at the end of a column: else a stray one has joined several rows."""
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
    """Lines for `csv.reader`, which takes as many as a row has."""

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
    """Every quote opens a column at its start, closes it at its end, or is one of two inside."""
    text = np.frombuffer(data, np.uint8)
    at = np.flatnonzero(text == ord(quote))
    if len(at) % 2:
        return False
    opening, closing = at[::2], at[1::2]
    twice = np.zeros(len(opening), bool)  # closes and opens again: two inside
    twice[1:] = closing[:-1] + 1 == opening[1:]
    ends = [ord(separator), NEWLINE]
    before = text[np.maximum(opening - 1, 0)]
    starts = (opening == 0) | np.isin(before, ends) | twice
    after = text[np.minimum(closing + 1, len(text) - 1)]
    again = np.append(twice[1:], False)
    stops = (closing == len(text) - 1) | np.isin(after, [*ends, RETURN]) | again
    return bool(starts.all() and stops.all())
