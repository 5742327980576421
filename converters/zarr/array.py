"""A zarr array on disk: the grid and the names of its chunks, and errors for damaged ones."""

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.arrays import LeafSpec
from converters.errors import CheckpointError, ConversionError
from converters.stores import MissingKeyError, StorageError, Store
from converters.zarr.codec import Codec, CodecError, ZstdFrame

SHOWN = 5  # names of missing files in a message
# What TensorStore says about an OCDBT database whose data files are truncated, damaged or missing.
_DAMAGED = ("OUT_OF_RANGE", "DATA_LOSS", "NOT_FOUND")


@dataclass(frozen=True)
class ZarrArray:
    """Where a zarr v2 or v3 array is, and how its chunks are stored.

    Attributes:
        spec: description of the leaf.
        chunks: shape of a chunk.
        store: the directory of the array.
        codec: compressor of its chunks; None if TensorStore reads them (zarr v3, other codecs).
        separator: separator of the indices in a chunk's name.
        fills: whether chunks may be absent, because `fill_value` is a number. PAXml writes none
            (null), so there an absent chunk is damage.
        fill: value of an absent chunk, if `fills`.
        stored_dtype: dtype of the stored bytes, in their byte order; None: that of `spec`.
    """

    spec: LeafSpec
    chunks: tuple[int, ...]
    store: Store
    codec: Codec | None
    separator: str = "."
    fills: bool = False
    fill: Any = 0
    stored_dtype: np.dtype | None = None

    def check_chunks(self, keys: Collection[str]) -> None:
        """Raise `CheckpointError` unless every chunk has a file in `keys`."""
        if self.fills:
            return
        wanted, keys = math.prod(self.grid), set(keys)
        # Metadata may claim any number of chunks: look at no more than needed to find missing ones.
        first = min(wanted, len(keys) + SHOWN)
        names = (self.chunk_name(_index(number, self.grid)) for number in range(first))
        missing = [name for name in names if name not in keys]
        if missing:
            lacking = len(missing) + wanted - first
            some = ", ".join(missing[:SHOWN]) + (", ..." if lacking > SHOWN else "")
            raise CheckpointError(
                f"{self.spec.path}: {self.store.url} lacks {lacking} of {wanted} chunk files "
                f"({some}); they would read as zeros. Copy the checkpoint again."
            )

    @property
    def grid(self) -> tuple[int, ...]:
        """Number of chunks along each axis."""
        return tuple(
            -(-size // chunk)
            for size, chunk in zip(self.spec.stored_shape, self.chunks, strict=True)
        )

    def chunk_names(self) -> Iterator[str]:
        """Names of the chunk files, in C order."""
        for index in np.ndindex(*self.grid):
            yield self.chunk_name(index)

    def chunk_name(self, index: tuple[int, ...]) -> str:
        """Name of the file of one chunk."""
        return self.separator.join(map(str, index)) if index else "0"

    @property
    def swapped(self) -> bool:
        """Whether the stored bytes have another byte order than this machine."""
        return self.stored_dtype is not None and self.stored_dtype != self.spec.dtype

    @property
    def chunk_nbytes(self) -> int:
        """Decoded size of one chunk."""
        return math.prod(self.chunks) * self.spec.dtype.itemsize

    def stored_blocks(self, name: str, update: Callable[[bytes], object]) -> Iterator[bytes]:
        """The bytes of a zstd chunk file, block by block and not decoded; `update` gets each block.

        Raises:
            CheckpointError: the file is missing, is not one complete zstd frame, or its values have
                another length.
        """
        frame = ZstdFrame()
        try:
            for block in self.store.blocks(name):
                frame.feed(block)
                update(block)
                yield block
            frame.finish()
            if frame.content_size not in (None, self.chunk_nbytes):
                raise CodecError(
                    f"chunk holds {frame.content_size} bytes, {self.chunk_nbytes} expected"
                )
        except CodecError as error:
            raise self.damage(name, error) from error
        except StorageError as error:
            raise self.unreadable(name, error) from error

    def damage(self, chunk: tuple[int, ...] | str, cause: object) -> CheckpointError:
        """Make the error for a chunk (given by its index or file name) that cannot be decoded."""
        name = chunk if isinstance(chunk, str) else self.chunk_name(chunk)
        return CheckpointError(
            f"{self.spec.path}: chunk {name} of {self.store.url} is damaged: {cause}. "
            "Copy the checkpoint again."
        )

    def unreadable(self, chunk: tuple[int, ...] | str, cause: StorageError) -> ConversionError:
        """Make the error for a chunk that cannot be read: it is damaged, or the store failed."""
        if isinstance(cause, MissingKeyError) or any(word in str(cause) for word in _DAMAGED):
            return self.damage(chunk, cause)
        return StorageError(f"{self.spec.path}: {cause}")


def _index(number: int, grid: tuple[int, ...]) -> tuple[int, ...]:
    """Index of a chunk from its number in C order, for grids of any size."""
    index = []
    for size in reversed(grid):
        number, rest = divmod(number, size)
        index.append(rest)
    return tuple(reversed(index))
