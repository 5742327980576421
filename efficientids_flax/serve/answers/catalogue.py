"""The ids by which clients name items: those of the catalogue if it has them, else numbers."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

from efficientids_flax.digests import catalogue_digest
from efficientids_flax.prepared_format import ITEMS
from efficientids_flax.stored import ItemNames, read_item_names

ItemId = int | str
SHOWN = 5
ABSENT = object()


class Catalogue:
    """Maps between item ids, titles and item numbers.

    Args:
        num_items: number of the model's items.
        names: ids and titles of the items; None if they have none.

    Attributes:
        named: whether there are ids or titles.

    Raises:
        ValueError: there are not as many names as items, or two items have the same id.
    """

    def __init__(self, num_items: int, names: ItemNames | None) -> None:
        self.num_items, self.named = num_items, names is not None
        self._ids = self._titles = None
        self._rows: dict[ItemId, int] | None = None
        if names is None:
            return
        if problems := names.problems(num_items):
            raise ValueError(problems[0])
        # An item without an id of its own is named by its number.
        self._ids = [row if one is None else one for row, one in enumerate(names.ids)]
        self._titles = list(names.titles)
        self._rows = dict(zip(self._ids, range(num_items), strict=True))
        if len(self._rows) < num_items:
            twice = [one for one, count in Counter(self._ids).items() if count > 1][:SHOWN]
            raise ValueError(f"ids of several items: {', '.join(map(repr, twice))}")

    def row(self, item: ItemId) -> int | None:
        """The number of the item with this id; None if there is none."""
        if self._rows is not None:
            return self._rows.get(item)
        return item if type(item) is int and 0 <= item < self.num_items else None

    def missing(self, item: ItemId) -> str:
        """Explain why `row` gave None."""
        shown = json.dumps(item)
        shown = shown if len(shown) <= 100 else f"{shown[:100]}..."
        if self._rows is None:
            wanted = f"expected a number in [0, {self.num_items})"
        else:
            wanted = "no item of the catalogue has this id"
            other = str(item) if isinstance(item, int) else _number(item)
            if other is not None and self.row(other) is not None:
                kind = "a text" if isinstance(other, str) else "a number"
                wanted += f" (there is {json.dumps(other)}, {kind})"
        return f"{shown}: {wanted}"

    def id(self, row: int) -> ItemId:
        """The id by which clients name an item."""
        return row if self._ids is None else self._ids[row]

    def digest(self) -> str | None:
        """See `digests.catalogue_digest`; None unless all items have texts as ids."""
        ids = self._ids or ()
        texts = [one for one in ids if isinstance(one, str)]
        return catalogue_digest(texts) if texts and len(texts) == len(ids) else None

    def title(self, row: int) -> str | None:
        """The title of an item, for people; None if it has none."""
        return None if self._titles is None else self._titles[row]


def read_catalogue(num_items: int, model: str, items: str | None) -> Catalogue:
    """Read the catalogue of a model.

    Args:
        num_items: number of the model's items.
        model: the model's directory, which may have an `items.jsonl`.
        items: another source of names: an `items.parquet` or `items.jsonl`, or a directory that has
            one of them; None: the model's own.

    Raises:
        FileNotFoundError: there are no names at `items`.
        ValueError: the file is malformed, or does not fit the model.
    """
    where = model if items is None else items
    try:
        return Catalogue(num_items, read_item_names(model) if items is None else _read(Path(items)))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _read(path: Path) -> ItemNames:
    if path.is_dir():
        found = [path / name for name in (ITEMS, "items.jsonl") if (path / name).exists()]
        if not found:
            raise FileNotFoundError(f"{path}: has neither items.parquet nor items.jsonl")
        path = found[0]
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; give an items.parquet or an items.jsonl")
    if path.suffix == ".parquet":
        return _read_parquet(path)
    if path.name != "items.jsonl":
        raise ValueError("expected a file of the name items.jsonl, or one that ends with .parquet")
    names = read_item_names(path.parent)
    assert names is not None
    return names


def _read_parquet(path: Path) -> ItemNames:
    """A prepared directory's table: columns `item` (numbers in order), `id`, `title`."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ImportError(
            "parquet files need pyarrow: pip install 'efficientids-flax[serve]'"
        ) from error
    try:
        table = parquet.read_table(os.fspath(path))
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"is no parquet file: {error}") from error
    if missing := {"item", "id"} - set(table.column_names):
        raise ValueError(f"has no column {' or '.join(sorted(missing))}, found "
                         f"{', '.join(table.column_names)}")  # fmt: skip
    if table["item"].to_pylist() != list(range(table.num_rows)):
        raise ValueError("column item: expected 0, 1, 2, ..., the numbers of the model's items")
    ids = tuple(table["id"].to_pylist())
    titles = table["title"].to_pylist() if "title" in table.column_names else [None] * len(ids)
    for name, values, kinds in (("id", ids, str), ("title", titles, str | None)):
        wrong = next((one for one in values if not isinstance(one, kinds)), ABSENT)
        if wrong is not ABSENT:
            raise ValueError(f"column {name}: found {wrong!r}, expected texts")
    return ItemNames(ids, tuple(titles))


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None
