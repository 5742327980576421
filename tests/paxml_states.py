"""Writers of states in the layouts of PAXml, for tests that need one of their own."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (bfloat16 for np.dtype)
import msgpack
import numpy as np
import tensorstore as ts

from converters.paxml.names import to_dotted_name, to_pax_name

Arrays = Mapping[str, np.ndarray]  # canonical path -> values
ZSTD = {"id": "zstd", "level": 1}


def write_zarr(state: Path, arrays: Arrays, name=to_pax_name, compressor: Any = ZSTD) -> None:
    """One zarr v2 directory for each array."""
    for path, values in arrays.items():
        _write_array({"driver": "file", "path": f"{state / name(path)}/"}, values, compressor)


def write_ocdbt(state: Path, arrays: Arrays, compressor: Any = ZSTD, tree: bool = True) -> None:
    """An OCDBT database; with `_METADATA` and `checkpoint` if `tree`."""
    base = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{state}/"}}
    for path, values in arrays.items():
        _write_array(base | {"path": f"{to_dotted_name(path)}/"}, values, compressor)
    if tree:
        write_tree(state, arrays)


def write_tree(state: Path, arrays: Arrays) -> None:
    """`_METADATA` and `checkpoint` as Orbax 0.5.9 writes them."""
    entries: dict[str, Any] = {}
    nested: dict[str, Any] = {"extra_state": None}
    for path in arrays:
        keys = path.split("/")
        entries[str(tuple(keys))] = {
            "key_metadata": [{"key": key, "key_type": 2} for key in keys],
            "value_metadata": {"value_type": "jax.Array", "skip_deserialize": False},
        }
        node = nested
        for key in keys[:-1]:
            node = node.setdefault(key, {})
        node[keys[-1]] = f"PLACEHOLDER://{'.'.join(keys)}"
    (state / "_METADATA").write_text(json.dumps({"tree_metadata": entries, "use_zarr3": False}))
    (state / "checkpoint").write_bytes(msgpack.packb(nested))


def write_metadata(step: Path, version: float, arrays: Arrays | None = None, **shapes: Any) -> None:
    """`metadata/metadata`; lists the variables of `arrays`, some of them with another shape."""
    found: dict[str, Any] = {"version": version}
    if arrays is not None:
        tree: dict[str, Any] = {}
        for path, values in arrays.items():
            if not path.startswith("mdl_vars/"):
                continue
            node = tree
            for key in path.split("/"):
                node = node.setdefault(key, {})
            node |= {
                "_array_metadata_tag": True,
                "dtype": values.dtype.name,
                "is_optax_masked_node": False,
                "unpadded_shape": shapes.get(path.rpartition("/")[2], list(values.shape)),
            }
        found["train_state_metadata"] = tree
    (step / "metadata").mkdir(parents=True, exist_ok=True)
    (step / "metadata" / "metadata").write_text(json.dumps(found))


def packed(values: np.ndarray) -> msgpack.ExtType:
    """An array as `flax.serialization` packs it."""
    parts = (list(values.shape), values.dtype.name, np.ascontiguousarray(values).tobytes())
    return msgpack.ExtType(1, msgpack.packb(parts))


def write_flax(file: Path, leaves: Any, treedef: str) -> None:
    """A FLAX file: `leaves` are packed already, in a list or in a dict keyed by number."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(msgpack.packb({"flattened_state": leaves, "str_pytree_state": treedef}))


def adam_state(**params: np.ndarray) -> dict[str, np.ndarray]:
    """A small `TrainState`: float32 `params` and their Adam moments; step 4."""
    arrays: dict[str, np.ndarray] = {"step": np.array(4, np.uint32)}
    arrays |= {f"mdl_vars/params/{name}": values for name, values in params.items()}
    arrays["opt_states/0/0/count"] = np.array(4, np.int32)
    arrays["opt_states/0/2/count"] = np.array(4, np.int32)
    for index, field in enumerate("mv", 2):
        arrays |= {
            f"opt_states/0/2/{field}/params/{name}": values * index
            for name, values in params.items()
        }
    return arrays


def _write_array(kvstore: dict[str, Any], values: np.ndarray, compressor: Any) -> None:
    """One array, in chunks of up to two along each axis; `compressor` may be 'zarr3'."""
    if compressor == "zarr3":
        spec: dict[str, Any] = {"driver": "zarr3", "kvstore": kvstore}
    else:
        metadata = {"compressor": compressor}
        spec = {"driver": "zarr", "kvstore": kvstore, "metadata": metadata}
    chunks = ts.ChunkLayout(chunk_shape=[max(min(size, 2), 1) for size in values.shape])
    array = ts.open(
        spec, create=True, dtype=values.dtype, shape=values.shape, chunk_layout=chunks
    ).result()
    array.write(values).result()
