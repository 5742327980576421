"""Reads one JSON object per line, or a Python dict literal as in Amazon's metadata of 2014."""

import ast
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.json as pa_json

from efficientids_flax.prepare.forms import Field, JsonLines
from efficientids_flax.prepare.reading.blocks import Block
from efficientids_flax.prepare.reading.malformed import BadValueError, decoded
from efficientids_flax.prepare.reading.part import Part, Row, part_of
from efficientids_flax.prepare.reading.times import Times
from efficientids_flax.prepare.reading.usual import is_plain, types_of, usual


@dataclass(frozen=True)
class LinesReader:
    """Reads blocks of one file.

    Attributes:
        form: how the file is written.
        fields: what is read.
        times: how times are read.
        numeric: id columns that hold numbers, judging by the first rows.
    """

    form: JsonLines
    fields: tuple[Field, ...]
    times: Times
    numeric: frozenset[str] = frozenset()

    def read(self, block: Block) -> Part:
        """The rows of a block."""
        return self._whole(block) or part_of(self.rows(block), self.fields, self.times)

    def _whole(self, block: Block) -> Part | None:
        """Read all rows at once; None if any is unusual."""
        if not is_plain(self.fields) or not block.data.strip():
            return None
        types = types_of(self.fields, self.times)
        types |= {name: pa.int64() for name in self.numeric}
        try:
            table = pa_json.read_json(
                pa.BufferReader(block.data),
                pa_json.ReadOptions(use_threads=False, block_size=len(block.data) + 1),
                pa_json.ParseOptions(
                    explicit_schema=pa.schema(list(types.items())),
                    unexpected_field_behavior="ignore",
                ),
            )
            table.validate(full=True)  # checks that texts are UTF-8
        except (pa.ArrowInvalid, UnicodeDecodeError):
            return None
        if len(table) != sum(1 for line in block.data.split(b"\n") if line.strip()):
            return None  # several objects on a line, or one on several lines
        columns = {one.role: table.column(one.columns[0]).combine_chunks() for one in self.fields}
        for field in self.fields:
            if field.columns[0] in self.numeric:
                columns[field.role] = columns[field.role].cast(pa.string())
        return usual(columns, self.times)

    def rows(self, block: Block) -> Iterator[Row]:
        for number, line in enumerate(block.data.split(b"\n"), block.line):
            if not line.strip():
                continue
            try:
                yield number, self.values(line)
            except BadValueError as error:
                yield number, error

    def values(self, line: bytes) -> dict[str, Any]:
        """Parse the object of a line.

        Raises:
            BadValueError: the line is not a JSON object, or repeats a key that is read.
        """
        text = decoded(line)
        outermost: list[tuple[str, Any]] = []

        def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            outermost[:] = pairs  # the last call is for the outermost object
            return dict(pairs)

        try:
            found = json.loads(text, object_pairs_hook=collect)
        except (ValueError, RecursionError) as error:
            found = _literal(text) if self.form.loose else None
            if found is None:
                raise BadValueError("is no JSON object", str(error)) from error
        if not isinstance(found, dict):
            raise BadValueError("is no JSON object", f"found {text[:50]!r}")
        there = [name for name, _ in outermost]
        for name in dict.fromkeys(name for field in self.fields for name in field.columns):
            if there.count(name) > 1:
                raise BadValueError("a key is there twice", f"found {name!r} twice")
        return found


def _literal(text: str) -> Any:
    """Evaluate a Python literal; runs no code."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
