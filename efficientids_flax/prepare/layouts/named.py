"""Any table with named columns: CSV, TSV, JSON lines or Parquet."""

from collections.abc import Mapping
from pathlib import Path

from efficientids_flax.prepare.forms import (
    TEXTS,
    Columnar,
    Delimited,
    Field,
    Form,
    JsonLines,
    Layout,
    Table,
)
from efficientids_flax.prepare.reading.look import header_of
from efficientids_flax.prepare.reading.streams import ending, head

NAME = "table"
TOLD = "a table with named columns"
SEPARATORS = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".txt": "\t", ".dat": "\t"}
OTHER_SEPARATORS = (";", "\t", "|")  # tried for files named .csv
LINES = {".jsonl", ".ndjson", ".json"}
COLUMNAR = {".parquet", ".pq"}
# Column names that are recognised. If a table has two names of a row, the user must choose.
USUAL = {
    "user": ("user_id", "userId", "user"),
    "item": ("item_id", "itemId", "item"),
    "rating": ("rating",),
    "time": ("timestamp", "time"),
}


def form_of(
    path: Path,
    *,
    separator: str | None,
    quotes: bool,
    encoding: str | None,
    columns: tuple[str, ...] | None,
) -> Form | None:
    """How a file is written, by its name and first line; None if the name does not tell.

    Args:
        path: the file.
        separator: the separator, if chosen by the user.
        quotes: whether columns may be quoted.
        encoding: the encoding, if chosen by the user.
        columns: names of the columns, for a file without a header.
    """
    kind = ending(path)
    if kind in COLUMNAR:
        return Columnar()
    if kind in LINES:
        return JsonLines(loose=True)
    if separator is None:
        if kind not in SEPARATORS:
            return None
        separator = SEPARATORS[kind]
        if kind == ".csv" and columns is None:
            separator = _of_header(path, encoding)
    quote = '"' if quotes and len(separator) == 1 else None
    return Delimited(separator, columns, quote=quote)


def usual_columns(columns: tuple[str, ...]) -> dict[str, str]:
    """Role -> column, for the columns with a usual name."""
    found = {}
    for role, names in USUAL.items():
        there = [name for name in names if name in columns]
        if len(there) == 1:
            found[role] = there[0]
    return found


def layout_of(form: Form, columns: Mapping[str, str]) -> Layout:
    """The layout of a table with these columns for its roles."""
    fields = tuple(Field(role, (name,), needed=role not in TEXTS) for role, name in columns.items())
    return Layout(NAME, TOLD, (Table(("*",), form, fields),))


def _of_header(path: Path, encoding: str | None) -> str:
    """Guess the separator of a header; the comma if it gives several columns."""
    data = head(path, encoding or "utf-8")
    names = {
        one: len(header_of(data, Delimited(one, quote='"'))) for one in (",", *OTHER_SEPARATORS)
    }
    return "," if names[","] > 1 else max(names, key=lambda one: names[one])
