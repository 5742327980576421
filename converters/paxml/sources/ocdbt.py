"""States in one OCDBT database: paxml with `tensorstore_use_ocdbt` (metadata version 1.2).

If several processes wrote the checkpoint, the database at the root refers to their data in
`ocdbt.process_N/`.
"""

from collections.abc import Callable, Mapping
from functools import partial

from converters.arrays import Leaf
from converters.errors import CheckpointError
from converters.paxml.names import PARAMS, TRAIN_STATE, from_name
from converters.paxml.sources.contents import Contents, open_all, with_spec
from converters.paxml.sources.listing import Listing
from converters.paxml.sources.positional import is_positional, name_positions
from converters.paxml.sources.tree import AGGREGATE, METADATA, Tree, read_trees
from converters.paxml.sources.zarr import add_trees
from converters.stores import Store, open_ocdbt
from converters.zarr import ZarrLeaf


def read_ocdbt(step: Listing, state: str, variables: dict[str, str]) -> Contents:
    """Read the database in the `state` directory of a step.

    Args:
        step: the step directory.
        state: directory of the database; '' if it is the step directory itself.
        variables: canonical path of each dotted variable name that the metadata lists.

    Raises:
        CheckpointError: the database cannot be listed, or the structure beside it cannot be read.
    """
    contents = Contents(naming="dotted")
    trees = read_trees(step, state)
    database = open_ocdbt(step.store, state)
    files = _arrays(database)
    if not files:
        raise CheckpointError(f"{database.url}: the OCDBT database holds no array")
    if METADATA not in {tree.file.rpartition("/")[2] for tree in trees}:
        source = AGGREGATE if trees else "the keys of the database"
        contents.notes.append(f"no {METADATA}: the tree was taken from {source}")
    paths = _paths(set(files), trees, variables, contents)
    openers: dict[str, Callable[[], Leaf]] = {
        path: partial(ZarrLeaf.open, path, database, name, keys=files[name])
        for name, path in paths.items()
    }
    open_all(contents, openers, step.remote)
    add_trees(contents, trees, paths, step, state)
    # Only arrays count: every layout numbers an empty state at the end of an optax chain.
    if is_positional(paths.values(), _collections(set(files))):
        _rename(contents, _collections(set(files)))
    return contents


def _arrays(database: Store) -> dict[str, set[str]]:
    """Array name -> names of its files; array names contain no '/'."""
    files: dict[str, set[str]] = {}
    keys = database.keys()
    for key in keys:
        name, _, rest = key.partition("/")
        files.setdefault(name, set()).add(rest)
    return files


def _paths(
    names: set[str], trees: list[Tree], variables: dict[str, str], contents: Contents
) -> dict[str, str]:
    """Key of each array in the database -> its path."""
    told: Mapping[str, str] = trees[0].arrays if trees else {}
    collections = _collections(names)
    paths: dict[str, str] = {}
    for name in sorted(names):
        if not name.startswith(TRAIN_STATE):
            contents.notes.append(f"ignored the array {name}: not a part of a TrainState")
            continue
        try:
            path = told.get(name) or from_name(name, collections, variables)
        except CheckpointError as error:
            contents.problems.append(str(error))
            continue
        paths[name] = path
    return paths


def _collections(names: set[str]) -> set[str]:
    """First keys under `mdl_vars`."""
    return {PARAMS, *(name.split(".")[1] for name in names if name.startswith("mdl_vars."))}


def _rename(contents: Contents, collections: set[str]) -> None:
    """Replace the positions of paxml 1.1.0 by names."""
    shapes: dict[str, tuple[int, ...] | None] = {
        path: leaf.spec.stored_shape
        for path, leaf in contents.leaves.items()
        if path.startswith("opt_states/")
    }
    shapes |= {path: None for path in contents.masked if path.startswith("opt_states/")}
    shapes |= {path: None for path in contents.failed if path.startswith("opt_states/")}
    renamed, notes = name_positions(shapes, collections)
    contents.naming = "positional"
    contents.notes += notes
    contents.leaves = {
        renamed.get(path, path): with_spec(leaf, path=renamed.get(path, path))
        for path, leaf in contents.leaves.items()
    }
    contents.failed = {renamed.get(path, path) for path in contents.failed}
    contents.masked = [renamed.get(path, path) for path in contents.masked]
