"""FLAX checkpoints: one msgpack file with `flattened_state` and the text of its treedef.

`paxml.checkpoints.FlaxCheckpointHandler` writes them for pmap models. The leaves are a list, or in
files of version 0.0 a dict with the keys '0', '1', ..., '10'. Only `str_pytree_state` names them.
"""

from typing import Any

import numpy as np

from converters.arrays import FlatLeaf, Leaf, LeafSpec
from converters.errors import CheckpointError
from converters.paxml import foreign
from converters.paxml.sources.contents import Contents, ValueLeaf
from converters.paxml.sources.msgpack import ArrayPlace, items, read_index
from converters.paxml.sources.treedef import parse_treedef
from converters.stores import Store

FLATTENED, TREEDEF = "flattened_state", "str_pytree_state"


def read_flax(store: Store, key: str) -> Contents:
    """Read the msgpack file `key` of `store`.

    Raises:
        CheckpointError: the file is truncated or corrupt, or is not a FLAX checkpoint of PAXml, or
            its leaves and names do not fit together.
    """
    where = f"{store.url}/{key}"
    root = read_index(store, key)
    if not isinstance(root, dict) or FLATTENED not in root or TREEDEF not in root:
        raise CheckpointError(f"{where}: {_describe(root)}")
    values = items(root[FLATTENED])
    if values is None or not isinstance(root[TREEDEF], str):
        raise CheckpointError(
            f"{where}: expected a list of arrays in {FLATTENED} and a text in {TREEDEF}, found "
            f"{type(root[FLATTENED]).__name__} and {type(root[TREEDEF]).__name__}"
        )
    tree = parse_treedef(root[TREEDEF], where)
    if len(values) != len(tree.leaves):
        raise CheckpointError(
            f"{where}: {FLATTENED} has {len(values)} leaves, but {TREEDEF} names "
            f"{len(tree.leaves)}; which of them is which cannot be told. Copy the checkpoint again."
        )
    contents = Contents(masked=list(tree.masked), empty=list(tree.empty), naming="treedef")
    if len(set(tree.leaves)) != len(tree.leaves):
        twice = sorted({path for path in tree.leaves if tree.leaves.count(path) > 1})
        raise CheckpointError(f"{where}: {TREEDEF} names {', '.join(twice[:5])} twice")
    if tree.unnamed:
        contents.notes.append(
            f"{', '.join(tree.unnamed[:5])}: a node of unknown type; its fields have no names in "
            "the file and are numbered"
        )
    for path, value in zip(tree.leaves, values, strict=True):
        if value is None or value == {}:  # a BpropMaskedNode is flattened as a leaf
            contents.masked.append(path)
            continue
        leaf = leaf_of(path, value, store, key)
        if leaf is None:
            contents.problems.append(f"{path}: expected an array in {where}, found {value!r:.60}")
            contents.failed.add(path)
        else:
            contents.leaves[path] = leaf
    return contents


def leaf_of(path: str, value: Any, store: Store, key: str) -> Leaf | None:
    """The leaf for one value of a msgpack index; None if it is neither an array nor a number."""
    if isinstance(value, ArrayPlace):
        spec = LeafSpec(path, value.shape, value.dtype, value.shape, key)
        return FlatLeaf(spec, store, key, value.segments)
    if isinstance(value, bool | int | float | complex):
        array = np.asarray(value)
        return ValueLeaf(LeafSpec(path, (), array.dtype, (), key), array)
    return None


def _describe(root: Any) -> str:
    """Describe a msgpack file that lacks the keys of a FLAX checkpoint."""
    if not isinstance(root, dict):
        return (
            f"msgpack, but no checkpoint: its root is a {type(root).__name__}; {foreign.EXPECTED}"
        )
    keys = ", ".join(list(root)[:6])
    if {"step", "mdl_vars"} <= set(root):
        return (
            "the tree of a checkpoint whose arrays are missing: no manifest.ocdbt and no array "
            "directories beside it. Copy the whole directory."
        )
    if {"version", "optimizer"} <= set(root):
        return f"a T5X checkpoint; {foreign.EXPECTED}"
    return f"a msgpack file of something else (keys {keys}); {foreign.EXPECTED}"
