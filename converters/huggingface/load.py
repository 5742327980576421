"""Loads a pretrained language model into memory: tensor by tensor from its file to its place."""

import mmap
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import jax
import numpy as np

from converters.arrays.flat import FlatLeaf, FlatReader
from converters.arrays.lazy import Array, tile_regions
from converters.arrays.leaf import Leaf, Reader, Region
from converters.arrays.values import Cast
from converters.errors import CheckpointError
from converters.execute import default_workers
from converters.huggingface.files import open_pretrained
from converters.huggingface.planner import PretrainedOptions, plan_pretrained
from converters.plan import PlannedLeaf
from efficientids_flax.config import BackboneConfig
from efficientids_flax.load import Shardings

TILE = 2 << 20  # bytes that are read, turned and cast at a time: they stay in the cache
BITS = {2: np.uint16, 4: np.uint32}  # itemsize -> a dtype that JAX takes as it is


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
        return _settled(jax.device_put(values_of(array), may_alias=True))
    if not isinstance(shardings, jax.sharding.Sharding):
        shape = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        shardings = shardings(leaf.target, shape)

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        wanted = index or (slice(None),) * len(leaf.shape)
        bounds = [part.indices(size) for part, size in zip(wanted, leaf.shape, strict=True)]
        return values_of(array, tuple(slice(start, stop) for start, stop, _ in bounds))

    return _settled(jax.make_array_from_callback(leaf.shape, shardings, part))


def _settled(values: jax.Array) -> jax.Array:
    """The array once it is where it goes, so that few copies are under way at a time."""
    return values.block_until_ready()


class TileReader(FlatReader):
    """Reads into one piece of memory again and again, which so stays in the processor's cache.

    What was read before is gone with the next read.
    """

    def __init__(self, leaf: FlatLeaf, path: Path) -> None:
        super().__init__(leaf)
        self._path = path
        self._memory = bytearray()

    def bytes_at(self, start: int, count: int) -> memoryview:
        """See `FlatReader.bytes_at`; the values lie in one segment."""
        ((offset, _),) = self.leaf.segments
        if len(self._memory) < count:
            self._memory = bytearray(count)
        data, done = memoryview(self._memory)[:count], 0
        with self._path.open("rb", buffering=0) as file:
            file.seek(offset + start)
            while done < count:
                more = file.readinto(data[done:])
                if not more:
                    raise CheckpointError(
                        f"{self.leaf.spec.path}: {self._path} stops before byte "
                        f"{offset + start + count}. Copy it again."
                    )
                done += more
        return data


def _reader(leaf: Leaf) -> Reader:
    """The fastest cursor over a leaf."""
    path = leaf.store.local_path(leaf.key) if isinstance(leaf, FlatLeaf) else None
    if path is None or not isinstance(leaf, FlatLeaf) or len(leaf.segments) != 1:
        return leaf.reader(TILE)
    return TileReader(leaf, path)


def values_of(array: Array, region: Region | None = None) -> np.ndarray:
    """A region of an array, computed tile by tile straight into its place."""
    region = region or tuple(slice(0, size) for size in array.shape)
    shape = tuple(part.stop - part.start for part in region)
    out = _empty(shape, array.dtype)
    source = array.inputs[0] if isinstance(array, Cast) else array  # cast on the way to its place
    readers = lru_cache(2)(_reader)
    tile = tuple(map(min, array.tiles(TILE), (max(size, 1) for size in shape)))
    for _, inner in tile_regions(shape, tile):
        place = tuple(
            slice(part.start + outer.start, part.stop + outer.start)
            for part, outer in zip(inner, region, strict=True)
        )
        put(out[inner], source.view(place, readers))
    return out


def put(out: np.ndarray, values: np.ndarray) -> None:
    """`out[:] = values`, fast where the values lie in another order in memory.

    NumPy goes from number to number, some ten times slower than memory; XLA turns blocks of them in
    registers. It is given plain bits, which it does not touch.
    """
    bits = BITS.get(values.dtype.itemsize)
    if bits is not None and not values.flags.c_contiguous:
        turned = jax.device_put(values.view(bits), jax.devices("cpu")[0])
        values = np.asarray(turned).view(values.dtype)
    if values.dtype == out.dtype and bits is not None:
        out.view(bits)[...] = values.view(bits)
        return
    with np.errstate(over="ignore", invalid="ignore"):
        out[...] = values


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array without values that lies where JAX need not copy it.

    Pages of its own: between arrays of a few MB the heap is left with holes, a tenth of the model.
    """
    size = int(np.prod(shape)) * dtype.itemsize
    pages = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        pages.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(pages, np.uint8)[:size].view(dtype).reshape(shape)
