"""The tree that Orbax writes beside its arrays, in `_METADATA` (JSON) and `checkpoint` (msgpack).

Both list the keys of every leaf separately, so that joined names need not be split by guessing. In
`checkpoint` each array is represented by `PLACEHOLDER://<its dotted name>`.
"""

import json
from dataclasses import dataclass, field
from typing import Any

from converters.errors import CheckpointError
from converters.paxml.names import TRAIN_STATE, join, to_dotted_name
from converters.paxml.sources.listing import Listing
from converters.paxml.sources.msgpack import ArrayPlace, read_index
from converters.stores import Store

PLACEHOLDER = "PLACEHOLDER://"
METADATA, AGGREGATE = "_METADATA", "checkpoint"
_EMPTY = ("None", "List", "Dict", "Tuple", "NamedTuple", "Dict[str, Any]", "List[Any]")


@dataclass
class Tree:
    """Leaves of a state, named by their Orbax keys joined with '/'.

    Attributes:
        file: the file from which the structure was read.
        arrays: dotted name of each array -> its path.
        values: path -> array or number that is stored in `checkpoint` itself.
        masked: paths of None leaves below the top level.
        empty: paths of empty containers and of top-level fields without arrays.
        optional: names in `arrays` that may have no array: an empty container looks the same.
        problems: what is wrong in the file, one line each.
    """

    file: str
    arrays: dict[str, str] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    masked: list[str] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    optional: set[str] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    def add_nothing(self, path: str, container: bool) -> None:
        """Record a path that has no array."""
        top_level = "/" not in path
        (self.empty if container or top_level else self.masked).append(path)


def read_trees(listing: Listing, state: str) -> list[Tree]:
    """Read `_METADATA` and `checkpoint` in the `state` directory, as far as they exist.

    Raises:
        CheckpointError: a file cannot be read, or describes something other than a `TrainState`.
    """
    names = listing.children(state)
    folder = listing.store.child(state)
    trees: list[Tree] = []
    if METADATA in names:
        trees.append(_read_metadata(folder))
    if AGGREGATE in names:
        trees.append(_read_aggregate(folder))
    return trees


def _read_metadata(folder: Store) -> Tree:
    where = f"{folder.url}/{METADATA}"
    tree = Tree(where)
    try:
        found = json.loads(folder.read(METADATA))["tree_metadata"]
        entries = [
            (
                [str(part["key"]) for part in entry["key_metadata"]],
                str(entry["value_metadata"]["value_type"]),
                bool(entry["value_metadata"].get("skip_deserialize", False)),
            )
            for entry in found.values()
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{where}: not the tree that Orbax writes ({type(error).__name__}: {error}). Copy the "
            "checkpoint again, or remove this file: then the tree is read elsewhere."
        ) from error
    _check_top({keys[0] for keys, _, _ in entries if keys}, where)
    for keys, kind, skipped in entries:
        path = join(keys, f"{where}: {'.'.join(keys)}")
        if skipped or kind in _EMPTY:
            tree.add_nothing(path, kind != "None")
        elif kind == "string":
            tree.problems.append(f"{path}: a text; a TrainState holds arrays only")
        else:
            tree.arrays[to_dotted_name(path)] = path
    return tree


def _read_aggregate(folder: Store) -> Tree:
    where = f"{folder.url}/{AGGREGATE}"
    root = read_index(folder, AGGREGATE)
    if not isinstance(root, dict):
        raise CheckpointError(f"{where}: expected a tree, found a {type(root).__name__}")
    _check_top(set(root), where)
    tree = Tree(where)
    _walk(root, (), tree)
    return tree


def _walk(value: Any, keys: tuple[str, ...], tree: Tree) -> None:
    """Add the value at `keys`, and all values below it, to `tree`."""
    if isinstance(value, list):
        value = {str(index): child for index, child in enumerate(value)}
    if isinstance(value, dict) and (value or not keys):
        for key, child in value.items():
            _walk(child, (*keys, key), tree)
        return
    try:
        path = join(keys, f"{tree.file}: {'.'.join(keys)}")
    except CheckpointError as error:
        tree.problems.append(str(error))
        return
    name = to_dotted_name(path)
    if value is None or value == {}:
        tree.add_nothing(path, value is not None)
    elif isinstance(value, str) and value.startswith(PLACEHOLDER):
        told = value.removeprefix(PLACEHOLDER)
        if told != name:
            tree.problems.append(
                f"{tree.file}: the placeholder at {name} names {told!r}; refused, it must be its "
                "own name"
            )
            return
        tree.arrays[name] = path
        if path in TRAIN_STATE[2:]:
            tree.optional.add(name)
    elif isinstance(value, ArrayPlace | bool | int | float | complex):
        tree.values[path] = value
    else:
        tree.problems.append(f"{tree.file}: {name} is {value!r:.60}, expected an array")


def _check_top(found: set[str], where: str) -> None:
    """Raise `CheckpointError` unless the top-level keys are those of a `TrainState`."""
    if not {"step", "mdl_vars"} & found:
        some = ", ".join(sorted(found)[:8])
        raise CheckpointError(
            f"{where}: an Orbax checkpoint of something else: its top-level keys are "
            f"{some or 'none'}; PAXml's are {', '.join(TRAIN_STATE)}. It needs no conversion from "
            "PAXml."
        )
