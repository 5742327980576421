"""Ctrl-C as a flag: no exception breaks into code that holds a lock."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupt_at_the_end(interrupted: Callable[[], None]) -> Iterator[None]:
    """Turn Ctrl-C within the block into a call, and raise KeyboardInterrupt when the block ends.

    Python raises KeyboardInterrupt wherever the main thread is. Inside `concurrent.futures` that
    can leave the lock of a future held, and then its worker, and whoever waits for it, never ends.
    A second Ctrl-C raises at once. Other handlers than Python's own, and other threads than the
    main one, are left as they are.

    Args:
        interrupted: called at once, in the main thread; tells the block to come to its end.

    Raises:
        KeyboardInterrupt: at the end, if there was one.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    came = False

    def receive(number: int, frame: FrameType | None) -> None:
        nonlocal came
        del number, frame
        came = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupted()

    signal.signal(signal.SIGINT, receive)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if came:
            raise KeyboardInterrupt
