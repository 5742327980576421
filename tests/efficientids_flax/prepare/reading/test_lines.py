"""JSON lines, and Python's dicts: both ways of reading agree, and what is wrong is told."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from efficientids_flax.prepare.forms import Field, JsonLines
from efficientids_flax.prepare.reading.blocks import Block
from efficientids_flax.prepare.reading.lines import LinesReader
from efficientids_flax.prepare.reading.part import Part, part_of
from efficientids_flax.prepare.reading.times import Times

FIELDS = tuple(Field(name, (name,)) for name in ("user", "item", "rating", "time"))


def reader(*, numeric: bool = False, loose: bool = False) -> LinesReader:
    return LinesReader(JsonLines(loose), FIELDS, Times("s"), frozenset(["user"] * numeric))


def rows(part: Part) -> list[tuple[Any, ...]]:
    return list(zip(*(one.to_pylist() for one in part.columns.values()), strict=True))


VALUES = st.sampled_from([
    1, 2.0, 2.5, "3", "a", "", " ", "ü", "\u2028", "\ud800", None, True, [1], {"a": 1}, 10**20,
    float("nan"), -0.0,
])  # fmt: skip
OBJECTS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("user", "item", "rating", "time", "more"), VALUES)
)
PLAIN = st.fixed_dictionaries({
    "user": st.sampled_from(["a", "ü"]), "item": st.sampled_from(["a", ""]),
    "rating": st.sampled_from([1, 2.5]), "time": st.integers(0, 9), "more": VALUES,
})  # fmt: skip


@given(st.lists(st.one_of(OBJECTS, PLAIN), min_size=1, max_size=4), st.booleans())
def test_whole_blocks_are_read_as_their_rows_are(objects: list[Any], numeric: bool):
    data = "".join(json.dumps(one) + "\n" for one in objects).encode()
    one = reader(numeric=numeric)
    whole = one._whole(Block(data, 1, last=True))
    if whole is not None:
        exact = part_of(one.rows(Block(data, 1, last=True)), FIELDS, Times("s"))
        assert rows(whole) == rows(exact)
        assert not exact.bad


def test_numbers_as_ids_are_texts():
    data = b'{"user": 7, "item": "07", "rating": 1, "time": 2, "x": {"user": 1, "user": 2}}\n'
    for numeric in (True, False):
        assert rows(reader(numeric=numeric).read(Block(data, 1, last=True))) == [("7", "07", 1, 2)]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"{", "is no JSON object"),
        (b"[1, 2]", "is no JSON object"),
        (b'{"item": "i", "rating": 1, "time": 2}', "user is missing"),
        (b'{"user": ["u"], "item": "i", "rating": 1, "time": 2}', "user is no text"),
        (b'{"user": true, "item": "i", "rating": 1, "time": 2}', "user is no text"),
        (b'{"user": "\\ud800", "item": "i", "rating": 1, "time": 2}', "user is no Unicode"),
        (b'{"user": "\xff", "item": "i", "rating": 1, "time": 2}', "not UTF-8"),
        (b'{"user": "u", "item": "i", "rating": NaN, "time": 2}', "rating is not finite"),
        (b'{"user": "u", "item": "i", "rating": true, "time": 2}', "rating is no number"),
        (b'{"user": "u", "item": "i", "rating": 1, "time": null}', "time is missing"),
        (b'{"user": "u", "item": "i", "rating": 1, "time": "x"}', "time is no number"),
        (b'{"user": "u", "rating": 1, "user": "v"}', "a key is there twice"),
        (b'{"user": "u", "item": "i"} {"user": "v", "item": "j"}', "is no JSON object"),
    ],
)
def test_a_malformed_line_is_told_and_the_others_are_read(line: bytes, kind: str):
    good = b'{"user": "u", "item": "i", "rating": 1, "time": 2}\n'
    part = reader().read(Block(good + b"\n" + line + b"\n" + good, 1, last=True))
    assert rows(part) == [("u", "i", 1, 2)] * 2
    assert [(bad.line, bad.kind) for bad in part.bad] == [(3, kind)]


def test_a_dict_as_python_prints_it_is_read_and_never_run():
    good = b"{'user': 'u', 'item': u'i', 'rating': 1.0, 'time': 2, 'x': None}\n"
    bad = b"{'user': __import__('os').getcwd(), 'item': 'i', 'rating': 1, 'time': 2}\n"
    part = reader(loose=True).read(Block(good + bad, 1, last=True))
    assert rows(part) == [("u", "i", 1, 2)]
    assert [(one.line, one.kind) for one in part.bad] == [(2, "is no JSON object")]
    assert [one.kind for one in reader().read(Block(good, 1, last=True)).bad] == [
        "is no JSON object"
    ]
