"""A zarr array as its files lie: the grid of its chunks, their names, what is wrong with one."""

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.arrays import LeafSpec
from converters.errors import CheckpointError, ConversionError
from converters.stores import MissingKeyError, StorageError, Store
from converters.zarr.codec import Codec, CodecError, ZstdFrame

# What TensorStore says of an OCDBT database whose data files are cut off, damaged or missing.
SHOWN = 5  # names of missing files in a message
_DAMAGED = ("OUT_OF_RANGE", "DATA_LOSS", "NOT_FOUND")


@dataclass(frozen=True)
class ZarrArray:
    """Where a zarr v2 or v3 array lies, and how its chunks are stored.

    Attributes:
        spec: what it is.
        chunks: shape of a chunk.
        store: the directory of the array.
        codec: compressor of its chunks; None where TensorStore reads it (zarr v3, other codecs).
        separator: between the indices in the name of a chunk.
        fills: whether a chunk may be absent, that is, `fill_value` is a number. What PAXml writes
            has none (null), so that an absent chunk is damage.
        little_endian: whether the bytes of the chunks are values as this machine has them.
        fill: value of an absent chunk where `fills`.
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
        """Raise `CheckpointError` unless there is a file for each chunk in `keys`."""
        if self.fills:
            return
        wanted, keys = math.prod(self.grid), set(keys)
        # Metadata may claim any number of chunks: no more are looked at than it takes to know.
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
        """Whether the stored bytes are in another order than this machine's."""
        return self.stored_dtype is not None and self.stored_dtype != self.spec.dtype

    @property
    def chunk_nbytes(self) -> int:
        """Decoded size of one chunk."""
        return math.prod(self.chunks) * self.spec.dtype.itemsize

    def stored_blocks(self, name: str, update: Callable[[bytes], object]) -> Iterator[bytes]:
        """The bytes of a zstd chunk file, block by block, as they are; `update` sees each.

        Raises:
            CheckpointError: the file is missing, not one whole zstd frame, or one of another
                length.
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
        """The error for a chunk (its index or file) that does not decode."""
        name = chunk if isinstance(chunk, str) else self.chunk_name(chunk)
        return CheckpointError(
            f"{self.spec.path}: chunk {name} of {self.store.url} is damaged: {cause}. "
            "Copy the checkpoint again."
        )

    def unreadable(self, chunk: tuple[int, ...] | str, cause: StorageError) -> ConversionError:
        """The error for a chunk that the store does not give: damage, or a fault of the place."""
        if isinstance(cause, MissingKeyError) or any(word in str(cause) for word in _DAMAGED):
            return self.damage(chunk, cause)
        return StorageError(f"{self.spec.path}: {cause}")


def _index(number: int, grid: tuple[int, ...]) -> tuple[int, ...]:
    """Index of a chunk by its number in C order, of grids of any size."""
    index = []
    for size in reversed(grid):
        number, rest = divmod(number, size)
        index.append(rest)
    return tuple(reversed(index))
