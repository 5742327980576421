"""Arrays that are not computed yet: a target leaf as an expression over source leaves.

Each node knows its shape, dtype and a grid of tiles along which it is cheap to compute, all from
the sources' descriptions; values flow only when a region is asked for. So a whole conversion is
checked before a byte is read, and any leaf is computed in pieces of bounded size.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from converters.arrays.leaf import Leaf, Reader, Region, extent, whole
from converters.errors import CheckpointError

Readers = Callable[[Leaf], Reader]  # gives the cursor of one worker over a leaf
BLOCK = 1 << 18  # values that an elementwise operation handles at a time, to stay in the cache
_CRUMB = 1 << 16  # bytes below which a tile is not worth a file
_WORTH = 8  # a tile may be this many times smaller so as to lie in one source


class Array(ABC):
    """An expression over leaves.

    Attributes:
        shape: of the result.
        dtype: of the result.
        chunks: tile shape along which regions are best asked for.
        inputs: the expressions that it is made of.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: tuple[int, ...]
    inputs: tuple["Array", ...]

    @abstractmethod
    def read(self, region: Region, readers: Readers) -> np.ndarray:
        """Values of `region`, C-contiguous, of `dtype`."""

    @abstractmethod
    def origin(self, region: Region) -> tuple[Leaf, Region]:
        """Where the first source's part of `region` lies; orders the work over one source."""

    @abstractmethod
    def tiles(self, limit: int) -> tuple[int, ...]:
        """Tile shape for computing the array in pieces of at most about `limit` bytes."""

    @property
    def nbytes(self) -> int:
        """Size of the values in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def leaves(self) -> list[Leaf]:
        """The source leaves, each once, in order."""
        found = {id(leaf): leaf for node in self.inputs for leaf in node.leaves()}
        return list(found.values())


@dataclass(frozen=True)
class Source(Array):
    """A leaf as it is stored."""

    leaf: Leaf

    @property
    def shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.leaf.spec.shape

    @property
    def dtype(self) -> np.dtype:  # type: ignore[override]
        return self.leaf.spec.dtype

    @property
    def chunks(self) -> tuple[int, ...]:  # type: ignore[override]
        pairs = zip(self.leaf.chunks, self.shape, strict=True)
        return tuple(max(min(chunk, size), 1) for chunk, size in pairs)

    @property
    def inputs(self) -> tuple[Array, ...]:  # type: ignore[override]
        return ()

    def read(self, region: Region, readers: Readers) -> np.ndarray:
        return readers(self.leaf).read(region)

    def origin(self, region: Region) -> tuple[Leaf, Region]:
        return self.leaf, region

    def tiles(self, limit: int) -> tuple[int, ...]:
        return _cut(self.chunks, self.dtype, limit)

    def leaves(self) -> list[Leaf]:
        return [self.leaf]


class _Node(Array):
    """Common part of the operations: results are fixed when the node is made."""

    def __init__(
        self, inputs: tuple[Array, ...], shape: tuple[int, ...], dtype: np.dtype | None = None
    ) -> None:
        self.inputs = inputs
        self.shape = shape
        self.dtype = inputs[0].dtype if dtype is None else dtype
        self.chunks = self._fit(inputs[0].chunks)

    def _grid(self, inner: tuple[int, ...]) -> tuple[int, ...]:
        """Tile shape of the result that tiles of shape `inner` of the first input give."""
        return inner

    def _fit(self, inner: tuple[int, ...]) -> tuple[int, ...]:
        pairs = zip(self._grid(inner), self.shape, strict=True)
        return tuple(max(min(tile, size), 1) for tile, size in pairs)

    def origin(self, region: Region) -> tuple[Leaf, Region]:
        return self.inputs[0].origin(region)

    def tiles(self, limit: int) -> tuple[int, ...]:
        # Cut as the source is stored, so that a chunk too large to hold is read in one pass.
        return _cut(self._fit(self.inputs[0].tiles(limit)), self.dtype, limit)


class Transposed(_Node):
    """Axes in another order: `result.shape[i] = array.shape[axes[i]]`."""

    def __init__(self, array: Array, axes: tuple[int, ...]) -> None:
        if sorted(axes) != list(range(len(array.shape))):
            raise ValueError(f"transpose {axes} does not fit shape {list(array.shape)}")
        self._axes = axes
        super().__init__((array,), self._grid(array.shape))

    def _grid(self, inner: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(inner[axis] for axis in self._axes)

    def _back(self, region: Region) -> Region:
        parts = dict(zip(self._axes, region, strict=True))
        return tuple(parts[axis] for axis in range(len(region)))

    def read(self, region: Region, readers: Readers) -> np.ndarray:
        values = self.inputs[0].read(self._back(region), readers)
        return np.asarray(values.transpose(self._axes), order="C")

    def origin(self, region: Region) -> tuple[Leaf, Region]:
        return self.inputs[0].origin(self._back(region))


class Merged(_Node):
    """Axes `axis` and `axis + 1` as one: [.., N, H, ..] -> [.., N * H, ..]."""

    def __init__(self, array: Array, axis: int) -> None:
        if not 0 <= axis < len(array.shape) - 1:
            raise ValueError(f"merge {axis} does not fit shape {list(array.shape)}")
        outer, size = array.shape[axis : axis + 2]
        self._axis, self._inner = axis, max(size, 1)
        shape = (*array.shape[:axis], outer * size, *array.shape[axis + 2 :])
        super().__init__((array,), shape)

    def _grid(self, inner: tuple[int, ...]) -> tuple[int, ...]:
        rows, columns = inner[self._axis : self._axis + 2]
        piece = columns * math.prod(inner[self._axis + 2 :]) * self.dtype.itemsize
        even = columns < self._inner and self._inner % columns == 0
        # A part of each row, unless that makes crumbs; else all parts of these rows.
        tile = columns if even and (rows == 1 or piece >= _CRUMB) else rows * self._inner
        return (*inner[: self._axis], tile, *inner[self._axis + 2 :])

    def _cover(self, region: Region) -> Region:
        """The smallest region before the merge that holds `region`."""
        part, inner = region[self._axis], self._inner
        first, last = part.start // inner, -(-part.stop // inner)
        columns = slice(0, inner)
        if last - first == 1:
            columns = slice(part.start - first * inner, part.stop - first * inner)
        return (*region[: self._axis], slice(first, last), columns, *region[self._axis + 1 :])

    def read(self, region: Region, readers: Readers) -> np.ndarray:
        cover = self._cover(region)
        values = self.inputs[0].read(cover, readers)
        rows, columns = cover[self._axis : self._axis + 2]
        before, after = values.shape[: self._axis], values.shape[self._axis + 2 :]
        values = values.reshape((*before, -1, *after))
        skip = region[self._axis].start - rows.start * self._inner - columns.start
        count = region[self._axis].stop - region[self._axis].start
        inside = (slice(None),) * self._axis + (slice(skip, skip + count),)
        return np.ascontiguousarray(values[inside])

    def origin(self, region: Region) -> tuple[Leaf, Region]:
        return self.inputs[0].origin(self._cover(region))


class Split(_Node):
    """Axis `axis` as two: [.., N * H, ..] -> [.., N, H, ..]."""

    def __init__(self, array: Array, axis: int, sizes: tuple[int, int]) -> None:
        if not 0 <= axis < len(array.shape) or math.prod(sizes) != array.shape[axis]:
            raise ValueError(f"split {axis} into {sizes} does not fit shape {list(array.shape)}")
        self._axis, self._inner = axis, max(sizes[1], 1)
        super().__init__((array,), (*array.shape[:axis], *sizes, *array.shape[axis + 1 :]))

    def _grid(self, inner: tuple[int, ...]) -> tuple[int, ...]:
        chunk, columns = inner[self._axis], self._inner
        tile = (chunk // columns, columns) if chunk % columns == 0 else (1, columns)
        if chunk < columns and columns % chunk == 0:
            tile = (1, chunk)
        return (*inner[: self._axis], *tile, *inner[self._axis + 1 :])

    def _cover(self, region: Region) -> Region:
        """The smallest region before the split that holds `region`."""
        rows, columns = region[self._axis : self._axis + 2]
        start, stop = rows.start * self._inner, rows.stop * self._inner
        if rows.stop - rows.start == 1:
            start, stop = start + columns.start, start + columns.stop
        return (*region[: self._axis], slice(start, stop), *region[self._axis + 2 :])

    def read(self, region: Region, readers: Readers) -> np.ndarray:
        values = self.inputs[0].read(self._cover(region), readers)
        rows, columns = region[self._axis : self._axis + 2]
        before, after = values.shape[: self._axis], values.shape[self._axis + 1 :]
        count = rows.stop - rows.start
        values = values.reshape((*before, count, -1, *after))
        if count == 1:
            return values
        inside = (slice(None),) * (self._axis + 1) + (columns,)
        return np.ascontiguousarray(values[inside])

    def origin(self, region: Region) -> tuple[Leaf, Region]:
        return self.inputs[0].origin(self._cover(region))


class Part(_Node):
    """`start` to `stop` along one axis; `drop` removes the axis (one index of a stack)."""

    def __init__(self, array: Array, axis: int, start: int, stop: int, drop: bool = False) -> None:
        if not 0 <= axis < len(array.shape) or not 0 <= start < stop <= array.shape[axis]:
            raise ValueError(f"[{start}:{stop}] on axis {axis} is outside {list(array.shape)}")
        self._axis, self._start, self._stop, self._drop = axis, start, stop, drop
        middle = () if drop else (stop - start,)
        super().__init__((array,), (*array.shape[:axis], *middle, *array.shape[axis + 1 :]))

    def _grid(self, inner: tuple[int, ...]) -> tuple[int, ...]:
        # Tiles keep to the grid below where the cut falls on it.
        chunk = inner[self._axis]
        chunk = chunk if self._start % chunk == 0 else self._stop - self._start
        tile = () if self._drop else (chunk,)
        return (*inner[: self._axis], *tile, *inner[self._axis + 1 :])

    def _back(self, region: Region) -> Region:
        if self._drop:
            part = slice(self._start, self._start + 1)
            return (*region[: self._axis], part, *region[self._axis :])
        part = region[self._axis]
        part = slice(part.start + self._start, part.stop + self._start)
        return (*region[: self._axis], part, *region[self._axis + 1 :])

    def read(self, region: Region, readers: Readers) -> np.ndarray:
        return self.inputs[0].read(self._back(region), readers).reshape(extent(region))

    def origin(self, region: Region) -> tuple[Leaf, Region]:
        return self.inputs[0].origin(self._back(region))


class Joined(_Node):
    """Arrays one after another along an axis; with `new_axis`, along a new one (a stack)."""

    def __init__(self, arrays: tuple[Array, ...], axis: int, new_axis: bool = False) -> None:
        first = arrays[0]
        rank = len(first.shape) + new_axis
        if not 0 <= axis < rank:
            raise ValueError(f"axis {axis} does not fit shape {list(first.shape)}")
        self._axis, self._new = axis, new_axis
        after = axis if new_axis else axis + 1
        for array in arrays[1:]:
            same = array.dtype == first.dtype and len(array.shape) == len(first.shape)
            outer = array.shape[:axis] + array.shape[after:]
            if not same or outer != first.shape[:axis] + first.shape[after:]:
                found = sorted({f"{list(a.shape)} {a.dtype}" for a in arrays})
                raise ValueError(f"cannot be put together: {', '.join(found)}")
        sizes = [1 if new_axis else array.shape[axis] for array in arrays]
        self._starts = [sum(sizes[:index]) for index in range(len(sizes) + 1)]
        super().__init__(arrays, (*first.shape[:axis], self._starts[-1], *first.shape[after:]))

    def _grid(self, inner: tuple[int, ...]) -> tuple[int, ...]:
        if self._new:
            return (*inner[: self._axis], 1, *inner[self._axis :])
        chunk = inner[self._axis]
        even = math.gcd(chunk, *self._starts)  # none straddles two arrays ...
        chunk = even if _WORTH * even >= chunk else chunk  # ... unless that makes crumbs
        return (*inner[: self._axis], chunk, *inner[self._axis + 1 :])

    def _parts(self, region: Region) -> list[tuple[Array, Region]]:
        """Which inputs `region` touches, and where."""
        part = region[self._axis]
        found: list[tuple[Array, Region]] = []
        for array, start, stop in zip(self.inputs, self._starts, self._starts[1:], strict=False):
            low, high = max(part.start, start), min(part.stop, stop)
            if low < high:
                middle = () if self._new else (slice(low - start, high - start),)
                found.append((array, (*region[: self._axis], *middle, *region[self._axis + 1 :])))
        return found

    def read(self, region: Region, readers: Readers) -> np.ndarray:
        values = [array.read(inner, readers) for array, inner in self._parts(region)]
        if self._new:
            values = [np.expand_dims(value, self._axis) for value in values]
        if len(values) == 1:
            return values[0]
        return (
            np.concatenate(values, self._axis) if values else np.empty(extent(region), self.dtype)
        )

    def origin(self, region: Region) -> tuple[Leaf, Region]:
        parts = self._parts(region)
        array, inner = parts[0] if parts else (self.inputs[0], region)
        return array.origin(inner)


class Cast(_Node):
    """Another dtype, as NumPy casts: to nearest even, infinite where it is too large.

    float64 becomes bfloat16 by way of float32.
    """

    def __init__(self, array: Array, dtype: np.dtype) -> None:
        super().__init__((array,), array.shape, dtype)

    def read(self, region: Region, readers: Readers) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):  # the digest counts what is not finite
            return self.inputs[0].read(region, readers).astype(self.dtype, copy=False)


class Scaled(_Node):
    """Product with factors; computed in float64, then cast as `Cast` does.

    `axes` gives the axes of the result along which the factors run ((): one number).
    """

    def __init__(
        self, array: Array, factors: Array, axes: tuple[int, ...], dtype: np.dtype | None = None
    ) -> None:
        if factors.shape != tuple(array.shape[axis] for axis in axes):
            raise ValueError(f"factors {list(factors.shape)} do not fit shape {list(array.shape)}")
        if list(axes) != sorted(set(axes)):
            raise ValueError(f"axes {axes} are not in ascending order")
        self._axes = axes
        super().__init__((array, factors), array.shape, dtype or array.dtype)

    def read(self, region: Region, readers: Readers) -> np.ndarray:
        values = self.inputs[0].read(region, readers)
        part = tuple(region[axis] for axis in self._axes)
        factors = self.inputs[1].read(part, readers).astype(np.float64)
        sizes = enumerate(extent(region))
        factors = factors.reshape([size if axis in self._axes else 1 for axis, size in sizes])
        out = np.empty(values.shape, self.dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # the digest counts what is not finite
            # NumPy casts a few thousand values at a time: no array of float64 is made.
            np.multiply(values, factors, out=out, dtype=np.float64, casting="unsafe")
        return out


class Debias(_Node):
    """`1 - beta ** count`, elementwise, in float64: what a bias-corrected moment was divided by."""

    def __init__(self, count: Array, beta: float) -> None:
        self._beta = beta
        super().__init__((count,), count.shape, np.dtype(np.float64))

    def read(self, region: Region, readers: Readers) -> np.ndarray:
        count = self.inputs[0].read(region, readers).astype(np.float64)
        return 1.0 - self._beta**count


class Agreed(_Node):
    """One number that several counters hold alike; each group of an optimizer counts its own."""

    def __init__(self, counters: tuple[Array, ...]) -> None:
        super().__init__(counters, (), counters[0].dtype)

    def _grid(self, inner: tuple[int, ...]) -> tuple[int, ...]:
        del inner
        return ()

    def read(self, region: Region, readers: Readers) -> np.ndarray:
        del region
        found = [np.asarray(c.read(whole(c.shape), readers)) for c in self.inputs]
        values = sorted({int(value) for counter in found for value in counter.reshape(-1)})
        if len(values) != 1:
            each = (
                f"{node.leaves()[0].spec.path} = {counter.tolist()}"
                for node, counter in zip(self.inputs, found, strict=True)
            )
            raise CheckpointError(
                "the optimizer's counters differ: " + ", ".join(each) + ". They are one in optax; "
                "convert with --raw-optimizer or --no-optimizer."
            )
        return np.asarray(values[0], self.dtype)

    def origin(self, region: Region) -> tuple[Leaf, Region]:
        first = self.inputs[0]
        return first.origin(whole(first.shape))


def _cut(tile: tuple[int, ...], dtype: np.dtype, limit: int) -> tuple[int, ...]:
    """`tile`, divided evenly along its leading axes until it holds at most about `limit` bytes."""
    shape = list(tile)
    for axis in range(len(shape)):
        size = math.prod(shape) * dtype.itemsize
        if size <= limit:
            break
        wanted = max(limit // max(size // max(shape[axis], 1), 1), 1)
        shape[axis] = even_part(shape[axis], wanted)
    return tuple(shape)


def even_part(size: int, wanted: int) -> int:
    """The largest divisor of `size` at most `wanted`, unless it is far smaller."""
    for part in range(wanted, max(wanted // 2, 1) - 1, -1):
        if size % part == 0:
            return part
    return wanted


def tile_regions(
    shape: tuple[int, ...], tile: tuple[int, ...]
) -> list[tuple[tuple[int, ...], Region]]:
    """(index, region) of each tile, in C order."""
    counts = [-(-size // part) for size, part in zip(shape, tile, strict=True)]
    return [
        (
            index,
            tuple(
                slice(i * part, min((i + 1) * part, size))
                for i, part, size in zip(index, tile, shape, strict=True)
            ),
        )
        for index in np.ndindex(*counts)
    ]
