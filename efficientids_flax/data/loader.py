"""Batches in an order determined by the seed, prefetched by Grain and shared among processes.

    batches = Batches(rows, batch_size=256, seed=0)
    for batch in batches: ...

The rows of batch number n depend only on the seed and n, not on the number of processes or workers.
An iterator's state is the epoch and the number of its rows that were read, so a run can resume with
another number of processes or workers, or another batch size.

The order is a NumPy permutation for each epoch. Grain can shuffle too, but row by row, which took 6
ms for a batch of 256.
"""

import threading
from collections.abc import Mapping
from copy import copy
from typing import Any

import numpy as np

from efficientids_flax.data.ahead import GrainIterator
from efficientids_flax.data.rows.arrays import Arrays, Rows, as_rows
from efficientids_flax.digests import digest

KEPT = 2  # permutations: at the end of an epoch, threads already read the next one
SAMPLE = 64  # rows of a sample order, to notice a NumPy that permutes differently


class Batches:
    """An iterable of dict batches, each pass from the start.

    Attributes:
        rows: the rows.
        batch_size: rows of a batch, over all processes together.
        fills: whether an incomplete last batch is padded.
    """

    def __init__(
        self,
        rows: Rows | Mapping[str, np.ndarray],
        batch_size: int,
        *,
        seed: int = 0,
        shuffle: bool = True,
        drop_remainder: bool = True,
        epochs: int | None = None,
        process: tuple[int, int] = (0, 1),
        workers: int = 0,
        ahead: int = 16,
    ) -> None:
        """Reads nothing yet.

        Args:
            rows: rows, or arrays with the same number of rows.
            batch_size: rows of a batch, over all processes; each process gets an equal share.
            seed: seed of the order.
            shuffle: permute all rows in each epoch.
            drop_remainder: drop an epoch's last rows if they do not fill a batch (with shuffling,
                other rows in each epoch). Otherwise the last batch is padded with rows whose
                `weights` are 0; without a field `weights` it is smaller.
            epochs: how often the rows are read; None: without end.
            process: (index, count): which share of each batch is this process's.
            workers: number of worker processes that make batches; 0: a thread of this process.
                Workers are spawned, so a script needs `if __name__ == "__main__":`.
            ahead: about how many batches each worker prefetches; 0: none.

        Raises:
            ValueError: there are fewer rows than a batch has, or sizes do not divide.
        """
        self.rows = as_rows(rows)
        self.batch_size, self.seed, self.shuffle = batch_size, seed, shuffle
        self.drop_remainder, self.epochs, self.process = drop_remainder, epochs, process
        self.workers, self.ahead = workers, ahead
        total = self.rows.num_rows
        if not total:
            raise ValueError("rows: there are none, and no batch to make")
        if batch_size < 1 or (drop_remainder and batch_size > total):
            raise ValueError(
                f"batch_size: expected in [1, {total}], the rows there are, found {batch_size}"
            )
        if batch_size % process[1]:
            raise ValueError(
                f"batch_size: {batch_size} does not divide among {process[1]} processes"
            )
        self.fills = True
        self._lock, self._orders = threading.Lock(), dict[int, np.ndarray]()

    def __len__(self) -> int:
        """Batches of an epoch."""
        return self.left(0)

    def __iter__(self) -> GrainIterator:
        return GrainIterator(self)

    def __getstate__(self) -> dict[str, Any]:
        """The state that a worker process needs."""
        return {name: value for name, value in vars(self).items() if name[0] != "_"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._lock, self._orders = threading.Lock(), {}

    def once(self, fills: bool = True) -> GrainIterator:
        """Every row exactly once, in the order of the first epoch, for evaluation.

        Ignores `epochs` and `drop_remainder`.

        Args:
            fills: whether an incomplete last batch is padded; otherwise it is smaller.
        """
        made = copy(self)
        made.__setstate__({**self.__getstate__(), "fills": fills})
        made.drop_remainder, made.epochs = False, 1
        return iter(made)

    def first(self) -> Arrays:
        """The first batch, made at once in this process."""
        return self.batch(0, 0)

    def left(self, row: int) -> int:
        """Batches left in an epoch after the first `row` rows."""
        rows = self.rows.num_rows - row
        return rows // self.batch_size if self.drop_remainder else -(-rows // self.batch_size)

    def batch(self, epoch: int, row: int) -> Arrays:
        """This process's share of the batch that begins at a row of an epoch's order."""
        index, count = self.process
        share = self.batch_size // count
        places = self.order(epoch)[row : row + self.batch_size][index * share :][:share]
        found = self.rows.take(places if len(places) else np.zeros(1, np.int64))
        missing = share - len(places)
        # Without `weights`, padding rows could not be marked as not counting.
        if missing and not (self.fills and "weights" in found):
            return {name: value[: len(places)] for name, value in found.items()}
        return _filled(found, len(places), missing) if missing else found

    def order(self, epoch: int) -> np.ndarray:
        """int64 [N], the rows in the order of an epoch."""
        if not self.shuffle:
            epoch = 0
        with self._lock:
            made = self._orders.pop(epoch, None)
            if made is None:
                total = self.rows.num_rows
                made = np.arange(total)
                if self.shuffle:
                    made = np.random.default_rng((self.seed, epoch)).permutation(total)
            # Keep those used last, since another pass starts again at the first epoch.
            self._orders[epoch] = made
            for old in list(self._orders)[:-KEPT]:
                del self._orders[old]
            return made

    def fingerprint(self) -> dict[str, Any]:
        """Facts that identify rows and order; a resumed run compares them."""
        order = {"shuffle": self.shuffle, "drop_remainder": self.drop_remainder}
        if self.shuffle:
            sample = np.random.default_rng((self.seed, 0)).permutation(SAMPLE)
            order["order"] = digest(sample.astype(np.int64))  # pyright: ignore[reportArgumentType]
        found = {"rows": {"number": self.rows.num_rows, **self.rows.facts(), **order}}
        words = self.rows.words
        return found if words is None else {**found, "tokenizer": {"tokens of the texts": words}}


def _filled(rows: Arrays, count: int, missing: int) -> Arrays:
    """Pad a batch with copies of its first row, whose labels have weight 0.

    Args:
        rows: field -> [B, ...]; at least one row.
        count: number of rows that count.
        missing: number of rows to add.
    """
    chosen = np.concatenate([np.arange(count), np.zeros(missing, np.int64)])
    found = {name: value[chosen] for name, value in rows.items()}
    for name in ("weights", "label_item_weights"):
        if name in found:
            found[name][count:] = 0
    return found
