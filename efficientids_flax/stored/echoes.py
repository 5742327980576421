"""Orbax and its event loops, which print pages of an error that is raised as well."""

import asyncio
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ECHOES = 0.2  # seconds, in which the threads of what failed come to their end


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


_LOG = logging.getLogger("absl")  # which Orbax writes to
_LOCK = threading.Lock()
_blocks: list[object] = []  # that are open


@contextmanager
def without_echoes() -> Iterator[None]:
    """Nothing in the block prints an error that Orbax raises: neither its log nor its event loops.

    Blocks may be nested, and end in any order.
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
                if isinstance(policy, _Quiet):  # else somebody has put another there
                    asyncio.set_event_loop_policy(policy.before)


def _shown(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR or "orbax" not in record.pathname
