"""Reads the Parquet files of a prepared directory as arrays.

Letters: N events, U users, I items.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from efficientids_flax.prepared_format import COLUMNS, OPTIONAL, SHARD, shard_name

ALIKE = {"large_string": "string"}


def shards_of(directory: Path) -> list[Path]:
    """The files of interactions, in order.

    Raises:
        FileNotFoundError: there are none.
        ValueError: some are missing, or there are files of several runs.
    """
    found = {}
    totals = set()
    for path in directory.iterdir():
        if named := SHARD.fullmatch(path.name):
            found[int(named[1])] = path
            totals.add(int(named[2]))
    if not found:
        raise FileNotFoundError(f"{directory}: no {shard_name(0, 1)} or the like")
    if len(totals) != 1:
        raise ValueError(f"{directory}: shards of several runs, of {sorted(totals)} files each")
    total = totals.pop()
    if missing := [number for number in range(total) if number not in found]:
        raise ValueError(
            f"{directory}: shard {missing[0]} of {total} is missing"
            f"{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}; prepare the data again"
        )
    return [found[number] for number in range(total)]


def read_table(path: Path, table: str, columns: Sequence[str] | None = None) -> dict[str, Any]:
    """Read columns of a file: numbers as arrays, texts as lists.

    Args:
        path: the file.
        table: which table it holds, a key of `COLUMNS`.
        columns: names of columns; None: all that every directory has.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged, or a column is missing, of another type, or has nulls.
        ImportError: pyarrow is missing.
    """
    parquet = _parquet()
    wanted = {
        name: kind
        for name, kind in COLUMNS[table].items()
        if (name in columns if columns else name not in OPTIONAL)
    }
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; prepare the data again")
    try:
        with parquet.ParquetFile(path) as file:
            types = {field.name: str(field.type) for field in file.schema_arrow}
            _check_types(path, types, wanted)
            read = file.read(columns=list(wanted))
    except (OSError, ValueError) as error:  # Arrow's errors are subclasses of these
        if str(error).startswith(str(path)):
            raise
        raise ValueError(f"{path}: cannot be read: {error}; prepare the data again") from error
    found: dict[str, Any] = {}
    for name, kind in wanted.items():
        column = read.column(name)
        if column.null_count:
            raise ValueError(f"{path}: {name}: {column.null_count} values are missing")
        if kind == "string":
            found[name] = column.to_pylist()
        else:
            found[name] = column.to_numpy()
    return found


def rows_of_table(path: Path) -> int:
    """The number of rows of a file.

    Raises:
        ValueError: the file is damaged.
        ImportError: pyarrow is missing.
    """
    try:
        return _parquet().read_metadata(path).num_rows
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read: {error}; prepare the data again") from error


def _check_types(path: Path, types: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    problems = [
        f"{name}: found {types.get(name, 'no such column')}, expected {kind}"
        for name, kind in wanted.items()
        if ALIKE.get(types.get(name, ""), types.get(name)) != kind
    ]
    if problems:
        raise ValueError(f"{path}: {'; '.join(problems)}")


def check_numbers(path: Path, name: str, found: np.ndarray) -> None:
    """Raise ValueError if a table's rows are not numbered from 0."""
    if (wrong := np.flatnonzero(found != np.arange(len(found)))).size:
        raise ValueError(f"{path}: row {wrong[0]}: {name} {found[wrong[0]]}, expected {wrong[0]}")


def _parquet() -> ModuleType:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "prepared data: pyarrow is missing: pip install 'efficientids-flax[data]'"
        ) from error
    return pyarrow.parquet
