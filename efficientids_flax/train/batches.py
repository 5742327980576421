"""Helpers for batches; and batches from arrays in memory, shuffled by a seed and resumable."""

from collections.abc import Iterable, Iterator, Mapping
from numbers import Integral
from typing import Any

import jax
import numpy as np

from efficientids_flax.array_checks import as_numpy
from efficientids_flax.config.record import listed
from efficientids_flax.data.ahead import refuse_seed
from efficientids_flax.digests import digest, digest_of
from efficientids_flax.tree import leaves_by_path, path_of

NO_NUMBERS = "OUSMm"  # kinds of NumPy: objects, texts, dates


def rows_of(batch: Any) -> int | None:
    """Number of rows of a batch, the largest first axis of its arrays; None if all are scalars.

    Args:
        batch: a dict of arrays; tracers work too.
    """
    shapes = [np.shape(leaf) for leaf in jax.tree.leaves(batch)]
    return max((shape[0] for shape in shapes if shape), default=None)


def is_placed(batch: Any) -> bool:
    """Whether the batch is already a global array, placed on the devices of all processes."""
    leaves = jax.tree.leaves(batch)
    return any(isinstance(leaf, jax.Array) and not leaf.is_fully_addressable for leaf in leaves)


def check_source(source: Any, name: str) -> None:
    """Check that batches can be read from this: an iterable, or a function that returns one.

    Args:
        source: as the caller gave it.
        name: name of the data, for messages.

    Raises:
        TypeError: it is something else, such as a single batch or a path.
    """
    if isinstance(source, Mapping):
        raise TypeError(
            f"{name}: found one batch, expected several: give a list, [batch];"
            " `ShuffledBatches(arrays, batch_size)` makes batches of the rows of arrays; of several"
            " splits, give one after the other"
        )
    if callable(source):
        return
    if not isinstance(source, Iterable) or isinstance(source, str | bytes | np.ndarray | jax.Array):
        single = hasattr(type(source), "__getitem__") and not isinstance(source, Iterable)
        raise TypeError(
            f"{name}: found a {type(source).__name__}, expected batches to iterate over, or a"
            " function that returns them"
            + ("; if its elements are batches: [data[i] for i in range(len(data))]" * single)
        )


def has_position(iterator: Any) -> bool:
    """Whether an iterator gives its position and can return to it: `get_state`, `set_state`."""
    return all(callable(getattr(iterator, name, None)) for name in ("get_state", "set_state"))


def checked_batch(batch: Any, name: str) -> Mapping[str, Any]:
    """The batch with lists, and arrays of other libraries such as PyTorch's, made NumPy's arrays.

    Args:
        batch: a batch as it was read.
        name: name of the data, for messages.

    Raises:
        ValueError: the batch is not a dict; a field has texts or the like, or can be no array, see
            `as_numpy`.
    """
    if not isinstance(batch, Mapping):
        raise ValueError(
            f"{name}: expected a dict of arrays, found a {type(batch).__name__}; name the fields:"
            " {'inputs': ..., 'targets': ...}"
        )
    for value in batch.values():
        numbers = _is_numpy(value) and value.dtype.kind not in NO_NUMBERS
        if not numbers and not isinstance(value, jax.Array):
            return _with_arrays(batch, name)
    return batch


def _with_arrays(batch: Mapping[str, Any], name: str) -> dict[str, Any]:
    """See `checked_batch`."""

    def made_of(keys: Any, leaf: Any) -> Any:
        own = _is_numpy(leaf) or isinstance(leaf, np.generic | jax.Array)
        foreign = not own and hasattr(leaf, "__array__")
        named = f"{name}: {path_of(keys)}"
        return as_numpy(leaf, named) if foreign or _is_of_values(leaf) else leaf

    made = jax.tree_util.tree_map_with_path(made_of, dict(batch), is_leaf=_is_of_values)
    wrong = [
        f"{path}: found {leaf.dtype}, expected numbers; leave the field out"
        for path, leaf in leaves_by_path(made).items()
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind in NO_NUMBERS
    ]
    if wrong:
        raise ValueError(listed(name, wrong))
    return made


def _is_numpy(leaf: Any) -> bool:
    """Whether it is an array that JAX takes: no subclass, and in the machine's order of bytes."""
    return type(leaf) is np.ndarray and leaf.dtype.isnative


def _is_of_values(leaf: Any) -> bool:
    """Whether it is a text, or lists of Python's numbers or texts."""
    if not isinstance(leaf, list | tuple):
        return isinstance(leaf, str)
    leaves = jax.tree.leaves(leaf)
    return bool(leaves) and all(isinstance(one, bool | int | float | str) for one in leaves)


