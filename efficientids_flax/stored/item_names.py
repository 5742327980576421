"""Names of the items of a catalogue: `items.jsonl`, one line an item, in the order of item numbers.

{"id": "tt0111161", "title": "The Shawshank Redemption"}
{"id": "tt0068646", "title": null}
"""

from __future__ import annotations

import json
import os
from typing import NamedTuple

from etils import epath

from efficientids_flax.digests import catalogue_digest
from efficientids_flax.whole_files import write_whole

NAME = "items.jsonl"
KEYS = {"id": (str, int, type(None)), "title": (str, type(None))}


class ItemNames(NamedTuple):
    """Ids and titles, indexed by an item's number in the catalogue.

    Attributes:
        ids: the catalogue's id of each item; None if it has only its number.
        titles: titles for people; None if an item has none.
    """

    ids: tuple[str | int | None, ...]
    titles: tuple[str | None, ...]

    def digest(self) -> str | None:
        """The catalogue's digest, see `catalogue_digest`; None if not all ids are known."""
        if None in self.ids:
            return None
        return catalogue_digest(map(str, self.ids))

    def problems(self, num_items: int) -> list[str]:
        """A problem if there are not as many names as the model has items."""
        if len(self.ids) == len(self.titles) == num_items:
            return []
        return [f"found {len(self.ids)} items, the model has {num_items}"]


def read_item_names(directory: str | os.PathLike[str]) -> ItemNames | None:
    """The names in a directory of data or of a model; None if it has none.

    Raises:
        ValueError: a line is wrong; names it.
    """
    file = epath.Path(directory) / NAME
    if not file.exists():
        return None
    ids, titles = [], []
    # `splitlines` also splits at U+2028, which JSON and titles may contain unescaped.
    lines = file.read_text().split("\n")
    for number, line in enumerate(lines if lines[-1] else lines[:-1], start=1):
        try:
            found = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{file}:{number}: is no JSON: {error}") from error
        if not isinstance(found, dict) or not found or found.keys() - KEYS.keys():
            raise ValueError(f'{file}:{number}: expected {{"id": ..., "title": ...}}, found {line}')
        for key, kinds in KEYS.items():
            if not isinstance(found.get(key), kinds) or isinstance(found.get(key), bool):
                raise ValueError(f"{file}:{number}: {key}: found {found[key]!r}, expected a text")
        ids.append(found.get("id"))
        titles.append(found.get("title"))
    return ItemNames(tuple(ids), tuple(titles))


def write_item_names(directory: str | os.PathLike[str], names: ItemNames) -> None:
    """Write `items.jsonl`."""
    rows = zip(names.ids, names.titles, strict=True)
    lines = [json.dumps({"id": one, "title": title}, ensure_ascii=False) for one, title in rows]
    write_whole(epath.Path(directory) / NAME, "".join(f"{line}\n" for line in lines))
