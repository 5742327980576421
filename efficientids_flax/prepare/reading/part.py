"""Rows as columns: what every reader makes of a part of a file, and how single values are read."""

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

TYPES = {"rating": pa.float64(), "time": pa.int64()}  # all others are texts
LARGEST = 3.4e38  # of a rating, which is kept as float32
NONE = {"nan", "inf", "infinity"}
BLANK = " \t\r\n"  # an id of nothing else is none, and texts begin and end with none of it


@dataclass(frozen=True)
class Part:
    """Rows of a part of a file.

    Attributes:
        columns: role -> array, all of one length.
        bad: rows that are not among them.
        rest: a row that is not whole and goes on in the next block.
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
    """Rows one by one: slow, and exact about what is wrong.

    Args:
        rows: number of the line, and its values by column or what is wrong with it.
        fields: what is taken.
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
    """An id is a text, which nothing is taken from or added to."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if value is None or (isinstance(value, str) and not value.strip(BLANK)):
        raise BadValueError(f"{role} is missing", "")
    if not isinstance(value, str):
        raise BadValueError(f"{role} is no text", f"found {value!r}")
    return _unicode(role, value)


def rating(value: Any) -> float:
    """A finite number.

    Raises:
        BadValueError: another value.
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
    """Texts of a list, or of lists in lists, one after another."""
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
