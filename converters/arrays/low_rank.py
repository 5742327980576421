"""A weight with its low-rank addition merged into it (LoRA, DoRA).

Letters: D rows, n columns (all other axes of the weight merged into one), U rank.
"""

import numpy as np

from converters.arrays.lazy import Array, Node, Readers
from converters.arrays.leaf import Region, whole


class LowRank(Node):
    """`w + A B^T` with A [D, U] and B [n, U], reshaped to `w`; computed in float64, then cast.

    With `magnitude`, which broadcasts to `w`, the sum is divided by its L2 norm along axis 0 and
    multiplied by `magnitude` (DoRA, arXiv 2402.09353, as in the adapters of `timesfm`).
    """

    def __init__(
        self, weight: Array, first: Array, second: Array, magnitude: Array | None = None
    ) -> None:
        rows, columns = weight.shape[0], int(np.prod(weight.shape[1:]))
        parts = first.shape, second.shape
        ranks = {shape[-1] for shape in parts if shape}
        wanted = f"[{rows}, rank] and [{columns}, rank]"
        sized = len(parts[0]) == 2 == len(parts[1]) and len(ranks) == 1
        if not sized or (parts[0][0], parts[1][0]) != (rows, columns):
            raise ValueError(f"additions {list(parts[0])} and {list(parts[1])}, expected {wanted}")
        if magnitude is not None:
            sizes = magnitude.shape
            fits = len(sizes) <= len(weight.shape) and all(
                size in (1, own) for size, own in zip(sizes[::-1], weight.shape[::-1], strict=False)
            )
            if not fits:
                raise ValueError(f"magnitudes {list(sizes)} do not fit {list(weight.shape)}")
        self._scaled = magnitude is not None
        others = (first, second) if magnitude is None else (first, second, magnitude)
        super().__init__((weight, *others), weight.shape)

    def read(self, region: Region, readers: Readers) -> np.ndarray:
        weight, first, second, *magnitude = self.inputs
        # The norm is taken over all rows, so all of them are needed even for a part.
        rows = slice(0, self.shape[0]) if self._scaled else region[0]
        values = weight.read((rows, *region[1:]), readers).astype(np.float64)
        factor = first.read((rows, slice(0, first.shape[1])), readers).astype(np.float64)
        other = second.read(whole(second.shape), readers).astype(np.float64)
        other = other.reshape(*self.shape[1:], -1)[region[1:]]
        values += np.tensordot(factor, other, (1, other.ndim - 1))
        if magnitude:
            with np.errstate(divide="ignore", invalid="ignore"):
                values /= np.linalg.norm(values, axis=0, keepdims=True)
            scale = magnitude[0].read(whole(magnitude[0].shape), readers).astype(np.float64)
            scale = np.broadcast_to(scale, (1, *self.shape[1:]) if self._row(scale) else self.shape)
            along = slice(0, 1) if self._row(scale) else rows
            values *= scale[(along, *region[1:])]
            values = values[region[0]]
        with np.errstate(over="ignore", invalid="ignore"):
            return np.ascontiguousarray(values.astype(self.dtype))

    def _row(self, scale: np.ndarray) -> bool:
        """Whether the magnitudes are the same for all rows."""
        return scale.ndim < len(self.shape) or scale.shape[0] == 1
