"""Computes batches ahead on a thread while earlier ones are used."""

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar, cast

WAITING = 8  # batches that are kept waiting

_END = object()
Batch = TypeVar("Batch")


def ahead(batches: Iterator[Batch], waiting: int = WAITING) -> Iterator[Batch]:
    """Yield the same batches, computed ahead; an error is raised where its batch would be taken.

    Args:
        batches: iterator; used only by the new thread.
        waiting: how many batches may wait.
    """
    held: queue.Queue[object] = queue.Queue(waiting)
    stopped = threading.Event()

    def fill() -> None:
        last: object = _END
        try:
            for batch in batches:
                if not _put(held, batch, stopped):
                    return
        except BaseException as error:
            last = error
        _put(held, last, stopped)

    thread = threading.Thread(target=fill, name="batches ahead", daemon=True)
    thread.start()
    try:
        while (found := held.get()) is not _END:
            if isinstance(found, BaseException):
                raise found
            yield cast(Batch, found)
    finally:
        stopped.set()
        thread.join()


def _put(held: "queue.Queue[object]", value: object, stopped: threading.Event) -> bool:
    """Put the value once there is room; gives False if the consumer stopped first."""
    while not stopped.is_set():
        try:
            held.put(value, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False
