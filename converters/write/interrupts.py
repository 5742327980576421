"""Turns Ctrl-C into a flag, so that no exception interrupts code that holds a lock."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupt_at_the_end(interrupted: Callable[[], None]) -> Iterator[None]:
    """Call `interrupted` on Ctrl-C, and raise KeyboardInterrupt when the block ends.

    Python raises KeyboardInterrupt wherever the main thread happens to be. Inside
    `concurrent.futures` this can leave the lock of a future held; its worker, and everyone who
    waits for it, then hangs. A second Ctrl-C raises at once. Signal handlers other than Python's
    own, and threads other than the main thread, are left alone.

    Args:
        interrupted: called at once, in the main thread; makes the block finish early.

    Raises:
        KeyboardInterrupt: at the end of the block, if Ctrl-C was pressed.
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
