"""The two formats of a converted checkpoint: Orbax items and safetensors files, as nested dicts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from efficientids_flax.stored.echoes import without_echoes
from efficientids_flax.text import in_a_line
from efficientids_flax.tree import flatten, unflatten

Shardings = jax.sharding.Sharding | Callable[[str, jax.ShapeDtypeStruct], jax.sharding.Sharding]
"""Sharding of the leaves: one for all, or a function of a leaf's path and description."""

DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64",
    "I32": "int32", "I16": "int16", "I8": "int8", "U64": "uint64", "U32": "uint32",
    "U16": "uint16", "U8": "uint8", "BOOL": "bool", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
}  # fmt: skip


def read_item(root: epath.Path, item: str, shardings: Shardings | None) -> dict[str, Any]:
    """The tree of 'params' or 'state'; a missing state is empty.

    Raises:
        FileNotFoundError: there are no parameters.
    """
    if (root / item).is_dir():
        return _restore(root / item, item, shardings)
    if any(root.glob(f"{item}*.safetensors")):
        return _read_safetensors(root, item, shardings)
    if item == "state":
        return {}
    raise FileNotFoundError(f"{root}: has neither {item}/ nor {item}.safetensors")


def write_item(root: epath.Path, item: str, tree: Mapping[str, Any]) -> None:
    """Write a tree in Orbax' format; every process must call it.

    Raises:
        OSError: writing failed; the message is one line.
    """
    import orbax.checkpoint as ocp

    try:
        with without_echoes(), ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(root / item, dict(tree))
    except Exception as error:
        raise OSError(f"{root / item}: cannot be written: {in_a_line(error)}") from error


def read_parameter(path: str | os.PathLike[str], name: str) -> np.ndarray:
    """One parameter of a converted checkpoint, as stored; no other is read.

    Args:
        path: directory of the converted checkpoint.
        name: path of the parameter, such as 'item_embedding/kernel'.

    Raises:
        FileNotFoundError: there are no parameters.
        ValueError: there is no such parameter.
    """
    root = epath.Path(path)
    if name not in stored_parameters(path):
        raise ValueError(f"{path}: has no parameter {name}")
    if (root / "params").is_dir():
        return _restored_leaf((root / "params").absolute(), name)
    return next(values.get_tensor(name) for key, values in _safetensors(root, "params")
                if key == name)  # fmt: skip


def stored_parameters(path: str | os.PathLike[str]) -> dict[str, jax.ShapeDtypeStruct]:
    """Path -> shape and dtype of every parameter of a converted checkpoint; reads no array.

    Raises:
        FileNotFoundError: there are no parameters.
    """
    root = epath.Path(path)
    if (root / "params").is_dir():
        leaves = flatten(_metadata(root / "params")).items()
        return {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in leaves}
    found = {}
    for name, values in _safetensors(root, "params"):
        part = values.get_slice(name)
        dtype = jnp.dtype(DTYPES[part.get_dtype()])
        found[name] = jax.ShapeDtypeStruct(tuple(part.get_shape()), dtype)
    if not found:
        raise FileNotFoundError(f"{root}: has neither params/ nor params.safetensors")
    return found


def sharding_of(
    shardings: Shardings, name: str, leaf: jax.ShapeDtypeStruct
) -> jax.sharding.Sharding:
    """The sharding of one leaf, 'params/...' or 'state/...'."""
    return shardings if isinstance(shardings, jax.sharding.Sharding) else shardings(name, leaf)


def _restore(path: epath.Path, item: str, shardings: Shardings | None) -> dict[str, Any]:
    import orbax.checkpoint as ocp

    path = path.absolute()
    with ocp.PyTreeCheckpointer() as checkpointer:
        if shardings is None:  # without arguments, Orbax would use the writer's devices
            host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), _metadata(path))
            return checkpointer.restore(path, restore_args=host)

        def describe(keys: Any, leaf: Any) -> ocp.ArrayRestoreArgs:
            shape = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            name = "/".join([item, *(str(getattr(key, "key", key)) for key in keys)])
            return ocp.ArrayRestoreArgs(sharding=sharding_of(shardings, name, shape))

        arguments = jax.tree_util.tree_map_with_path(describe, _metadata(path))
        return checkpointer.restore(path, restore_args=arguments)


def _restored_leaf(path: epath.Path, name: str) -> np.ndarray:
    import orbax.checkpoint as ocp

    wanted = unflatten({name: flatten(_metadata(path))[name]})
    arguments = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    with ocp.PyTreeCheckpointer() as checkpointer:
        found = checkpointer.restore(
            path, args=ocp.args.PyTreeRestore(wanted, arguments, partial_restore=True)
        )
    return flatten(found)[name]


def _metadata(path: epath.Path) -> Any:
    """The item's tree; leaves have shapes and dtypes."""
    import orbax.checkpoint as ocp

    with ocp.PyTreeCheckpointer() as checkpointer:
        metadata = checkpointer.metadata(path.absolute()).item_metadata  # fails if relative
    return getattr(metadata, "tree", metadata)


def _read_safetensors(root: epath.Path, item: str, shardings: Shardings | None) -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, values in _safetensors(root, item):
        leaf: Any = values.get_tensor(name)
        if shardings is not None:
            shape = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
            leaf = jax.device_put(leaf, sharding_of(shardings, f"{item}/{name}", shape))
        leaves[name] = leaf
    return unflatten(leaves)


def _safetensors(root: epath.Path, item: str) -> Iterator[tuple[str, Any]]:
    """(name, open file that contains it) of each leaf of an item."""
    files = sorted(root.glob(f"{item}*.safetensors"))
    if not files:
        return
    try:
        from safetensors import safe_open
    except ImportError as error:
        raise ImportError("safetensors is not installed: pip install safetensors") from error
    for file in files:
        with safe_open(os.fspath(file), framework="numpy") as values:
            for name in values.keys():  # noqa: SIM118 (not a mapping)
                yield name, values
