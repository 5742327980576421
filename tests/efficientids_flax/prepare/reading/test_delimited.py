"""Text with separators: both ways of reading agree, and what is wrong is told by its line."""

import csv
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from efficientids_flax.prepare.forms import Delimited, Field
from efficientids_flax.prepare.reading.blocks import Block, blocks
from efficientids_flax.prepare.reading.delimited import DelimitedReader
from efficientids_flax.prepare.reading.part import Part
from efficientids_flax.prepare.reading.rows import _in_order
from efficientids_flax.prepare.reading.times import Times

COLUMNS = ("user", "item", "rating", "time")
FIELDS = tuple(Field(name, (name,)) for name in COLUMNS)
CSV, DAT = Delimited(",", quote='"'), Delimited("::")


def reader(
    form: Delimited = CSV, times: Times | None = None, fields: tuple[Field, ...] = FIELDS
) -> DelimitedReader:
    return DelimitedReader(form, COLUMNS, fields, times or Times("s"), header=False)


def rows(part: Part) -> list[tuple[Any, ...]]:
    return list(zip(*(one.to_pylist() for one in part.columns.values()), strict=True))


def by_row(one: DelimitedReader, data: bytes) -> Part:
    return one._by_row(Block(data, 1, last=True))


NUMBERS = [
    "1",
    "3.5",
    " 2 ",
    "0x1F",
    "1_0",
    "+4",
    "1e1",
    "nan",
    "inf",
    "-inf",
    "",
    "12.",
    "٣",
    "1e99",
]
IDS = [
    "a",
    "7",
    "07",
    " ",
    "",
    "a b",
    "ü",
    "é\u2028",
    '"q"',
    '"a,""b"',
    '"a\nb"',
    'x"y',
    '"z"t',
    "\t",
    "a\rb",
]
LINES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(IDS), st.sampled_from(IDS), st.sampled_from(NUMBERS),
                  st.sampled_from(NUMBERS)),
        st.tuples(st.sampled_from(["", "x", '"open', "a,b", "a,b,1,2,3"])),
    ).map(",".join),
    max_size=6,
)  # fmt: skip


@given(LINES, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_whole_blocks_are_read_as_their_rows_are(lines: list[str], end: str, last: bool):
    data = (end.join(lines) + (end if last else "")).encode()
    whole = reader()._whole(Block(data, 1, last=True))
    if whole is not None:
        assert rows(whole) == rows(by_row(reader(), data))
        assert not by_row(reader(), data).bad


@given(st.lists(st.tuples(*[st.sampled_from(["a", "b c", 'q"', "x,y", "u\nv", "ü"])] * 2,
                          st.integers(-9, 9), st.integers(0, 99)), max_size=12),
       st.integers(4, 80), st.sampled_from(["\n", "\r\n"]))  # fmt: skip
def test_blocks_of_any_size_have_the_rows_that_were_written(
    written: list[tuple[Any, ...]], size: int, end: str
):
    text = io.StringIO()
    csv.writer(text, lineterminator=end).writerows(written)
    data = text.getvalue().encode()
    pieces = [data[at : at + 7] for at in range(0, len(data), 7)]
    parts = list(_in_order(blocks(pieces, quote=b'"', size=size), reader().read))
    assert [row for part in parts for row in rows(part)] == written
    assert not [bad for part in parts for bad in part.bad]


@pytest.mark.parametrize(
    ("line", "kind", "told"),
    [
        (b"a,b,1", "number of columns", "found 3, expected 4"),
        (b"a,b,1,2,3", "number of columns", "found 5, expected 4"),
        (b",b,1,2", "user is missing", ""),
        (b"a, ,1,2", "item is missing", ""),
        (b"a,b,,2", "rating is missing", "expected a number"),
        (b"a,b,good,2", "rating is no number", "found 'good'"),
        (b"a,b,0x1,2", "rating is no number", "found '0x1'"),
        (b"a,b,NaN,2", "rating is not finite", "found 'NaN'"),
        (b"a,b,-Infinity,2", "rating is not finite", "found '-Infinity'"),
        (b"a,b,1e300,2", "rating is not finite", "found '1e300'"),
        (b"a,b,1,", "time is missing", "expected a time"),
        (b"a,b,1,now", "time is no number", "'now' is no number of seconds"),
        (b"a,b,1,2.5", "time has a fraction", "'2.5', the first rows have none"),
        (b"a,b,1,1588687728923", "time in another unit",
         "'1588687728923' reads as milliseconds, the first rows as seconds"),
        (b"a,caf\xe9,1,2", "not UTF-8",
         "0xe9 at byte 6 of the line; `encoding` says how it is written"),
        (b'a,"b,1,2', "quote is not closed", ""),
        (b"a,b\rc,1,2", "carriage return inside of a row", ""),
    ],
)  # fmt: skip
def test_a_malformed_row_is_told_by_its_line_and_the_others_are_read(
    line: bytes, kind: str, told: str
):
    data = b"x,y,1,2\n\n" + line + b"\nz,w,3,4\n"
    part = reader().read(Block(data, 10, last=True))
    assert rows(part) == [("x", "y", 1, 2), ("z", "w", 3, 4)]
    assert [(bad.line, bad.kind, bad.told) for bad in part.bad] == [(12, kind, told)]


def test_a_quoted_column_may_hold_what_separates():
    data = b'"a, ""b""\n c",i,1,2\r\n"",j,1,2\r\n'
    part = reader().read(Block(data, 1, last=True))
    assert rows(part) == [('a, "b"\n c', "i", 1, 2)]
    assert [(bad.line, bad.kind) for bad in part.bad] == [(3, "user is missing")]


def test_a_separator_of_two_characters():
    data = b"1::2::3.5::4\na:b::c:::5::6\n"
    part = reader(DAT).read(Block(data, 1, last=True))
    assert rows(part) == [("1", "2", 3.5, 4), ("a:b", "c", 5.0, 6)] or part.bad
    odd = reader(DAT).read(Block(b"a\x1fb::2::3::4\n", 1, last=True))
    assert rows(odd) == [("a\x1fb", "2", 3, 4)]


def test_quotes_are_characters_where_a_form_has_none():
    part = reader(Delimited("\t")).read(Block(b'"a"\tb"\t1\t2\n', 1, last=True))
    assert rows(part) == [('"a"', 'b"', 1, 2)]


@pytest.mark.parametrize(
    "text", ["2014-10-11 03:34:02", "2014-10-11T03:34:02Z", "2014-10-11 05:34:02+02:00"]
)
def test_dates(text: str):
    times = Times("us", "date")
    data = f"a,b,1,{text}\n".encode()
    part = reader(CSV, times).read(Block(data, 1, last=True))
    assert (
        rows(part) == [("a", "b", 1, 1412998442 * 10**6)] == rows(by_row(reader(CSV, times), data))
    )


@pytest.mark.parametrize("text", ["1412998442.25", "1412998442", "1.41299844225e9"])
def test_seconds_with_a_fraction(text: str):
    times = Times("s", "fraction")
    data = f"a,b,1,{text}\n".encode()
    one = reader(CSV, times)
    assert rows(one.read(Block(data, 1, last=True))) == rows(by_row(one, data))
    assert rows(by_row(one, data))[0][3] == round(float(text) * 10**6)
