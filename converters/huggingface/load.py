"""Loads a pretrained language model into memory: tensor by tensor from its file to its place."""

import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

from converters.arrays.lazy import Array, tile_regions
from converters.arrays.leaf import Region
from converters.execute import default_workers
from converters.huggingface.files import open_pretrained
from converters.huggingface.planner import PretrainedOptions, plan_pretrained
from converters.plan import PlannedLeaf
from converters.write.jobs import ReaderCache
from efficientids_flax.config import BackboneConfig
from efficientids_flax.load import Shardings

TILE = 1 << 18  # bytes that are read, turned and cast at a time: they stay in the cache
ALIGNMENT = 64  # bytes; arrays that lie so are taken over by JAX on CPUs without a copy


def load_pretrained_lm(
    name_or_path: str | os.PathLike[str],
    dtype: str | None = None,
    *,
    shardings: Shardings | None = None,
    scan_layers: bool = False,
    revision: str = "main",
    download: bool = False,
    token: str | None = None,
    ignore_keys: Collection[str] = (),
) -> tuple[BackboneConfig, dict[str, Any]]:
    """A pretrained language model as a configuration and parameters of our decoder.

    The host holds the parameters once, and in addition little more than what is being read.

    Args:
        name_or_path: folder with `config.json` and safetensors, or the name of a model in the
            HuggingFace cache.
        dtype: of parameters and computation; None keeps the parameters as they are stored, and
            computes in what `config.json` says.
        shardings: where the parameters go, as in `load_converted`; a process reads its shards only.
            None: all on the default device.
        scan_layers: layers stacked on a leading axis, for a decoder that scans them.
        revision: branch, tag or commit, for a name.
        download: fetch what is not in the cache (needs `huggingface_hub`).
        token: for models that are not public.
        ignore_keys: unknown keys of `config.json` that mean nothing for the computation.

    Returns:
        (configuration, nested dict of arrays): `Decoder(config).apply({"params": params}, ids)`.

    Raises:
        ConversionError: no such model, damaged files, an unsupported family or setting, tensors
            that do not fit; all problems of a kind at once.
    """
    model = open_pretrained(name_or_path, revision, download=download, token=token)
    config, plan = plan_pretrained(model, PretrainedOptions(dtype, scan_layers, ignore_keys))
    # The largest first, so that no thread is left with one of them at the end.
    leaves = sorted(plan.leaves, key=lambda leaf: -leaf.nbytes)
    with ThreadPoolExecutor(default_workers(), "load") as pool:
        placed = list(pool.map(lambda leaf: _placed(leaf, shardings), leaves))
    params: dict[str, Any] = {}
    for leaf, values in zip(leaves, placed, strict=True):
        *parents, name = leaf.target.split("/")[1:]
        tree = params
        for parent in parents:
            tree = tree.setdefault(parent, {})
        tree[name] = values
    return config, params


def _placed(leaf: PlannedLeaf, shardings: Shardings | None) -> jax.Array:
    """The values of a leaf on their devices."""
    array = leaf.array
    if shardings is None:
        return _settled(jax.device_put(_values(array), may_alias=True))
    if not isinstance(shardings, jax.sharding.Sharding):
        shape = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        shardings = shardings(leaf.target, shape)

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        wanted = index or (slice(None),) * len(leaf.shape)
        bounds = [part.indices(size) for part, size in zip(wanted, leaf.shape, strict=True)]
        return _values(array, tuple(slice(start, stop) for start, stop, _ in bounds))

    return _settled(jax.make_array_from_callback(leaf.shape, shardings, part))


def _settled(values: jax.Array) -> jax.Array:
    """The array once it is where it goes, so that few copies are under way at a time."""
    return values.block_until_ready()


def _values(array: Array, region: Region | None = None) -> np.ndarray:
    """A region of an array, computed tile by tile straight into its place."""
    region = region or tuple(slice(0, size) for size in array.shape)
    readers = ReaderCache(TILE)
    shape = tuple(part.stop - part.start for part in region)
    out = _empty(shape, array.dtype)
    tile = array.tiles(TILE)
    for _, inner in tile_regions(shape, tuple(map(min, tile, (max(n, 1) for n in shape)))):
        place = tuple(
            slice(part.start + outer.start, part.stop + outer.start)
            for part, outer in zip(inner, region, strict=True)
        )
        out[inner] = array.read(place, readers)
    return out


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array without values that lies where JAX need not copy it."""
    size = int(np.prod(shape)) * dtype.itemsize
    room = np.empty(size + ALIGNMENT, np.uint8)
    start = -room.ctypes.data % ALIGNMENT
    return room[start : start + size].view(dtype).reshape(shape)
