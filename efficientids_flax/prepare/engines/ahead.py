"""Batches that are computed on a thread while those before are worked on."""

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar, cast

WAITING = 8  # batches that are held

_END = object()
Batch = TypeVar("Batch")


def ahead(batches: Iterator[Batch], waiting: int = WAITING) -> Iterator[Batch]:
    """The same batches; an error of theirs is raised where they are taken.

    Args:
        batches: used by one thread at a time.
        waiting: how many may wait.
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
    """Whether it could be handed on before nobody wanted any more."""
    while not stopped.is_set():
        try:
            held.put(value, timeout=0.1)
            return True
        except queue.Full:
            continue
    return False
