"""A prepared directory as a whole."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from efficientids_flax.data.prepared.manifest import Manifest
from efficientids_flax.data.prepared.tables import (
    check_numbers,
    read_table,
    rows_of_table,
    shards_of,
)
from efficientids_flax.data.rows import Sequences
from efficientids_flax.digests import catalogue_digest, digest_of
from efficientids_flax.prepared_format import ITEMS, USERS
from efficientids_flax.stored import ItemNames, read_item_names


@dataclass(frozen=True)
class Prepared:
    """An opened prepared directory.

    Attributes:
        path: path of the directory.
        manifest: its manifest.
        shards: files of the interactions; each user's are all in one file.
        num_items: I, number of items of the catalogue.
    """

    path: Path
    manifest: Manifest
    shards: tuple[Path, ...]
    num_items: int

    @cached_property
    def items(self) -> dict[str, Any]:
        """The columns of `items.parquet`: `id`, count in the training split, `cold`.

        Raises:
            ValueError: the file is not the one that was prepared.
        """
        file = self.path / ITEMS
        found = read_table(file, "items")
        check_numbers(file, "item", found["item"])
        ours, theirs = catalogue_digest(found["id"]), self.manifest.catalogue
        if theirs is not None and ours != theirs:
            raise ValueError(
                f"{file}: the ids have digest {ours}, the manifest has {theirs}: it is another"
                " catalogue; prepare the data again"
            )
        return found

    @cached_property
    def users(self) -> dict[str, Any]:
        """The columns of `users.parquet`: `id` and number of events of each user."""
        file = self.path / USERS
        found = read_table(file, "users")
        check_numbers(file, "user", found["user"])
        return found

    def names(self) -> ItemNames:
        """The names of the items: from `items.jsonl`, else the ids of `items.parquet`.

        Raises:
            ValueError: their number differs from that of the items.
        """
        names = read_item_names(self.path)
        if names is None:
            return ItemNames(tuple(self.items["id"]), (None,) * self.num_items)
        if problems := names.problems(self.num_items):
            raise ValueError(f"{self.path / 'items.jsonl'}: {problems[0]}".replace(
                "the model", ITEMS
            ))  # fmt: skip
        return names

    def sequences(self, shards: Sequence[int] | None = None) -> Sequences:
        """The users' sequences.

        Args:
            shards: numbers of the files to read; None: all. One of several processes may read only
                its own.

        Raises:
            ValueError: a file is damaged or not the one that was prepared (names it); an item is
                not in the catalogue.
        """
        numbers = range(len(self.shards)) if shards is None else shards
        read = [read_table(self.shards[number], "interactions") for number in numbers]
        for number, found in zip(numbers, read, strict=True):
            wrong = np.flatnonzero((found["item"] < 0) | (found["item"] >= self.num_items))
            if wrong.size:
                raise ValueError(
                    f"{self.shards[number]}: row {wrong[0]}: item {found['item'][wrong[0]]} is"
                    f" outside of [0, {self.num_items}), the items of items.parquet; so are"
                    f" {len(wrong) - 1} more; prepare the data again"
                )
        columns = {
            name: np.concatenate([found[name] for found in read] or [np.zeros(0, np.int32)])
            for name in ("user", "item", "split")
        }
        expected = self.manifest.count("interactions")
        if shards is None and expected is not None and expected != len(columns["user"]):
            raise ValueError(
                f"{self.path}: the shards have {len(columns['user'])} interactions, the manifest"
                f" has {expected}; prepare the data again"
            )
        try:
            return Sequences.of_events(
                columns["user"], columns["item"], columns["split"], self.num_items,
                self._told(numbers),
            )  # fmt: skip
        except ValueError as error:
            raise ValueError(f"{self.path}: interactions: {error}") from None

    def _told(self, numbers: Sequence[int]) -> str | None:
        """A digest of the files' digests; None if some are unknown."""
        told = [self.manifest.digests.get(self.shards[number].name) for number in numbers]
        return None if None in told else digest_of(told)


def open_prepared(path: str | os.PathLike[str], *, verify: bool = False) -> Prepared:
    """Open a directory that `prepare` wrote.

    Args:
        path: path of the directory.
        verify: compare every file with its digest.

    Raises:
        FileNotFoundError: there is no such directory, or it is incomplete.
        ValueError: its manifest has another format; files are not those that were written.
        ImportError: pyarrow is missing.
    """
    directory = Path(path)
    manifest = Manifest.read(directory)
    if verify:
        manifest.verify()
    shards = tuple(shards_of(directory))
    file = directory / ITEMS
    if not file.is_file():
        raise FileNotFoundError(f"{file}: no such file; prepare the data again")
    return Prepared(directory, manifest, shards, rows_of_table(file))
