"""If one of several processes fails, all of them end.

The others may be waiting for it in a collective, which cannot be interrupted. So each process has a
thread that asks the coordinator of `jax.distributed` whether another one has reported a fault; that
needs no device and does not block. If so, the thread ends its process, unless that ends by itself.
"""

import atexit
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

import jax

from efficientids_flax.train.state.processes import InAll, ProcessFault, in_words

PLACE = "efficientids/alarm"
PERIOD = 1.0  # seconds between two queries
GRACE = 5.0  # seconds in which a process may end by itself, with its own error
HEARTBEAT = 60  # seconds until a killed or hanging process is noticed; JAX then ends the others
LAST = 300.0  # seconds to wait for the others at the end of a successful run, as JAX does
# Parts of error messages of JAX in a process that has lost another one.
LOST = ("Gloo", "NCCL", "CoordinationService")


class Alarm:
    """Reports faults of this process to the others, and listens to theirs.

    Attributes:
        broken: whether this process has reported a fault, and no block has begun since.
    """

    def __init__(self, client: Any, index: int, count: int) -> None:
        """Does not listen yet, see `begin`.

        Args:
            client: client of the coordinator.
            index, count: number of this process, and number of processes.
        """
        self._client, self._index, self._count = client, index, count
        self._inside = 0  # depth of nested `one_for_all` blocks
        self._past = 0  # number of faults that this process has survived
        self._over, self._ending = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._listen, name="alarm", daemon=True)
        self.broken, self._code = False, 1

    def begin(self) -> None:
        """Listen until the process ends; also report uncaught errors."""
        self._thread.start()
        atexit.register(self._at_exit)  # registered after `jax.distributed`'s, so it runs before
        before = sys.excepthook

        def hook(kind: Any, error: BaseException, trace: TracebackType | None) -> None:
            before(kind, error, trace)
            if not (self.broken or isinstance(error, InAll)):
                self.tell(error)

        sys.excepthook = hook

    def enter(self) -> None:
        """Enter a block of `one_for_all`."""
        self._inside += 1
        self.broken = self.broken and self._inside > 1

    def leave(self) -> None:
        """Leave a block of `one_for_all`."""
        self._inside -= 1
        if self.broken and not self._inside:
            self._past += 1

    def tell(self, error: BaseException) -> tuple[int, str]:
        """Report an error; returns (process, message) of the first report of this fault."""
        found = in_words(error)
        if any(word in found for word in LOST):
            found = f"another process is gone, it seems: {found}"
            self._wait(lambda: self._fault(self._past), 3 * PERIOD)  # the lost one may report soon
        self.broken = True
        if isinstance(error, SystemExit) and isinstance(error.code, int):
            self._code = error.code
        mine = self._index, found
        try:
            self._client.key_value_set(f"{PLACE}/fault/{self._past}/is", json.dumps(mine))
        except RuntimeError:  # already reported by another process, or the coordinator is gone
            mine = self._fault(self._past) or mine
        if not self._inside:
            self._past += 1
        return mine

    def _fault(self, number: int) -> tuple[int, str] | None:
        """(process, message) of fault `number`; None if there is none."""
        found = self._at(f"{PLACE}/fault/{number}")
        return tuple(json.loads(found[0])) if found else None

    def _at(self, name: str) -> list[str]:
        """The values stored under a name; none if the coordinator is gone."""
        try:
            return [value for _, value in self._client.key_value_dir_get(name)]
        except RuntimeError:
            return []

    def _listen(self) -> None:
        while not self._over.wait(PERIOD):
            number = self._past
            if told := self._fault(number):
                self._wait(lambda: self._past > number, GRACE)  # noqa: B023 (called here)
                if self._past == number:
                    _say(f"process {told[0]}: {told[1]}; process {self._index} ends with it")
                    self._end(1)
            elif self.broken and not threading.main_thread().is_alive():
                self._end(self._code)  # other threads of it would wait for the others

    def _end(self, code: int) -> None:
        """End this process at once; the coordinator's process ends last."""
        self._ending.acquire()
        name = f"{PLACE}/left"
        try:
            self._client.key_value_set(f"{name}/{self._index}", "")
        except RuntimeError:
            os._exit(code)
        if self._index == 0:
            self._wait(lambda: len(self._at(name)) == self._count, GRACE + 2 * PERIOD)
        for stream in (sys.stdout, sys.stderr):
            with suppress(AttributeError, OSError, ValueError):  # there is none, or nobody reads it
                stream.flush()
        os._exit(code)

    def _at_exit(self) -> None:
        """Wait for the others to end too; but not after a fault, when JAX would wait in vain."""
        if self.broken:
            self._end(self._code)
        name = f"{PLACE}/well"
        try:
            self._client.key_value_set(f"{name}/{self._index}", "")
        except RuntimeError:
            return
        self._wait(lambda: len(self._at(name)) == self._count, LAST)
        self._over.set()
        self._thread.join()

    @staticmethod
    def _wait(until: Any, seconds: float) -> bool:
        """Poll until a condition is true; returns whether it was within the time."""
        deadline = time.monotonic() + seconds
        while not until():
            if time.monotonic() > deadline:
                return False
            time.sleep(PERIOD / 10)
        return True


_alarms: list[Alarm] = []  # one, of this process


def initialize(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Join the other processes; call it before any other use of jax. If one fails, all end.

    Args:
        coordinator: 'host:port' of process 0; None: detected from the cluster's environment.
        processes, process: number of processes, and number of this one.
    """
    jax.distributed.initialize(coordinator, processes, process, heartbeat_timeout_seconds=HEARTBEAT)
    jax.devices()  # all are here now; one that waits for devices hears of nothing
    watch()


def watch() -> Alarm | None:
    """Start the alarm: from here on all processes end if one fails. None with one process."""
    from jax._src import distributed

    joined = distributed.global_state
    if joined.client is None or joined.num_processes == 1:
        return None
    if not _alarms:
        _alarms.append(Alarm(joined.client, joined.process_id, joined.num_processes))
        _alarms[0].begin()
    return _alarms[0]


@contextmanager
def one_for_all() -> Iterator[None]:
    """An error in this block ends all processes; errors that all raise (`InAll`) are not reported.

    Raises:
        ProcessFault: another process has reported a fault before, which caused this error.
    """
    alarm = watch()
    if alarm is None:
        yield
        return
    alarm.enter()
    try:
        yield
    except BaseException as error:
        if alarm.broken or isinstance(error, InAll):
            raise
        process, told = alarm.tell(error)
        if told != in_words(error):
            raise ProcessFault(f"process {process}: {told}") from error
        raise
    finally:
        alarm.leave()


def _say(text: str) -> None:
    with suppress(AttributeError, OSError, ValueError):
        sys.stderr.write(f"{text}\n")
