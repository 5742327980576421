"""Shows the progress of a conversion: a bar on a terminal, else lines in the log (`-v`)."""

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

EVERY = 5.0  # seconds between two lines

logger = logging.getLogger(__name__)


class Progress(Protocol):
    """A callback for progress; may be called from any thread."""

    def __call__(self, nbytes: int) -> None:
        """Report that `nbytes` more bytes of values are written."""
        ...


@contextmanager
def shown(total: int, *, quiet: bool) -> Iterator[Progress]:
    """A progress display over `total` bytes, on standard error."""
    if quiet:
        yield lambda nbytes: None
    elif sys.stderr.isatty():
        with _bar(total) as progress:
            yield progress
    else:
        yield _lines(total)


@contextmanager
def _bar(total: int) -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("converting"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as display:
        task = display.add_task("converting", total=total)
        yield lambda nbytes: display.advance(task, nbytes)


def _lines(total: int) -> Progress:
    lock = threading.Lock()
    started = time.monotonic()
    state = {"done": 0, "next": started + EVERY}

    def progress(nbytes: int) -> None:
        with lock:
            state["done"] += nbytes
            now = time.monotonic()
            if now < state["next"]:
                return
            state["next"] = now + EVERY
            rate = state["done"] / (now - started)
            left = (total - state["done"]) / rate if rate else 0.0
            done, speed = state["done"] / 1e9, rate / 1e6
            logger.info("%.2f of %.2f GB, %.0f MB/s, %.0f s left", done, total / 1e9, speed, left)

    return progress
