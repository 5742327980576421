"""Evaluation batches of several processes, whose shares may have different numbers of rows.

In training all processes bring the same number of rows to a step. An evaluation counts every row:
shares of the last batches differ in size, and some processes run out of batches before others.
"""

import pickle
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from efficientids_flax.train.batches import is_placed, rows_of
from efficientids_flax.train.state.placement import BatchPlacer
from efficientids_flax.train.state.processes import problems_of_all, shared_fault

# Codes instead of a number of rows: no batch; already placed by the caller; cannot be read.
NONE, PLACED, FAULT = 0, -1, -2


def shared_batches(batches: Iterable[Any], place: BatchPlacer) -> Iterator[Any]:
    """Yield global batches of all processes' rows, until no process has any.

    If the rows do not divide among the devices, or shares differ in size, every device gets all
    rows; they still count once, since one global sum is computed.

    Args:
        batches: batches of this process; all processes must call this.
        place: puts a batch on the devices.

    Raises:
        ProcessFault: in all processes, if one of them cannot read a batch, or values are out of
            range.
    """
    if jax.process_count() == 1:
        yield from map(place, batches)
        return
    reader = iter(batches)
    while True:
        batch, problem = _next(reader, place)
        count = PLACED if is_placed(batch) else rows_of(batch) or NONE
        counts = _all(np.int32(count if problem is None else FAULT)).tolist()
        if FAULT in counts:
            raise shared_fault(problems_of_all(problem), "evaluation: ") from problem
        if not any(counts):
            return
        rows = counts[0]
        if len(set(counts)) == 1 and (rows == PLACED or place.divides(rows)):
            yield place(batch)
            continue
        if PLACED in counts:
            raise ValueError(
                f"evaluation: of the processes' batches some are placed on the devices already,"
                f" and not all are; found {counts} rows ({PLACED}: placed)"
            )
        yield place.everywhere(_joined(batch))


def _next(reader: Iterator[Any], place: BatchPlacer) -> tuple[Any, Exception | None]:
    """(The next batch, None where there is none; why it cannot be read)."""
    try:
        batch = next(reader, None)
        if batch is not None:
            place.check(batch)
    except Exception as error:
        return None, error
    return batch, None


def any_process(value: bool) -> bool:
    """Whether it is so in some process; all must call it."""
    return value if jax.process_count() == 1 else bool(_all(np.int32(value)).any())


def _joined(batch: Any) -> Any:
    """The rows of all processes, in order."""
    content = np.frombuffer(pickle.dumps(jax.tree.map(np.asarray, batch)), np.uint8)
    sizes = _all(np.int32(content.size))
    padded = np.zeros(int(sizes.max()), np.uint8)
    padded[: content.size] = content
    found = [
        pickle.loads(row[:size].tobytes())  # of this run's own processes
        for row, size in zip(_all(padded), sizes, strict=True)
    ]
    parts = [part for part in found if part is not None]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves) if leaves[0].ndim else leaves[0],
                        *parts)  # fmt: skip


def _all(value: Any) -> np.ndarray:
    """[processes, ...]: the value of each."""
    from jax.experimental import multihost_utils

    value = np.asarray(value)
    found = np.asarray(multihost_utils.process_allgather(value))
    return found.reshape(jax.process_count(), *value.shape)
