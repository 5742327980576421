"""Silences Orbax and its event loops, which print pages about an error that is also raised."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ECHOES = 0.2  # seconds to wait for the threads of a failed operation to end


class _Quiet(asyncio.AbstractEventLoopPolicy):  # pyright: ignore[reportGeneralTypeIssues]
    """An event loop policy whose loops ignore calls that come after they are closed.

    An error in one leaf aborts reading, or writing, of all leaves. The threads of the others then
    call the loop that Orbax made for them, which is closed by now, and each prints a page about
    that error, which no hook of Python can catch. Existing loops are left alone.
    """

    def __init__(self, before: asyncio.AbstractEventLoopPolicy) -> None:
        self.before = before

    def new_event_loop(self) -> asyncio.AbstractEventLoop:
        """A loop of the previous policy that ignores late calls."""
        loop: Any = self.before.new_event_loop()
        call = loop.call_soon_threadsafe
        # For this loop alone. If several errors occur, the first is raised; nobody awaits the rest.
        loop.set_exception_handler(lambda loop, context: None)

        def call_if_open(*given: Any, **named: Any) -> Any:
            try:
                return call(*given, **named)
            except RuntimeError:  # not checked before: the loop could close before the call
                if not loop.is_closed():
                    raise
                return None

        loop.call_soon_threadsafe = call_if_open
        return loop

    def get_event_loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the previous policy."""
        return self.before.get_event_loop()

    def set_event_loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Set the loop of the previous policy."""
        self.before.set_event_loop(loop)

    def get_child_watcher(self) -> Any:
        """The watcher of the previous policy."""
        before: Any = self.before
        return before.get_child_watcher()


_LOG = logging.getLogger("absl")  # the logger of Orbax
_LOCK = threading.Lock()
_blocks: list[object] = []  # the open `without_echoes` blocks


@contextmanager
def without_echoes() -> Iterator[None]:
    """In this block, neither Orbax' log nor its event loops print an error that Orbax raises.

    Blocks may be nested, and may end in any order.
    """
    with _LOCK:
        if not _blocks:
            _LOG.addFilter(_shown)
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
            if not _blocks:
                _LOG.removeFilter(_shown)
                policy = asyncio.get_event_loop_policy()
                if isinstance(policy, _Quiet):  # else somebody has set another policy meanwhile
                    asyncio.set_event_loop_policy(policy.before)


def _shown(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR or "orbax" not in record.pathname
