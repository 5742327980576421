"""One JSON object a line, or a Python dict as the metadata of Amazon's reviews of 2014 has them."""

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
        fields: what is taken.
        times: how times are read.
        numeric: columns of ids that hold numbers, as far as the first rows show.
    """

    form: JsonLines
    fields: tuple[Field, ...]
    times: Times
    numeric: frozenset[str] = frozenset()

    def read(self, block: Block) -> Part:
        """The rows of a block."""
        return self._whole(block) or part_of(self.rows(block), self.fields, self.times)

    def _whole(self, block: Block) -> Part | None:
        """All rows at once; None where one is unusual."""
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
            table.validate(full=True)  # that texts are UTF-8
        except (pa.ArrowInvalid, UnicodeDecodeError):
            return None
        if len(table) != sum(1 for line in block.data.split(b"\n") if line.strip()):
            return None  # several on a line, or one on several
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
        """The object of a line.

        Raises:
            BadValueError: it has none.
        """
        text = decoded(line)
        outermost: list[tuple[str, Any]] = []

        def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            outermost[:] = pairs  # that of the line is the last to end
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
    """What a Python literal stands for; nothing in it is run."""
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
