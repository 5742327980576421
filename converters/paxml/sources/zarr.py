"""States with one zarr directory per leaf: all versions of PAXml without OCDBT."""

import re
from collections.abc import Callable
from functools import partial

from converters.arrays import Leaf
from converters.errors import CheckpointError
from converters.paxml.names import PARAMS, TRAIN_STATE, from_name, to_pax_name
from converters.paxml.sources.contents import Contents, open_all
from converters.paxml.sources.flax import leaf_of
from converters.paxml.sources.listing import Listing
from converters.paxml.sources.tree import AGGREGATE, Tree, read_trees
from converters.zarr import ZarrLeaf

# Other directories beside the arrays: items of a step in version 0.0, and directories of Orbax.
_OTHERS = re.compile(r"(metadata|train_input|d|ocdbt\.process_\d+)/")


def read_zarr(step: Listing, state: str, variables: dict[str, str]) -> Contents:
    """Read the zarr directories in the `state` directory of a step.

    Args:
        step: the step directory.
        state: directory of the state; '' if it is the step directory itself.
        variables: canonical path of each dotted variable name that the metadata lists.

    Raises:
        CheckpointError: the structure that Orbax wrote beside the arrays cannot be read.
    """
    contents = Contents()
    names = [name[:-1] for name in step.children(state) if name.endswith("/")]
    contents.naming = "dotted" if any(n.startswith("opt_states.") for n in names) else "pax"
    trees = read_trees(step, state) if AGGREGATE in step.children(state) else []
    paths = _paths(names, variables, contents)
    openers: dict[str, Callable[[], Leaf]] = {}
    for path, name in paths.items():
        place = f"{state}/{name}".lstrip("/")
        openers[path] = partial(_open, step, path, place)
    open_all(contents, openers, step.remote)
    add_trees(contents, trees, {name: path for path, name in paths.items()}, step, state)
    return contents


def _open(step: Listing, path: str, place: str) -> Leaf:
    return ZarrLeaf.open(path, step.store, place, keys=step.files(place))


def _paths(names: list[str], variables: dict[str, str], contents: Contents) -> dict[str, str]:
    """Path of each leaf -> its directory; names that cannot be read become problems or notes."""
    collections = {PARAMS, *(n.split(".")[1] for n in names if n.startswith("mdl_vars."))}
    paths: dict[str, str] = {}
    for name in names:
        if _OTHERS.fullmatch(f"{name}/"):
            continue
        if not name.startswith(TRAIN_STATE):
            contents.notes.append(f"ignored the directory {name}: not a part of a TrainState")
            continue
        try:
            path = from_name(name, collections, variables)
        except CheckpointError as error:
            contents.problems.append(str(error))
            continue
        if path in paths:
            contents.problems.append(f"{path}: stored twice, as {paths[path]} and {name}")
        paths[path] = name
    return paths


def add_trees(
    contents: Contents, trees: list[Tree], arrays: dict[str, str], step: Listing, state: str
) -> None:
    """Compare the arrays with each structure that Orbax wrote, and add what only that has.

    Args:
        contents: what was read from the arrays; receives problems, masked and empty paths, and
            values stored in `checkpoint` itself.
        trees: structures of the state.
        arrays: name of each array on disk -> its canonical path.
        step: the step directory.
        state: directory of the state.
    """
    for tree in trees:
        contents.problems += tree.problems
        known = set(tree.arrays) | ({to_pax_name(path) for path in tree.arrays.values()})
        for name, path in tree.arrays.items():
            if name in arrays or to_pax_name(path) in arrays:
                continue
            if name in tree.optional:
                contents.empty.append(path)
            else:
                contents.problems.append(f"{path}: no array {name}, though {tree.file} lists it")
        contents.problems += [
            f"{path}: stored as {name}, but {tree.file} does not list it"
            for name, path in arrays.items()
            if name not in known
        ]
        contents.masked += [path for path in tree.masked if path not in contents.masked]
        contents.empty += [path for path in tree.empty if path not in contents.empty]
        for path, value in tree.values.items():
            leaf = leaf_of(path, value, step.store, f"{state}/{AGGREGATE}".lstrip("/"))
            if leaf is not None:
                contents.leaves[path] = leaf
