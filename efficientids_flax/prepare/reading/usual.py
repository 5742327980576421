"""Checks columns that pyarrow read at once; they are used only if every row is valid."""

from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import compute

from efficientids_flax.prepare.forms import IDS, TEXTS, Field
from efficientids_flax.prepare.reading.arrays import to_arrow, to_numpy
from efficientids_flax.prepare.reading.part import BLANK, LARGEST, Part
from efficientids_flax.prepare.reading.times import EXACT, MICRO, Times

pc: Any = compute  # pyarrow creates these functions at import


def types_of(
    fields: tuple[Field, ...], times: Times, *, hexadecimal: bool = False
) -> dict[str, pa.DataType]:
    """The types as which pyarrow reads the fields' columns.

    Args:
        fields: fields of one column each.
        times: how times are read.
        hexadecimal: whether 0x1F may occur, which pyarrow accepts as an integer, but not a float.
    """
    types: dict[str, pa.DataType] = {}
    for field in fields:
        kind = pa.string()
        if field.role == "rating":
            kind = pa.float64()
        elif field.role == "time" and times.form == "date":
            kind = pa.timestamp("us")
        elif field.role == "time":
            decimal = hexadecimal or times.decimal or times.form == "fraction"
            kind = pa.float64() if decimal else pa.int64()
        types[field.columns[0]] = kind
    return types


def is_plain(fields: tuple[Field, ...]) -> bool:
    """Whether each field is one column, taken as it is."""
    return not any(len(one.columns) > 1 or one.split or one.flags or one.absent for one in fields)


def usual(columns: dict[str, pa.Array], times: Times) -> Part | None:
    """Make a part of columns by role; None if any row is invalid."""
    found = {}
    for role, column in columns.items():
        read = _texts(column) if role in TEXTS else None
        if role not in TEXTS and not column.null_count:
            if role in IDS:
                read = _ids(column)
            else:
                read = _times(column, times) if role == "time" else _ratings(column)
        if read is None:
            return None
        found[role] = read
    return Part(found)


def _ids(column: pa.Array) -> pa.Array | None:
    coded = column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()
    if len(coded.dictionary) == 0:
        return coded
    if pc.min(pc.binary_length(pc.utf8_trim(coded.dictionary, BLANK))).as_py() == 0:
        return None
    return coded


def _texts(column: pa.Array) -> pa.Array:
    trimmed = pc.utf8_trim(column, BLANK)
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)


def _ratings(column: pa.Array) -> pa.Array | None:
    values = to_numpy(column)
    inside = not len(values) or (values.min() >= -LARGEST and values.max() <= LARGEST)
    return column if inside else None  # NaN fails both comparisons


def _times(column: pa.Array, times: Times) -> pa.Array | None:
    if times.form == "date":
        return column.cast(pa.int64())
    values = to_numpy(column)
    if not len(values):
        return column.cast(pa.int64())
    if values.dtype.kind == "f":
        if not (np.abs(values) < EXACT).all():
            return None
        if times.form != "fraction" and not (values == np.trunc(values)).all():
            return None
    if not times.fits(int(values.min()), int(values.max())):
        return None
    if times.form == "fraction":
        return to_arrow(np.rint(values * MICRO).astype(np.int64))
    return column if column.type == pa.int64() else to_arrow(values.astype(np.int64))
