"""Told to stop: SIGTERM, in one process or in several that must stop at the same step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import jax


class Preempted(SystemExit):
    """The run was told to stop, and has saved: ends the process with code 0."""

    def __init__(self, step: int, saved: bool) -> None:
        super().__init__(0)
        self.step, self.saved = step, saved

    def __str__(self) -> str:
        after = "; saved, the same command goes on" if self.saved else ""
        return f"stopped by SIGTERM after step {self.step}{after}"


class StopRequest:
    """Whether the run was told to stop.

    Attributes:
        received: SIGTERM has come to this process.
    """

    def __init__(self) -> None:
        self.received = False
        self._together = jax.process_count() > 1

    def __call__(self, step: int) -> bool:
        """Whether to stop after this step; the same in all processes."""
        if not self._together:
            return self.received
        from jax.experimental import multihost_utils

        return multihost_utils.reached_preemption_sync_point(step)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Listens for SIGTERM while the block runs; `jax.distributed` does so itself for several."""
    request = StopRequest()

    def receive(number: int, frame: FrameType | None) -> None:
        del number, frame
        request.received = True

    listens = jax.process_count() == 1 and threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, receive) if listens else None
    try:
        yield request
    finally:
        if listens:
            signal.signal(signal.SIGTERM, before)
