"""Names of `TrainState` leaves: what PAXml writes on disk <-> the canonical paths used here.

A canonical path joins its components with '/'; list indices are decimal components:
`opt_states/0/p#3#i-1/2/m/params/lm/final_ln/scale`. On disk a path is written in one of three ways:

* Pax names (zarr directories of paxml 0.1, 0.2 and since 0.4): keys joined with '.'; an index is
  appended to the key before it with '_': `opt_states_0.p#3#i-1_2.m.params.lm.final_ln.scale`
  (`paxml.checkpoints._extract_nested_prefix_names`).
* Dotted names (Orbax: zarr directories of paxml 0.3, keys of OCDBT databases): everything joined
  with '.'.
* Positions instead of names (OCDBT of paxml 1.1.0), see `converters.paxml.sources.positional`.

Optimizer states of stacked layers are grouped by the prefix of their shape
(`praxis.optimizer_prefix_vectorization`): `no_prefix`, `p#3#i-1`, `p#2.3#sstage.i-1`, ...
"""

import re
from collections.abc import Collection, Mapping
from functools import cache

from converters.errors import CheckpointError

TRAIN_STATE = ("step", "mdl_vars", "opt_states", "extra_state")  # fields of `TrainState`, in order
NO_PREFIX = "no_prefix"  # group of the variables that are not stacked
PARAMS = "params"  # `base_layer.PARAMS`, the collection that optimizers see

_GROUP_HEAD = re.compile(r"p([^0-9A-Za-z.,])(\d+(?:\.\d+)*)\1")
# One axis of a sharding: an integer, a mesh axis, a tuple of mesh axes, or None (the empty text).
_AXIS = r"(?:i-?\d+|s[^.,]+?|t[^.]*?|)"
_INDICES = re.compile(r"(.*?)((?:_\d+)+)")


def from_name(
    name: str,
    collections: Collection[str] = (PARAMS,),
    variables: Mapping[str, str] | None = None,
) -> str:
    """Canonical path of a Pax name or dotted name.

    Args:
        name: name of a zarr directory, or key of an array in an OCDBT database.
        collections: first keys under `mdl_vars`. After one of them, an optimizer leaf's name
            repeats a variable's name, in which '_0' is not an index.
        variables: dotted name of each known variable -> its canonical path; needed since keys may
            contain '.'.

    Raises:
        CheckpointError: the name does not belong to a `TrainState`, or has unsafe components.
    """
    top, _, _ = name.partition(".")
    if name == "step":
        return name
    if top == "mdl_vars":
        return (variables or {}).get(name) or join(name.split("."), name)
    if re.fullmatch(r"opt_states(_\d+)*|extra_state(_\d+)*", top):
        dotted = top in TRAIN_STATE
        keys = _state_keys(name, dotted, collections, variables or {})
        return join(keys, name)
    raise CheckpointError(f"{name}: not a name of a TrainState leaf ({', '.join(TRAIN_STATE)})")


def to_pax_name(path: str) -> str:
    """Pax name of a canonical path."""
    name = ""
    for key in path.split("/"):
        if key.isdigit():
            name += f"_{key}"
        else:
            name += f".{key}" if name else key
    return name


def to_dotted_name(path: str) -> str:
    """Dotted name of a canonical path."""
    return path.replace("/", ".")


def join(keys: Collection[str], where: str) -> str:
    """Canonical path of `keys`.

    Raises:
        CheckpointError: a key is empty or could lead out of the output directory.
    """
    for key in keys:
        if not key or "/" in key or "\\" in key or "\0" in key or ".." in key or key == ".":
            raise CheckpointError(
                f"{where}: refused, its key {key!r} is empty or could lead out of the directory"
            )
    return "/".join(keys)


def group_shape(key: str) -> tuple[int, ...] | None:
    """Sizes of the stacked axes of an optimizer group; () for `no_prefix`, None if not a group."""
    if key == NO_PREFIX:
        return ()
    found = _match_group(key, 0)
    if found is None or found.end() != len(key):
        return None
    return tuple(int(size) for size in found["shape"].split("."))


def order(path: str) -> tuple[object, ...]:
    """Sort key of a canonical path: order of `TrainState`, keys by name, indices by number."""
    top, *keys = path.split("/")
    first = TRAIN_STATE.index(top) if top in TRAIN_STATE else len(TRAIN_STATE)
    return (first, *((0, int(key), "") if key.isdigit() else (1, 0, key) for key in keys))


def _state_keys(
    name: str, dotted: bool, collections: Collection[str], variables: Mapping[str, str]
) -> list[str]:
    """Components of a name under `opt_states` or `extra_state`."""
    index = r"(?:\.\d+(?![^.]))?" if dotted else r"(?:_\d+)*"
    head = re.match(rf"(opt_states|extra_state)({index})", name)
    assert head is not None  # `from_name` has checked this
    keys = [head[1], *re.findall(r"\d+", head[2])]
    position = head.end()
    group = _match_group(name, position + 1, indexed=not dotted)
    if group is None and name.startswith(NO_PREFIX, position + 1):
        group = re.compile(rf"(?P<key>{NO_PREFIX})(?P<index>(?:_\d+)*)(?=\.|$)").match(
            name, position + 1
        )
    if group is not None:
        keys += [group["key"], *re.findall(r"\d+", group["index"])]
        position = group.end()
    rest = name[position + 1 :].split(".") if position < len(name) else []
    for place, key in enumerate(rest):
        if key in collections:
            tail = variables.get("mdl_vars." + ".".join(rest[place:]))
            return keys + (tail.split("/")[1:] if tail else rest[place:])
        found = None if dotted else _INDICES.fullmatch(key)
        keys += [found[1], *re.findall(r"\d+", found[2])] if found else [key]
    return keys


def _match_group(name: str, position: int, indexed: bool = False) -> re.Match[str] | None:
    """Match the `p#...` key of a group at `position`, and `_n` indices after it if `indexed`."""
    head = _GROUP_HEAD.match(name, position)
    if head is None:
        return None
    return _group_pattern(head[1], head[2].count(".") + 1, indexed).match(name, position)


@cache
def _group_pattern(separator: str, rank: int, indexed: bool) -> re.Pattern[str]:
    """Pattern of a group with `rank` stacked axes: shape, sharding, perhaps the optimizer's."""
    mark = re.escape(separator)
    axes = rf"{_AXIS}(?:\.{_AXIS}){{{rank - 1}}}"
    index = r"(?:_\d+)*" if indexed else ""
    return re.compile(
        rf"(?P<key>p{mark}(?P<shape>\d+(?:\.\d+){{{rank - 1}}}){mark}{axes}(?:{mark}{axes})??)"
        rf"(?P<index>{index})(?=\.|$)"
    )
