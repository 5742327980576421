"""Stopping by a signal, in one process or in several that must stop at the same step.

The signals are SIGTERM, Ctrl-C (SIGINT), the end of the terminal (SIGHUP), and those that
schedulers send some time before a job's end (SIGUSR1, SIGUSR2): Slurm with `--signal=USR1@120`.
"""

import itertools
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import jax

from efficientids_flax.train.state import InAll


def _known(*names: str) -> list[signal.Signals]:
    """Those that this system has."""
    return [signal.Signals[name] for name in names if name in signal.Signals.__members__]


SIGNALS = _known("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2")
FREE = _known("SIGUSR1", "SIGUSR2")  # a program may use them for what it likes
PATIENCE = 3  # this many Ctrl-C end the process even while it saves
_ASKED = itertools.count(1)  # numbers the queries between processes


class Preempted(SystemExit, InAll):
    """The run was told to stop, and has saved: ends the process with code 0."""

    def __init__(self, step: int, saved: bool, by: str = "SIGTERM") -> None:
        super().__init__(0)
        self.step, self.saved, self.by = step, saved, by

    def __str__(self) -> str:
        return _told(self.by, self.step, self.saved)


class Interrupted(KeyboardInterrupt, InAll):
    """Ctrl-C, or a notebook's stop button; the run has saved."""

    def __init__(self, step: int, saved: bool) -> None:
        super().__init__()
        self.step, self.saved = step, saved

    def __str__(self) -> str:
        return _told("Ctrl-C", self.step, self.saved)


class Stopped(BaseException):
    """The run is told to stop at a place that may be interrupted at once, not in a step."""


class StopRequest:
    """Whether the run was told to stop.

    Attributes:
        received: whether this process has received a signal.
        interrupts: number of Ctrl-C.
        saving: whether the run is ending; then only the last Ctrl-C of `PATIENCE` interrupts it.
    """

    def __init__(self) -> None:
        self.received, self.interrupts, self.saving = False, 0, False
        self._by = "SIGTERM"
        self._together = jax.process_count() > 1
        self._at_once = False

    def __call__(self) -> bool:
        """Whether to stop here; the same in all processes, which must call this equally often."""
        if not self._together:
            return self.received
        from jax.experimental import multihost_utils

        return multihost_utils.reached_preemption_sync_point(next(_ASKED))

    def between(self) -> None:
        """Call after each batch of an evaluation; all processes must call it equally often.

        Raises:
            Stopped: one of several processes is told to stop.
        """
        if self._together and self():
            raise Stopped

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """With a single process, the block may be interrupted in the middle.

        With several processes none may leave the others alone; they call `between` instead.

        Raises:
            Stopped: the run is told to stop.
        """
        self._at_once = not self._together
        try:
            if self._at_once and self.received:
                raise Stopped
            yield
        finally:
            self._at_once = False

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        """A signal: the run stops after its step; Ctrl-C again stops it in the middle."""
        del frame
        first, self.received = not self.received, True
        if self._together and first:
            os.kill(os.getpid(), signal.SIGTERM)  # jax.distributed passes it to all processes
        if number != signal.SIGINT:
            self._by = signal.Signals(number).name
        else:
            self.interrupts += 1
            if self.interrupts >= (PATIENCE if self.saving else 2):
                raise KeyboardInterrupt
        if self._at_once:
            self._at_once = False
            raise Stopped

    def ending(self, step: int, saved: bool) -> BaseException:
        """The exception that ends the run."""
        return Interrupted(step, saved) if self.interrupts else Preempted(step, saved, self._by)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Listens for `SIGNALS` while the block runs.

    With several processes `jax.distributed` itself listens for SIGTERM. Signals that the program
    ignores, as background programs ignore Ctrl-C, stay ignored, and those of `FREE` that it
    handles stay its own.
    """
    request = StopRequest()
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            alone = jax.process_count() == 1 or number != signal.SIGTERM
            handler = signal.getsignal(number)
            own = number in FREE and handler != signal.SIG_DFL
            if alone and not own and handler not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, request.receive)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _told(by: str, step: int, saved: bool) -> str:
    after = "; saved, the same command goes on" if saved else ""
    return f"stopped by {by} after step {step}{after}"
