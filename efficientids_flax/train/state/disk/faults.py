"""What goes wrong with checkpoints on disk, in one line each."""

import asyncio
import logging
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from efficientids_flax.text import in_a_line

ECHOES = 0.2  # seconds, in which the threads of a reading that failed come to their end


class CheckpointMismatch(ValueError):
    """The checkpoint is of another model, optimizer or freezing."""


class UnwrittenCheckpoint(OSError):
    """A checkpoint could not be written; those before it are whole."""


class DamagedCheckpoint(ValueError):
    """A checkpoint cannot be read, though it is there."""


# Not the checkpoint's fault: reading it again may go well.
_NOT_DAMAGE = ("RESOURCE_EXHAUSTED", "PERMISSION_DENIED", "Permission denied", "UNAVAILABLE")


class Untold(logging.Filter):
    """Between `begin` and `end`, leaves out the pages that are logged of what `writing` tells."""

    def begin(self) -> None:
        """From now on."""
        logging.getLogger("absl").addFilter(self)
        self._echoes = _without_echoes()
        self._echoes.__enter__()

    def end(self, failed: bool) -> None:
        """Until now; after a failure, when the last threads have ended."""
        if failed:
            time.sleep(ECHOES)
        self._echoes.__exit__(None, None, None)
        logging.getLogger("absl").removeFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is shown."""
        return record.levelno < logging.ERROR or "orbax" not in record.pathname


@contextmanager
def reading(where: Any) -> Iterator[None]:
    """Errors in the block are those of a damaged checkpoint.

    Raises:
        DamagedCheckpoint: naming it. Errors that say nothing of it are raised as they are.
    """
    try:
        with _without_echoes():
            yield
    except (CheckpointMismatch, MemoryError, PermissionError, DamagedCheckpoint):
        raise
    except Exception as error:
        if any(word in str(error) for word in _NOT_DAMAGE):
            raise
        raise DamagedCheckpoint(f"{where}: damaged, cannot be read: {in_a_line(error)}") from error


@contextmanager
def writing(directory: Any, newest: Any) -> Iterator[None]:
    """Errors in the block, or in the background before it, are those of a failed write.

    Args:
        directory: of the run.
        newest: gives the newest step that is whole, None without one.

    Raises:
        UnwrittenCheckpoint: naming the directory and what is left.
    """
    try:
        yield
    except UnwrittenCheckpoint:
        raise
    except Exception as error:
        # What Orbax leaves behind then is of nobody's interest.
        warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
        step = newest()
        left = "no checkpoint is there" if step is None else f"the newest whole one is step {step}"
        raise UnwrittenCheckpoint(
            f"{directory}: a checkpoint could not be written: {in_a_line(error)}; {left}. With room"
            " and permission to write there, the same command goes on from it"
        ) from error


class _Quiet(asyncio.AbstractEventLoopPolicy):  # pyright: ignore[reportGeneralTypeIssues]
    """New event loops do not complain of calls that come after their end.

    An error of one leaf ends the reading, or writing, of all; the threads of the others then call
    the loop that Orbax made for them and that has ended, and each prints a page of that error, of
    which no hook of Python hears. Loops that are there already are left alone.
    """

    def __init__(self, before: asyncio.AbstractEventLoopPolicy) -> None:
        self.before = before

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """As the policy before makes it."""
        loop: Any = self.before.new_event_loop()
        call = loop.call_soon_threadsafe
        # Of this loop alone. An error that nobody waits for any more is one of several, of which
        # the first is told.
        loop.set_exception_handler(lambda loop, context: None)

        def call_if_open(*given: Any, **named: Any) -> Any:
            try:
                return call(*given, **named)
            except RuntimeError:  # it may end between a look and the call
                if not loop.is_closed():
                    raise
                return None

        loop.call_soon_threadsafe = call_if_open
        return loop

    def get_event_loop(self) -> asyncio.AbstractEventLoop:
        """That of the policy before."""
        return self.before.get_event_loop()

    def set_event_loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """To the policy before."""
        self.before.set_event_loop(loop)

    def get_child_watcher(self) -> Any:
        """That of the policy before."""
        before: Any = self.before
        return before.get_child_watcher()


_LOCK = threading.Lock()
_blocks: list[object] = []  # that are open


@contextmanager
def _without_echoes() -> Iterator[None]:
    """Event loops that are made in the block are as `_Quiet` makes them."""
    with _LOCK:
        if not _blocks:
            asyncio.set_event_loop_policy(_Quiet(asyncio.get_event_loop_policy()))
        _blocks.append(block := object())
    try:
        yield
    except Exception:
        time.sleep(ECHOES)
        raise
    finally:
        with _LOCK:
            _blocks.remove(block)
            policy = asyncio.get_event_loop_policy()
            if not _blocks and isinstance(policy, _Quiet):  # else somebody has put another there
                asyncio.set_event_loop_policy(policy.before)


@contextmanager
def quiet() -> Iterator[None]:
    """Without Orbax's warning that a directory to be read is read only."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
