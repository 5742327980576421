"""Batches: how many rows one has; those of arrays in memory, shuffled by a seed.

Their position can be stored.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from efficientids_flax.data.ahead import refuse_seed
from efficientids_flax.digests import digest, digest_of
from efficientids_flax.tree import leaves_by_path


def rows_of(batch: Any) -> int | None:
    """Rows of a batch as it lies here, the most of any of its arrays; None: none of them has any.

    Args:
        batch: a dict of arrays, those of `jax` as they are in jit too.
    """
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(batch)]
    return max((shape[0] for shape in shapes if shape), default=None)


def is_placed(batch: Any) -> bool:
    """Whether the batch is that of all processes already, on their devices."""
    leaves = jax.tree.leaves(batch)
    return any(isinstance(leaf, jax.Array) and not leaf.is_fully_addressable for leaf in leaves)


def checked_batch(batch: Any, name: str) -> Mapping[str, Any]:
    """A batch as JAX takes it: arrays of other libraries, such as PyTorch's, are NumPy's.

    Args:
        batch: that was read.
        name: of the data, for messages.

    Raises:
        ValueError: no dict of arrays.
    """
    if not isinstance(batch, Mapping):
        raise ValueError(
            f"{name}: expected a dict of arrays, found a {type(batch).__name__}; name the fields:"
            " {'inputs': ..., 'targets': ...}"
        )
    for value in batch.values():
        if type(value) is not np.ndarray and not isinstance(value, jax.Array):
            return jax.tree.map(_as_array, dict(batch))
    return batch


def _as_array(leaf: Any) -> Any:
    """Another library's array as NumPy's, without a copy where it lies on the host."""
    own = isinstance(leaf, np.ndarray | np.generic | jax.Array)
    return np.asarray(leaf) if not own and hasattr(leaf, "__array__") else leaf


def digest_of_batch(batch: Any) -> str | None:
    """Of its names and values; None where they cannot be read here."""
    leaves = leaves_by_path(batch)
    if not all(getattr(leaf, "is_fully_addressable", True) for leaf in leaves.values()):
        return None
    return digest_of([[path, digest(leaf)] for path, leaf in leaves.items()])


class ShuffledBatches:
    """An iterable of dict batches; each pass is one epoch, or goes on for ever.

    The order of epoch n depends on the seed and n alone, so that a run that goes on reads what it
    would have read.
    """

    def __init__(
        self,
        arrays: Mapping[str, np.ndarray],
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        drop_remainder: bool = True,
        epochs: int | None = None,
        process: tuple[int, int] = (0, 1),
    ) -> None:
        """Batches of these arrays.

        Args:
            arrays: name -> [N, ...], one row an example.
            batch_size: rows of a batch of this process.
            seed: of the order.
            shuffle: whether rows are reordered.
            drop_remainder: leave out an epoch's last rows if they do not fill a batch.
            epochs: how often the rows are read; None: without end.
            process: (index, count): which share of each epoch's rows this process reads.

        Raises:
            ValueError: arrays of different length; fewer rows than a batch needs.
        """
        self.arrays = {name: np.asarray(value) for name, value in arrays.items()}
        lengths = {name: len(value) for name, value in self.arrays.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"arrays: expected as many rows in each, found {lengths}")
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        self.drop_remainder, self.epochs, self.process = drop_remainder, epochs, process
        self._all_rows = next(iter(lengths.values()))
        if not self._all_rows:
            raise ValueError("arrays: have no rows; there is no batch to make")
        self.rows = self._all_rows // process[1]
        if batch_size < 1 or (drop_remainder and len(self) == 0):
            raise ValueError(
                f"batch_size: expected in [1, {self.rows}], the rows there are, found {batch_size}"
            )

    def __len__(self) -> int:
        """Batches of an epoch."""
        return (self.rows if self.drop_remainder else self.rows + self.batch_size - 1) // (
            self.batch_size
        )

    def __iter__(self) -> "BatchIterator":
        return BatchIterator(self)

    def once(self) -> Iterator[dict[str, np.ndarray]]:
        """Every row of this process once, in the order of the first epoch, to the last one.

        Whatever `epochs` and `drop_remainder` are: what an evaluation reads. The rows that do not
        divide among the processes are of the first ones.
        """
        index, count = self.process
        own = self._permutation(0)[index::count]
        for start in range(0, len(own), self.batch_size):
            chosen = own[start : start + self.batch_size]
            yield {name: value[chosen] for name, value in self.arrays.items()}

    def fingerprint(self) -> dict[str, Any]:
        """What the rows and their order are, see `state.fingerprint`."""
        found = {name: digest(value) for name, value in sorted(self.arrays.items())}
        order = {"shuffle": self.shuffle, "drop_remainder": self.drop_remainder}
        return {"rows": {"number": self._all_rows, **found, **order}}

    def order(self, epoch: int) -> np.ndarray:
        """Rows of this process in an epoch, int64 [rows]."""
        index, count = self.process
        return self._permutation(epoch)[: self.rows * count][index::count]

    def _permutation(self, epoch: int) -> np.ndarray:
        """All rows of all processes in the order of an epoch, int64."""
        if not self.shuffle:
            return np.arange(self._all_rows)
        return np.random.default_rng((self.seed, epoch)).permutation(self._all_rows)


class BatchIterator(Iterator[dict[str, np.ndarray]]):
    """Reads `ShuffledBatches`; its state is an epoch and the rows of it that were read.

    Rows are counted over all processes, so that a run goes on after them with batches of another
    size, or with another number of processes.

    Attributes:
        batches: that it reads.
        epoch: that it is in.
        row: rows of this process that were read of it.
    """

    def __init__(self, batches: ShuffledBatches) -> None:
        if not batches.rows:
            raise ValueError(f"arrays: fewer rows than processes, {batches.process[1]}")
        self.batches, self.epoch, self.row = batches, 0, 0
        self._order: tuple[int, np.ndarray] | None = None

    @property
    def read(self) -> int:
        """Batches of this epoch that were read."""
        return -(-self.row // self.batches.batch_size)

    def __next__(self) -> dict[str, np.ndarray]:
        batches = self.batches
        needed = batches.batch_size if batches.drop_remainder else 1
        epoch, row = self.epoch, self.row
        if row + needed > batches.rows:
            epoch, row = epoch + 1, 0
        if batches.epochs is not None and epoch >= batches.epochs:
            self.epoch, self.row = epoch, row
            raise StopIteration
        if self._order is None or self._order[0] != epoch:
            self._order = epoch, batches.order(epoch)
        rows = self._order[1][row : row + batches.batch_size]
        found = {name: value[rows] for name, value in batches.arrays.items()}
        self.epoch, self.row = epoch, row + len(rows)
        return found

    def get_state(self) -> dict[str, Any]:
        """Where it is, as JSON values."""
        return {
            "epoch": self.epoch,
            "read": self.read,
            "rows": self.row * self.batches.process[1],
            "seed": self.batches.seed,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go there; after the same rows if batches have another size than they had.

        Raises:
            ValueError: the state is of another seed, whose order is another; the rows that were
                read do not divide among the processes.
        """
        refuse_seed(state, self.batches.seed)
        count = self.batches.process[1]
        # Up to release 2 the state had batches alone.
        rows = state.get("rows", state["read"] * self.batches.batch_size * count)
        if rows % count:
            raise ValueError(
                f"batch_size: {rows} rows of the epoch were read, which do not divide among"
                f" {count} processes"
            )
        self.epoch, self.row = state["epoch"], rows // count

    def fingerprint(self) -> dict[str, Any]:
        """What the rows and their order are, see `state.fingerprint`."""
        return self.batches.fingerprint()