def digest_of_batch(batch: Any) -> str | None:
    """Digest of a batch's names and values; None if other processes hold some of them."""
    leaves = leaves_by_path(batch)
    if not all(getattr(leaf, "is_fully_addressable", True) for leaf in leaves.values()):
        return None
    return digest_of([[path, digest(leaf)] for path, leaf in leaves.items()])


class ShuffledBatches:
    """An iterable of dict batches from arrays; each pass has `epochs` epochs, or never ends.

    The order of epoch n depends only on the seed and n, so that a resumed run reads the same
    batches as an uninterrupted one.
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
        """Make batches from these arrays.

        Args:
            arrays: name -> [N, ...], one row per example.
            batch_size: rows of a batch, in this process.
            seed: seed of the order.
            shuffle: whether rows are reordered.
            drop_remainder: leave out an epoch's last rows if they do not fill a batch.
            epochs: how often the rows are read; None: without end.
            process: (index, count): which share of each epoch's rows this process reads.

        Raises:
            ValueError: arrays of different length, or no arrays, see `as_numpy`; fewer rows than a
                batch needs; a seed that is no whole number.
        """
        if not isinstance(seed, Integral) or isinstance(seed, bool) or seed < 0:
            raise ValueError(f"seed: expected a whole number of at least 0, found {seed!r}")
        self.arrays = {name: as_numpy(value, f"arrays: {name}") for name, value in arrays.items()}
        lengths = {name: len(value) for name, value in self.arrays.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"arrays: expected as many rows in each, found {lengths}")
        self.batch_size, self.seed, self.shuffle = batch_size, int(seed), shuffle
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
        """Batches with every row of this process exactly once, for evaluation.

        In the order of the first epoch, whatever `epochs` and `drop_remainder` are. If the rows do
        not divide among the processes, the first processes get one more.
        """
        index, count = self.process
        own = self._permutation(0)[index::count]
        for start in range(0, len(own), self.batch_size):
            chosen = own[start : start + self.batch_size]
            yield {name: value[chosen] for name, value in self.arrays.items()}

    def fingerprint(self) -> dict[str, Any]:
        """Facts that identify the rows and their order, see `state.fingerprint`."""
        found = {name: digest(value) for name, value in sorted(self.arrays.items())}
        order: dict[str, Any] = {"shuffle": self.shuffle, "drop_remainder": self.drop_remainder}
        if self.shuffle:
            order["seed"] = self.seed
        return {"rows": {"number": self._all_rows, **found, **order}}

    def order(self, epoch: int) -> np.ndarray:
        """Row numbers of this process in the order of an epoch, int64 [rows]."""
        index, count = self.process
        return self._permutation(epoch)[: self.rows * count][index::count]

    def _permutation(self, epoch: int) -> np.ndarray:
        """Row numbers of all processes in the order of an epoch, int64."""
        if not self.shuffle:
            return np.arange(self._all_rows)
        return np.random.default_rng((self.seed, epoch)).permutation(self._all_rows)


class BatchIterator(Iterator[dict[str, np.ndarray]]):
    """Iterator over `ShuffledBatches`; its state is the epoch and the number of rows read of it.

    The stored state counts rows over all processes, so that a run can resume with another batch
    size, or another number of processes.

    Attributes:
        batches: what it reads.
        epoch: the current epoch.
        row: rows of this epoch that this process has read.
    """

    def __init__(self, batches: ShuffledBatches) -> None:
        if not batches.rows:
            raise ValueError(f"arrays: fewer rows than processes, {batches.process[1]}")
        self.batches, self.epoch, self.row = batches, 0, 0
        self._order: tuple[int, np.ndarray] | None = None

    @property
    def read(self) -> int:
        """Number of batches of this epoch that were read."""
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
        """The position, as JSON values."""
        return {
            "epoch": self.epoch,
            "read": self.read,
            "rows": self.row * self.batches.process[1],
            "seed": self.batches.seed,
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go to a stored position; with another batch size, continue after the same rows.

        Raises:
            OtherSeed: the state has another seed, so another order.
            ValueError: the rows that were read do not divide among the processes.
        """
        if self.batches.shuffle:
            refuse_seed(state, self.batches.seed)
        count = self.batches.process[1]
        # Up to release 2 the state counted only batches.
        rows = state.get("rows", state["read"] * self.batches.batch_size * count)
        if rows % count:
            raise ValueError(
                f"batch_size: {rows} rows of the epoch were read, which do not divide among"
                f" {count} processes"
            )
        self.epoch, self.row = state["epoch"], rows // count

    def fingerprint(self) -> dict[str, Any]:
        """Facts that identify the rows and their order, see `state.fingerprint`."""
        return self.batches.fingerprint()
