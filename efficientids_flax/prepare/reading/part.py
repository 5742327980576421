"""Turns rows into columns, the result of every reader, and parses single values."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa

from efficientids_flax.prepare.forms import IDS, Field
from efficientids_flax.prepare.reading.blocks import Block
from efficientids_flax.prepare.reading.malformed import BadRow, BadValueError
from efficientids_flax.prepare.reading.times import NUMBER, Times

TYPES = {"rating": pa.float64(), "time": pa.int64()}  # all others are strings
LARGEST = 3.4e38  # largest rating, which is stored as float32
NONE = {"nan", "inf", "infinity"}
BLANK = " \t\r\n"  # stripped from texts; an id of nothing else is missing


@dataclass(frozen=True)
class Part:
    """Rows of a part of a file.

    Attributes:
        columns: role -> array, all of one length.
        bad: malformed rows, which are left out.
        rest: an incomplete row that continues in the next block.
    """

    columns: dict[str, pa.Array]
    bad: tuple[BadRow, ...] = ()
    rest: Block | None = None

    @property
    def rows(self) -> int:
        """How many rows could be read."""
        return len(next(iter(self.columns.values())))


Row = tuple[int, Mapping[str, Any] | BadValueError]


def part_of(rows: Iterable[Row], fields: tuple[Field, ...], times: Times) -> Part:
    """Read row by row: slow, but exact about what is wrong.

    Args:
        rows: line number, and either the values by column or the error.
        fields: what is read.
        times: how times are read.
    """
    found: dict[str, list[Any]] = {field.role: [] for field in fields}
    bad: list[BadRow] = []
    for line, values in rows:
        try:
            if isinstance(values, BadValueError):
                raise values
            row = [(field.role, _value(field, values, times)) for field in fields]
        except BadValueError as error:
            bad.append(BadRow(line, error.kind, error.told))
        else:
            for role, value in row:
                found[role].append(value)
    columns = {role: pa.array(all_, TYPES.get(role, pa.string())) for role, all_ in found.items()}
    return Part(columns, tuple(bad))


def _value(field: Field, values: Mapping[str, Any], times: Times) -> Any:
    if field.role in IDS:
        return _id(field.role, values.get(field.columns[0]))
    if field.role == "rating":
        return rating(values.get(field.columns[0]))
    if field.role == "time":
        return times.of(values.get(field.columns[0]))
    return _text(field, values)


def _id(role: str, value: Any) -> str:
    """Check an id: a text, kept unchanged, or a whole number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None or (isinstance(value, str) and not value.strip(BLANK)):
        raise BadValueError(f"{role} is missing", "")
    if not isinstance(value, str):
        raise BadValueError(f"{role} is no text", f"found {value!r}")
    return _unicode(role, value)


def rating(value: Any) -> float:
    """Parse a rating, a finite number.

    Raises:
        BadValueError: it is missing or no such number.
    """
    text = value.strip(" \t") if isinstance(value, str) else value
    if text is None or text == "":
        raise BadValueError("rating is missing", "expected a number")
    if isinstance(text, bool) or not isinstance(text, str | int | float | Decimal):
        raise BadValueError("rating is no number", f"found {value!r}")
    if isinstance(text, str) and not NUMBER.match(text):
        if text.lower().lstrip("+-") in NONE:
            raise BadValueError("rating is not finite", f"found {value!r}")
        raise BadValueError("rating is no number", f"found {value!r}")
    try:
        number = float(text)
    except OverflowError:
        number = math.inf
    if not abs(number) <= LARGEST:
        raise BadValueError("rating is not finite", f"found {value!r}")
    return number


def _text(field: Field, values: Mapping[str, Any]) -> str | None:
    if field.flags:
        parts = [name for name in field.columns if str(values.get(name)).strip() == "1"]
        return field.joint.join(parts) or None
    parts = []
    for name in field.columns:
        text = _joined(values.get(name), field)
        if text and text not in field.absent:
            parts.append(text)
    return _unicode(field.role, field.joint.join(parts)) or None


def _joined(value: Any, field: Field) -> str:
    """Join the texts of a list, also of nested lists."""
    if isinstance(value, str):
        if field.split and field.split in value:
            return _joined(value.split(field.split), field)
        return value.strip(BLANK)
    if isinstance(value, list | tuple):
        return field.joint.join(part for one in value if (part := _joined(one, field)))
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return ""


def _unicode(role: str, text: str) -> str:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadValueError(f"{role} is no Unicode", f"found {text!r}") from error
    return text
