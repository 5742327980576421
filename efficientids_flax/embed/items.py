"""Reads data about the items of a catalogue: texts, and interactions.

Letters: I items.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from efficientids_flax.embed.als import Pairs
from efficientids_flax.prepared_format import ITEMS, TRAIN

COLUMNS = ("title+text", "title", "text")


class Catalogue(NamedTuple):
    """The identity of a catalogue.

    Attributes:
        num_items: I.
        digest: digest of the raw ids; None: unknown.
        name: name of the source, without its path.
    """

    num_items: int
    digest: str | None
    name: str


def catalogue_of(path: str | os.PathLike[str]) -> Catalogue:
    """The catalogue of a prepared directory.

    Raises:
        FileNotFoundError, ValueError: it is no prepared directory, see `open_prepared`.
        ImportError: pyarrow is missing.
    """
    from efficientids_flax.data.prepared import open_prepared

    prepared = open_prepared(path)
    return Catalogue(prepared.num_items, prepared.manifest.catalogue, Path(path).resolve().name)


def texts_of(path: str | os.PathLike[str], column: str = "title+text") -> list[str | None]:
    """The text of each item of a prepared directory; None for items without one.

    Args:
        path: the directory.
        column: 'title', 'text', or 'title+text': both joined by a space, or the one that exists.

    Raises:
        ValueError: there is no such column.
    """
    from pyarrow import parquet

    catalogue_of(path)  # raises if the directory is invalid
    file = Path(path) / ITEMS
    there = parquet.read_schema(file).names
    wanted = [name for name in column.split("+") if name in there]
    if not wanted:
        raise ValueError(
            f"{file}: has no column {' or '.join(column.split('+'))}; prepare the data with one, or"
            " embed from als"
        )
    read = parquet.read_table(file, columns=wanted).to_pydict()
    joined = (" ".join(filter(None, map(_stripped, row))) for row in zip(*read.values()))  # noqa: B905
    return [text or None for text in joined]


def texts_of_file(path: str | os.PathLike[str]) -> list[str | None]:
    """Read one text per line; from `.jsonl`, `title` and `text` of each object.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, or a line is malformed; names the line.
    """
    file = Path(path)
    try:
        # `splitlines` would also split at U+2028, which would shift all later items.
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: is no UTF-8: {error}") from error
    lines = lines if lines[-1] else lines[:-1]
    if not lines:
        raise ValueError(f"{file}: is empty; expected a text a line")
    if file.suffix != ".jsonl":
        return [line.strip() or None for line in lines]
    found: list[str | None] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            texts = [_stripped(row.get(key)) for key in ("title", "text")]
        except (ValueError, AttributeError) as error:
            raise ValueError(f'{file}:{number}: expected {{"title": ...}}: {error}') from error
        found.append(" ".join(filter(None, texts)) or None)
    return found


def interactions_of(path: str | os.PathLike[str]) -> Pairs:
    """Which user chose which item in the training split of a prepared directory, how often.

    Raises:
        FileNotFoundError, ValueError: see `open_prepared`.
    """
    from efficientids_flax.data.prepared import open_prepared
    from efficientids_flax.data.prepared.tables import read_table

    prepared = open_prepared(path)
    users: list[np.ndarray] = []
    items: list[np.ndarray] = []
    for shard in prepared.shards:
        found = read_table(shard, "interactions")
        chosen = found["split"] == TRAIN
        users.append(found["user"][chosen])
        items.append(found["item"][chosen])
    user, item = np.concatenate(users), np.concatenate(items)
    if len(item) and not 0 <= item.min() <= item.max() < prepared.num_items:
        raise ValueError(f"{path}: items outside of [0, {prepared.num_items}); prepare it again")
    return Pairs.of_events(user, item, int(user.max(initial=-1)) + 1, prepared.num_items)


def _stripped(text: object) -> str:
    if text is not None and not isinstance(text, str):
        raise ValueError(f"found {text!r}, expected a text")
    return (text or "").strip()
