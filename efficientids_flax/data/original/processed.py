"""Reads the folder `processed/`, which the seed port's data processing wrote.

    train_sequences.pkl, val_sequences.pkl, test_sequences.pkl    lists of {"item_ids": [...], ...}
    preprocessing_info.pkl    "num_items", "item_to_idx": raw id -> item id
    clustering.pkl            the original's four pickles
    item_embeddings_{metadata,wals,random}.npy    float [I, E], one row per item id

It has three faults, which are corrected or reported here. Its clustering has one row more than
there are items: row 0 is padding and row i + 1 is item i, while sequences and embeddings have item
i in row i. Its val and test sequences are those of the same users: here each sequence becomes one
row, of which only the last item is predicted. It drops every event of item 0, which it took for
padding; those are lost.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from efficientids_flax.core.clustering import ClusteringError, ClusteringInfo
from efficientids_flax.core.clustering.pickles import ArrayPickleError, read_array_pickles
from efficientids_flax.core.clustering.tables import PICKLED
from efficientids_flax.data.original.objects import read_object
from efficientids_flax.data.rows import Sequences
from efficientids_flax.prepared_format import Split
from efficientids_flax.stored import ItemNames, read_item_names

SPLITS: Mapping[Split, tuple[str, ...]] = {
    "train": ("train",),
    "valid": ("val", "validation"),
    "test": ("test",),
}
EMBEDDINGS = ("metadata", "wals", "random")


@dataclass(frozen=True)
class Processed:
    """The content of the folder.

    Attributes:
        sequences: for each split that exists, one user per sequence of its file; the last event of
            validation and test sequences is held out.
        num_items: I.
        clustering: None if there is none; its items are numbered like those of the sequences.
        items: raw ids; None if unknown.
        catalogue: digest of these.
        embeddings: name -> file.
        notes: notes for the user.
    """

    sequences: Mapping[Split, Sequences]
    num_items: int
    clustering: ClusteringInfo | None = None
    items: ItemNames | None = None
    catalogue: str | None = None
    embeddings: Mapping[str, Path] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_processed(root: Path) -> Processed:
    """Read the folder.

    Raises:
        FileNotFoundError: there are no training sequences.
        ValueError: a file is damaged, of another form, or does not fit the others; names it.
    """
    notes: list[str] = []
    lists: dict[Split, list[list[int]] | None]
    lists = {split: _lists(root, split) for split in SPLITS}
    if lists["train"] is None:
        raise FileNotFoundError(f"{root}: no train_sequences.pkl")
    if lists["valid"] is not None and lists["valid"] == lists["test"]:
        notes.append(
            f"{root}: val and test hold the same sequences: what val chooses is not tested"
            " independently"
        )
    info, items = _info(root)
    clustering = None
    tables = root / "clustering.pkl"
    if tables.is_file():
        clustering, shifted = _clustering(tables, info)
        if shifted:
            notes.append(
                f"{tables}: row 0 is padding and item i is row i + 1; the rows are numbered anew,"
                " as the sequences number the items"
            )
    num_items = info
    if num_items is None and clustering is not None:
        num_items = clustering.num_items
    if num_items is None:
        raise ValueError(f"{root}: neither preprocessing_info.pkl nor clustering.pkl says how many"
                         " items there are")  # fmt: skip
    embeddings = {}
    for name in EMBEDDINGS:
        if (file := root / f"item_embeddings_{name}.npy").is_file():
            embeddings[name] = file
    sequences: dict[Split, Sequences] = {
        split: _sequences(str(root / f"{SPLITS[split][0]}_sequences.pkl"), rows, num_items, split)
        for split, rows in lists.items()
        if rows is not None
    }
    digest = None if items is None else items.digest()
    return Processed(sequences, num_items, clustering, items, digest, embeddings, tuple(notes))


def _lists(root: Path, split: Split) -> list[list[int]] | None:
    """The item ids of each sequence of a split; None if the split does not exist."""
    files = [root / f"{name}_sequences.pkl" for name in SPLITS[split]]
    there = [file for file in files if file.is_file()]
    if not there:
        return None
    found = read_object(there[0])
    if not isinstance(found, list):
        raise ValueError(f"{there[0]}: found a {type(found).__name__}, expected a list")
    rows = []
    for number, one in enumerate(found):
        ids = one.get("item_ids") if isinstance(one, dict) else None
        if not isinstance(ids, list) or not all(type(item) is int for item in ids):
            raise ValueError(
                f"{there[0]}: sequence {number}: expected a dictionary whose item_ids are a list of"
                " whole numbers"
            )
        rows.append(ids)
    return rows


def _info(root: Path) -> tuple[int | None, ItemNames | None]:
    """(I, ids and titles of the items), each None if unknown."""
    names = read_item_names(root)
    file = root / "preprocessing_info.pkl"
    if not file.is_file():
        return None if names is None else len(names.ids), names
    found = read_object(file)
    count = found.get("num_items") if isinstance(found, dict) else None
    if type(count) is not int or count < 1:
        raise ValueError(f"{file}: num_items: found {count!r}, expected a number above 0")
    numbers = found.get("item_to_idx")
    if names is None and isinstance(numbers, dict):
        raw = {number: one for one, number in numbers.items()}
        if sorted(raw) != list(range(count)):
            raise ValueError(f"{file}: item_to_idx does not number {count} items from 0")
        names = ItemNames(tuple(raw[number] for number in range(count)), (None,) * count)
    if names is not None and (problems := names.problems(count)):
        raise ValueError(f"{root}: {problems[0]}".replace("the model", file.name))
    return count, names


def _clustering(file: Path, num_items: int | None) -> tuple[ClusteringInfo, bool]:
    """(The clustering, whether its rows were renumbered)."""
    try:
        tables = read_array_pickles(file, PICKLED)
    except ArrayPickleError as error:
        raise ClusteringError(str(error)) from error
    assigned, members, means = tables[0], tables[1], tables[3]
    if assigned is None or members is None or num_items is None or len(assigned) == num_items:
        return ClusteringInfo.from_pickle(file), False
    if assigned.ndim != 1 or len(assigned) != num_items + 1 or np.any(members == 0):
        raise ValueError(
            f"{file}: has {len(assigned)} items, preprocessing_info.pkl has {num_items}: it is of"
            " another catalogue"
        )
    cluster_of = assigned[1:]
    for cluster, row in enumerate(members):
        wrong = [item for item in row[row > 0].tolist() if item > num_items
                 or cluster_of[item - 1] != cluster]  # fmt: skip
        if wrong:
            raise ValueError(f"{file}: item {wrong[0]} is a member of cluster {cluster}, and not"
                             " assigned to it")  # fmt: skip
    if np.count_nonzero(members > 0) != num_items:
        raise ValueError(f"{file}: {np.count_nonzero(members > 0)} members of {num_items} items")
    return ClusteringInfo.from_assignments(cluster_of, means), True


def _sequences(file: str, lists: list[list[int]], num_items: int, split: Split) -> Sequences:
    """One user per sequence; for valid and test, the last event is held out.

    Raises:
        ValueError: an item is not in the catalogue.
    """
    sizes = np.asarray([len(ids) for ids in lists], np.int64)
    flat = np.asarray([item for ids in lists for item in ids], np.int64)
    if (wrong := np.flatnonzero((flat < 0) | (flat >= num_items))).size:
        number = int(np.searchsorted(np.cumsum(sizes), wrong[0], side="right"))
        raise ValueError(
            f"{file}: sequence {number}: item {flat[wrong[0]]} is outside of [0, {num_items}), the"
            " catalogue"
        )
    end = np.cumsum(sizes)
    begin, last = end - sizes, np.maximum(end - 1, end - sizes)
    # (begin, begin of the validation part, begin of the test part, end)
    offsets = {
        "train": (begin, end, end, end),
        "valid": (begin, last, end, end),
        "test": (begin, last, last, end),
    }
    return Sequences(
        flat.astype(np.int32), np.stack(offsets[split], axis=1), np.arange(len(lists)), num_items
    )
