"""Lazy arrays with other values: cast, scaled, raised; and the counters used for scaling."""

import numpy as np

from converters.arrays.lazy import Array, Node, Readers
from converters.arrays.leaf import Region, extent, whole
from converters.errors import CheckpointError


class Cast(Node):
    """A cast to another dtype with NumPy's rules: rounds to nearest even, overflows to infinity.

    float64 becomes bfloat16 by way of float32.
    """

    def __init__(self, array: Array, dtype: np.dtype) -> None:
        super().__init__((array,), array.shape, dtype)

    def read(self, region: Region, readers: Readers) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):  # non-finite values are counted later
            return self.inputs[0].read(region, readers).astype(self.dtype, copy=False)


class Scaled(Node):
    """Values times factors, computed in float64 and then cast as by `Cast`.

    `axes` are the axes of the array along which factors and offset run; () for a single number.
    The offset is subtracted in the result's dtype, as Praxis subtracts zero points.
    """

    def __init__(
        self,
        array: Array,
        factors: Array,
        axes: tuple[int, ...],
        dtype: np.dtype | None = None,
        offset: Array | None = None,
    ) -> None:
        along = (factors,) if offset is None else (factors, offset)
        for other in along:
            if other.shape != tuple(array.shape[axis] for axis in axes):
                raise ValueError(
                    f"factors {list(other.shape)} do not fit shape {list(array.shape)}"
                )
        if list(axes) != sorted(set(axes)):
            raise ValueError(f"axes {axes} are not in ascending order")
        self._axes = axes
        super().__init__((array, *along), array.shape, dtype or array.dtype)

    def read(self, region: Region, readers: Readers) -> np.ndarray:
        values = self.inputs[0].read(region, readers)
        part = tuple(region[axis] for axis in self._axes)
        shape = [n if axis in self._axes else 1 for axis, n in enumerate(extent(region))]
        factors, *offset = (other.read(part, readers).reshape(shape) for other in self.inputs[1:])
        factors = factors.astype(np.float64)
        out = np.empty(values.shape, self.dtype)
        with np.errstate(over="ignore", invalid="ignore"):  # non-finite values are counted later
            # NumPy casts a few thousand values at a time: no float64 copy of the array is made.
            np.multiply(values, factors, out=out, dtype=np.float64, casting="unsafe")
            for less in offset:
                np.subtract(out, less.astype(self.dtype), out=out)
        return out


class Raised(Node):
    """Values plus a number, added in float32; for norms, whose scale may be stored minus 1."""

    def __init__(self, array: Array, number: float) -> None:
        self._number = np.float32(number)
        super().__init__((array,), array.shape, np.dtype(np.float32))

    def read(self, region: Region, readers: Readers) -> np.ndarray:
        return self.inputs[0].read(region, readers).astype(np.float32) + self._number


class Debias(Node):
    """`1 - beta ** count` in float64, by which a bias-corrected moment was divided."""

    def __init__(self, count: Array, beta: float) -> None:
        self._beta = beta
        super().__init__((count,), count.shape, np.dtype(np.float64))

    def read(self, region: Region, readers: Readers) -> np.ndarray:
        count = self.inputs[0].read(region, readers).astype(np.float64)
        return 1.0 - self._beta**count


class Agreed(Node):
    """The one number that several counters hold; each group of an optimizer has its own counter."""

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

    def _back(self, region: Region) -> Region:
        del region
        return whole(self.inputs[0].shape)
