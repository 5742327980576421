"""Prefetching of batches with Grain, and the resumable position of the reader.

Grain returns several batches at a time, since each request takes 0.1 ms.
"""

import sys
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from efficientids_flax.data.rows.arrays import Arrays, Rows

ENDLESS = sys.maxsize // 4  # batches; Grain wants a number
TOGETHER = 4  # batches in one request
MISSING = "batches of prepared data: grain is missing: pip install 'efficientids-flax[data]'"


class Ordered(Protocol):
    """Batches in a known order, which is `Batches`; see there."""

    rows: Rows
    batch_size: int
    seed: int
    shuffle: bool
    epochs: int | None
    workers: int
    ahead: int

    def __len__(self) -> int: ...
    def left(self, row: int) -> int: ...
    def batch(self, epoch: int, row: int) -> Arrays: ...
    def first(self) -> Arrays: ...
    def fingerprint(self) -> dict[str, Any]: ...


class GrainIterator(Iterator[Arrays]):
    """Iterator over `Batches`; prefetched batches do not count as read.

    Attributes:
        batches: what it reads.
        epoch: the current epoch.
        row: rows of this epoch that were read, over all processes.
    """

    def __init__(self, batches: Ordered) -> None:
        """Start at the beginning; nothing is read yet."""
        self.batches, self.epoch, self.row = batches, 0, 0
        self._reader: list[Any] = []  # at most one
        self._ready: list[Arrays] = []  # received batches, the next one last
        self._end = weakref.finalize(self, _close, self._reader)  # also at exit of the program

    def __next__(self) -> Arrays:
        """The next batch.

        Raises:
            ImportError: Grain is missing.
        """
        batches = self.batches
        if not batches.left(self.row):
            self.epoch, self.row = self.epoch + 1, 0
        if batches.epochs is not None and self.epoch >= batches.epochs:
            self.close()
            raise StopIteration
        if not self._reader:
            self._reader.append(_reader(batches, self.epoch, self.row))
        if not self._ready:
            self._ready = list(reversed(next(self._reader[0])))
        found = self._ready.pop()
        self.row = min(self.row + batches.batch_size, batches.rows.num_rows)
        return found

    def close(self) -> None:
        """Stop prefetching."""
        _close(self._reader)
        self._ready = []

    def get_state(self) -> dict[str, Any]:
        """The position, as JSON values."""
        return {"epoch": self.epoch, "rows": self.row, "seed": self.batches.seed}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go to a stored position; with another batch size, continue after the same rows.

        Raises:
            OtherSeed: the state has another seed, so another order.
        """
        if self.batches.shuffle:
            refuse_seed(state, self.batches.seed)
        self.close()
        self.epoch, self.row = state["epoch"], min(state["rows"], self.batches.rows.num_rows)

    def fingerprint(self) -> dict[str, Any]:
        """See `Batches.fingerprint`."""
        return self.batches.fingerprint()


class _Maker:
    """Makes lists of consecutive batches from a position on; runs in Grain's threads or workers."""

    def __init__(self, batches: Ordered, epoch: int, row: int, together: int) -> None:
        self.batches, self.epoch, self.row, self.together = batches, epoch, row, together

    def times(self) -> int:
        """Number of lists until the end."""
        batches = self.batches
        if batches.epochs is None:
            return ENDLESS
        left = batches.left(self.row) + (batches.epochs - self.epoch - 1) * len(batches)
        return -(-left // self.together)

    def __call__(self, number: int) -> list[Arrays]:
        first = number * self.together
        return [
            self.batches.batch(epoch, row)
            for epoch, row in map(self._place, range(first, first + self.together))
            if self.batches.epochs is None or epoch < self.batches.epochs
        ]

    def _place(self, number: int) -> tuple[int, int]:
        """(epoch, first row) of a batch."""
        left, size = self.batches.left(self.row), self.batches.batch_size
        if number < left:
            return self.epoch, self.row + number * size
        epochs, number = divmod(number - left, len(self.batches))
        return self.epoch + 1 + epochs, number * size


def _reader(batches: Ordered, epoch: int, row: int) -> Any:
    """Grain's iterator over lists of batches, from a position on."""
    try:
        import grain
    except ImportError as error:
        raise ImportError(MISSING) from error
    together = min(TOGETHER, max(batches.ahead, 1))
    maker, buffer = _Maker(batches, epoch, row, together), -(-batches.ahead // together)
    threads = 1 if buffer and not batches.workers else 0
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=buffer if threads else 0)
    made: Any = grain.MapDataset.range(maker.times()).map(maker).to_iter_dataset(options)
    if batches.workers:
        from absl import flags

        if not flags.FLAGS.is_parsed():  # Grain's workers read absl flags
            flags.FLAGS.mark_as_parsed()
        processes = grain.MultiprocessingOptions(
            batches.workers, per_worker_buffer_size=max(buffer, 1)
        )
        made = made.mp_prefetch(processes)
    return iter(made)


def _close(readers: list[Any]) -> None:
    while readers:
        getattr(readers.pop(), "close", lambda: None)()


class OtherSeed(ValueError):
    """The position is one in another order of the rows."""


def refuse_seed(state: Mapping[str, Any], seed: int) -> None:
    """Raise `OtherSeed` if a reader's state has another seed than this run."""
    if state["seed"] != seed:
        raise OtherSeed(
            f"seed of the data: the checkpoint has {state['seed']}, this run {seed}, so the order"
            " of the batches would change"
        )
