"""Lazy arrays with other axes: transposed, merged, split, sliced, concatenated."""

import math
from abc import abstractmethod

import numpy as np

from converters.arrays.lazy import Array, Node, Readers
from converters.arrays.leaf import Leaf, Region, extent

CRUMB = 1 << 16  # bytes below which a tile is too small for a file of its own
WORTH = 8  # a tile may be this many times smaller if it then lies in one source


class Arranged(Node):
    """Base class for the same values in other places: a region is a view of its sources."""

    @abstractmethod
    def view(self, region: Region, readers: Readers) -> np.ndarray: ...

    def read(self, region: Region, readers: Readers) -> np.ndarray:
        return np.asarray(self.view(region, readers), order="C")


class Transposed(Arranged):
    """The axes in another order: `result.shape[i] = array.shape[axes[i]]`."""

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

    def view(self, region: Region, readers: Readers) -> np.ndarray:
        return self.inputs[0].view(self._back(region), readers).transpose(self._axes)


class Merged(Arranged):
    """Axes `axis` and `axis + 1` merged into one: [.., N, H, ..] -> [.., N * H, ..]."""

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
        # Tiles are a part of each row, unless that makes them too small; else they are whole rows.
        tile = columns if even and (rows == 1 or piece >= CRUMB) else rows * self._inner
        return (*inner[: self._axis], tile, *inner[self._axis + 2 :])

    def _back(self, region: Region) -> Region:
        part, inner = region[self._axis], self._inner
        first, last = part.start // inner, -(-part.stop // inner)
        columns = slice(0, inner)
        if last - first == 1:
            columns = slice(part.start - first * inner, part.stop - first * inner)
        return (*region[: self._axis], slice(first, last), columns, *region[self._axis + 1 :])

    def view(self, region: Region, readers: Readers) -> np.ndarray:
        cover = self._back(region)
        values = self.inputs[0].view(cover, readers)
        rows, columns = cover[self._axis : self._axis + 2]
        before, after = values.shape[: self._axis], values.shape[self._axis + 2 :]
        values = values.reshape((*before, -1, *after))
        skip = region[self._axis].start - rows.start * self._inner - columns.start
        count = region[self._axis].stop - region[self._axis].start
        inside = (slice(None),) * self._axis + (slice(skip, skip + count),)
        return values[inside]

    def straight(self) -> tuple[Leaf, int] | None:
        return self.inputs[0].straight()


class Split(Arranged):
    """Axis `axis` split into two: [.., N * H, ..] -> [.., N, H, ..]."""

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

    def _back(self, region: Region) -> Region:
        rows, columns = region[self._axis : self._axis + 2]
        start, stop = rows.start * self._inner, rows.stop * self._inner
        if rows.stop - rows.start == 1:
            start, stop = start + columns.start, start + columns.stop
        return (*region[: self._axis], slice(start, stop), *region[self._axis + 2 :])

    def view(self, region: Region, readers: Readers) -> np.ndarray:
        values = self.inputs[0].view(self._back(region), readers)
        rows, columns = region[self._axis : self._axis + 2]
        before, after = values.shape[: self._axis], values.shape[self._axis + 1 :]
        count = rows.stop - rows.start
        values = values.reshape((*before, count, -1, *after))
        if count == 1:
            return values
        return values[(slice(None),) * (self._axis + 1) + (columns,)]

    def straight(self) -> tuple[Leaf, int] | None:
        return self.inputs[0].straight()


class Part(Arranged):
    """The slice `start:stop` along one axis; `drop` removes the axis (one index of a stack)."""

    def __init__(self, array: Array, axis: int, start: int, stop: int, drop: bool = False) -> None:
        if not 0 <= axis < len(array.shape) or not 0 <= start < stop <= array.shape[axis]:
            raise ValueError(f"[{start}:{stop}] on axis {axis} is outside {list(array.shape)}")
        self._axis, self._start, self._stop, self._drop = axis, start, stop, drop
        middle = () if drop else (stop - start,)
        super().__init__((array,), (*array.shape[:axis], *middle, *array.shape[axis + 1 :]))

    def _grid(self, inner: tuple[int, ...]) -> tuple[int, ...]:
        # Keep the grid of the input if the slice starts on it.
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

    def view(self, region: Region, readers: Readers) -> np.ndarray:
        return self.inputs[0].view(self._back(region), readers).reshape(extent(region))

    def straight(self) -> tuple[Leaf, int] | None:
        found, shape = self.inputs[0].straight(), self.inputs[0].shape
        if found is None or math.prod(shape[: self._axis]) != 1:
            return None
        leaf, before = found
        return leaf, before + self._start * math.prod(shape[self._axis + 1 :])


class Joined(Arranged):
    """Arrays concatenated along an axis; with `new_axis`, stacked along a new one."""

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
        even = math.gcd(chunk, *self._starts)  # so that no tile spans two arrays ...
        chunk = even if WORTH * even >= chunk else chunk  # ... unless the tiles would be too small
        return (*inner[: self._axis], chunk, *inner[self._axis + 1 :])

    def parts(self, region: Region) -> list[tuple[tuple[slice | int, ...], Array, Region]]:
        """The inputs that `region` touches: (place in the result, input, region of the input)."""
        part, before = region[self._axis], region[: self._axis]
        found: list[tuple[tuple[slice | int, ...], Array, Region]] = []
        for array, start, stop in zip(self.inputs, self._starts, self._starts[1:], strict=False):
            low, high = max(part.start, start), min(part.stop, stop)
            if low < high:
                place = (
                    low - part.start if self._new else slice(low - part.start, high - part.start)
                )
                middle = () if self._new else (slice(low - start, high - start),)
                inner = (*before, *middle, *region[self._axis + 1 :])
                found.append(((*(slice(None) for _ in before), place), array, inner))
        return found

    def view(self, region: Region, readers: Readers) -> np.ndarray:
        values = [array.view(inner, readers) for _, array, inner in self.parts(region)]
        if self._new:
            values = [np.expand_dims(value, self._axis) for value in values]
        if len(values) == 1:
            return values[0]
        return (
            np.concatenate(values, self._axis) if values else np.empty(extent(region), self.dtype)
        )

    def origin(self, region: Region) -> tuple[Leaf, Region]:
        parts = self.parts(region)
        _, array, inner = parts[0] if parts else ((), self.inputs[0], region)
        return array.origin(inner)
