"""Reads files without the code under test: PAXml's leaves, and the output of a conversion."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import msgpack
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts

Tree = dict[str, np.ndarray]


def leaf_digest(values: np.ndarray) -> str:
    """The digest that manifests call `sha256`."""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def read_manifest(directory: Path) -> dict[str, Any]:
    return json.loads((directory / "manifest.json").read_text())


def read_output(out: Path) -> Tree:
    """All leaves of a conversion as Orbax restores them, by target path."""
    found: Tree = {}
    with ocp.PyTreeCheckpointer() as checkpointer:
        for item in ("params", "state"):
            found |= flat(checkpointer.restore(out / item), item)
    return found


def flat(tree: Mapping[str, Any], prefix: str) -> Tree:
    """'/'-joined path -> leaf of nested dicts."""
    found: Tree = {}
    for key, value in tree.items():
        name = f"{prefix}/{key}"
        found |= flat(value, name) if isinstance(value, Mapping) else {name: np.asarray(value)}
    return found


def digests(out: Path) -> dict[str, str]:
    """Target -> sha256 of its values, of a conversion."""
    return {leaf["target"]: leaf["sha256"] for leaf in read_manifest(out)["leaves"]}


def step_of(checkpoint: Path) -> Path:
    """The only step in a `checkpoints/` folder."""
    (step,) = checkpoint.iterdir()
    return step


def read_paxml(step: Path, described: Mapping[str, Mapping[str, Any]]) -> Tree:
    """The leaves of a step by TensorStore or msgpack alone, without padding.

    Args:
        step: step directory or flat file.
        described: canonical path -> what a recording's manifest says of the leaf. Gives the names
            that are looked for, the order in FLAX files, and the shape without padding.
    """
    state = step / "state" if (step / "state").is_dir() else step
    flat_file = state / "checkpoint" if state.is_dir() else state
    if (state / "manifest.ocdbt").exists():
        base = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{state}/"}}
        keys = {
            key.decode().rpartition("/")[0]
            for key in ts.KvStore.open(base).result().list().result()
        }
        arrays = {
            path: _read_array(base | {"path": f"{_known(_ocdbt_names(path), keys)}/"})
            for path in described
        }
    elif flat_file.is_file():
        arrays = dict(zip(described, _read_flax(flat_file), strict=True))
    else:
        names = {place.name for place in state.iterdir()}
        arrays = {
            path: _read_array(
                {"driver": "file", "path": f"{state / _known(_zarr_names(path), names)}/"}
            )
            for path in described
        }
    return {
        path: values[tuple(slice(0, size) for size in described[path]["shape"])]
        for path, values in arrays.items()
    }


def cast_like(values: np.ndarray, dtype: str) -> np.ndarray:
    """`values` in the dtype in which PAXml restores them."""
    return values.astype(ml_dtypes.bfloat16) if dtype == "bfloat16" else values


def _zarr_names(path: str) -> list[str]:
    """Possible directories of a leaf: Pax names since 1.1, Orbax names of 0.3."""
    pax = "".join(f"_{key}" if key.isdigit() else f".{key}" for key in path.split("/"))
    return [pax.removeprefix("."), path.replace("/", ".")]


def _ocdbt_names(path: str) -> list[str]:
    """Keys of a leaf: by name, and by position as in 1.1.0 (groups and fields are numbered)."""
    keys = path.split("/")
    group = {"no_prefix": "0", "p#3#i-1": "1"}
    field = {"count": "0", "m": "1", "v": "2"}
    positional = [group.get(key, key) for key in keys[:4]]
    positional += [field.get(key, key) for key in keys[4:5]] + keys[5:]
    return [".".join(keys), ".".join(positional)]


def _known(names: Iterable[str], known: set[str]) -> str:
    return next(name for name in names if name in known)


def _read_array(kvstore: dict[str, Any]) -> np.ndarray:
    return ts.open({"driver": "zarr", "kvstore": kvstore}, read=True).result().read().result()


def _read_flax(file: Path) -> list[np.ndarray]:
    """Leaves of `flattened_state` in order, as `flax.serialization` packs them."""
    found = msgpack.unpackb(file.read_bytes(), ext_hook=_unpack, strict_map_key=False)
    leaves = found["flattened_state"]
    if isinstance(leaves, dict):
        leaves = [leaves[key] for key in sorted(leaves, key=int)]
    # A frozen variable's place in the state holds nothing (praxis.py_utils.BpropMaskedNode).
    return [_joined(leaf) for leaf in leaves if leaf is not None]


def _unpack(code: int, data: bytes) -> np.ndarray:
    assert code in (1, 3)  # array, NumPy scalar
    if code == 3:
        dtype, values = msgpack.unpackb(data)
        return np.frombuffer(values, dtype).reshape(())
    shape, dtype, values = msgpack.unpackb(data)
    return np.frombuffer(values, np.dtype(dtype)).reshape(shape)


def _joined(leaf: Any) -> np.ndarray:
    """An array, put together if it was over 1 GiB (or what the recording took for that)."""
    if isinstance(leaf, np.ndarray):
        return leaf
    assert leaf["__msgpack_chunked_array__"]
    parts = [leaf["chunks"][key] for key in sorted(leaf["chunks"], key=int)]
    shape = [leaf["shape"][key] for key in sorted(leaf["shape"], key=int)]
    return np.concatenate(parts).reshape(shape)
