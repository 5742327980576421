"""Reads safetensors files: checks the whole header, and makes leaves that read lazily.

A file is the length of its header (8 bytes, little-endian), the header as JSON, then the values of
all tensors without a gap. See https://github.com/huggingface/safetensors#format.
"""

import json
import math
from typing import Any

import ml_dtypes  # noqa: F401  (registers bfloat16 and float8 with NumPy)
import numpy as np

from converters.arrays import FlatLeaf, LeafSpec
from converters.errors import CheckpointError
from converters.huggingface.files.pointer import refuse_pointer
from converters.stores import Store
from converters.write.formats import DTYPES

LONGEST_HEADER = 100_000_000  # bytes; the format's own bound
_DTYPES = {name: np.dtype(ours) for ours, name in DTYPES.items()}
_FIELDS = {"dtype", "shape", "data_offsets"}


def read_safetensors(store: Store, key: str) -> dict[str, FlatLeaf]:
    """Read the header of a file: name -> leaf.

    Args:
        store: the store that has the file.
        key: key of the file.

    Raises:
        CheckpointError: the file is truncated or continues after its values, its header is invalid,
            or tensors overlap, leave gaps or do not have the size of their shape. Lists all such
            faults.
    """
    refuse_pointer(store, key)
    where, size = f"{store.url}/{key}", store.size(key)
    length = int.from_bytes(store.read(key, 0, 8), "little") if size >= 8 else size
    if size < 8 or length > size - 8:
        raise CheckpointError(
            f"{where}: is cut off: {size} bytes, of which the header takes {length}. Copy it again."
        )
    if length > LONGEST_HEADER:
        raise CheckpointError(f"{where}: no safetensors file: a header of {length} bytes")
    header = _header(store.read(key, 8, 8 + length), where)
    header.pop("__metadata__", None)
    problems: list[str] = []
    places = {name: _place(name, about, problems) for name, about in header.items()}
    if not problems:
        problems = _gaps(
            {name: place for name, place in places.items() if place}, size - 8 - length
        )
    if problems:
        raise CheckpointError(
            "\n  ".join([f"{where}: {len(problems)} problem(s); copy it again:", *problems[:20]])
        )
    leaves = {}
    for name, place in places.items():
        assert place is not None
        dtype, shape, (start, stop) = place
        spec = LeafSpec(name, shape, dtype, shape, key)
        leaves[name] = FlatLeaf(spec, store, key, ((8 + length + start, stop - start),))
    return leaves


_Place = tuple[np.dtype, tuple[int, ...], tuple[int, int]]  # dtype, shape, (start, stop) in bytes


def _header(data: bytes, where: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name stands there twice")
        return found

    try:
        found = json.loads(data.decode(), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{where}: no safetensors file: its header is no JSON: {error}"
        ) from (error)
    if not isinstance(found, dict):
        raise CheckpointError(f"{where}: no safetensors file: its header is no JSON object")
    return found


def _place(name: str, about: Any, problems: list[str]) -> _Place | None:
    """Parse the header's entry for one tensor; None, and a problem, if it is invalid."""
    if not isinstance(about, dict) or about.keys() != _FIELDS:
        problems.append(f"{name}: expected dtype, shape and data_offsets, found {about!r:.80}")
        return None
    shape, offsets = about["shape"], about["data_offsets"]
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        problems.append(f"{name}: shape {shape!r:.60} at {offsets!r:.60} is nonsense")
        return None
    dtype = _DTYPES.get(about["dtype"]) if isinstance(about["dtype"], str) else None
    if dtype is None:
        known = ", ".join(_DTYPES)
        problems.append(f"{name}: dtype {about['dtype']!r} is not supported; known are {known}")
        return None
    takes, held = math.prod(shape) * dtype.itemsize, offsets[1] - offsets[0]
    if takes != held:
        problems.append(f"{name}: {about['dtype']} {shape} takes {takes} bytes, {held} are given")
    return dtype, tuple(shape), (offsets[0], offsets[1])


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(size) is int and size >= 0 for size in value)


def _gaps(places: dict[str, _Place], size: int) -> list[str]:
    """Problem lines unless the tensors are contiguous and fill exactly `size` bytes."""
    problems, position, before = [], 0, "the header"
    for name, (_, _, (start, stop)) in sorted(places.items(), key=lambda item: item[1][2]):
        if start != position:
            kind = "overlaps" if start < position else f"lies {start - position} bytes behind"
            problems.append(f"{name}: {kind} {before}")
        position, before = max(position, stop), name
    if position != size:
        found = "is cut off" if position > size else "goes on after its tensors"
        problems.append(f"the file {found}: its tensors take {position} bytes, it has {size}")
    return problems
