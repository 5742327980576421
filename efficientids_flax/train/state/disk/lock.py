"""Locks a directory for one run at a time; the lock ends with the process that holds it."""

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from efficientids_flax.text import in_a_line
from efficientids_flax.train.state.processes import agreed, is_primary

NAME = "run.lock"
_held: set[Path] = set()  # directories locked here; POSIX locks do not conflict in one process


class DirectoryInUse(ValueError):
    """Another run is using the directory."""


class UnusableDirectory(OSError):
    """No run can write to the directory."""


class Lock:
    """The lock of a directory, held by this process or by the first of several.

    Attributes:
        place: the directory.
    """

    def __init__(self, place: Path, file: int | None) -> None:
        self.place, self._file = place, file

    def renew(self) -> bool:
        """Lock the directory again if the locked file is gone from it; returns whether it was gone.

        This happens if somebody removes or moves the directory, or the file in it.

        Raises:
            DirectoryInUse: another run has locked it meanwhile.
        """
        if self._file is None or self._is_there(self._file):
            return False
        self.release()
        self._file = _taken(self.place)
        return True

    def _is_there(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), (self.place / NAME).stat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Release the lock."""
        if self._file is not None:
            _held.discard(self.place)
            os.close(self._file)
            self._file = None


@contextmanager
def locked(directory: str | os.PathLike[str]) -> Iterator[Lock]:
    """Lock a directory during the block; the first process locks it for all.

    However a process ends, the system releases its lock; the file stays. If the file system does
    not support locks, none is held.

    Raises:
        DirectoryInUse: another run has the lock; names it.
        UnusableDirectory: it cannot be made, or nothing can be written there.
    """
    place = Path(directory).resolve()
    file, problem = None, None
    if is_primary():
        try:
            file = _taken(place)
        except (DirectoryInUse, UnusableDirectory) as error:
            problem = error
    if found := agreed(None if problem is None else str(problem)):
        raise problem or DirectoryInUse(found)
    lock = Lock(place, file)
    try:
        yield lock
    finally:
        lock.release()


def _taken(place: Path) -> int | None:
    """The open file of the lock; None if locks are not supported."""
    if place in _held:
        raise DirectoryInUse(_told(place, "this process is training"))
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        return None
    try:
        place.mkdir(parents=True, exist_ok=True)
        file = os.open(place / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise UnusableDirectory(
            f"{place}: cannot be the directory of a run: {in_a_line(error)}; give another"
        ) from error
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        holder = os.read(file, 1000)
        os.close(file)
        raise DirectoryInUse(_told(place, _named(holder))) from None
    except OSError:  # no locks on this file system
        os.close(file)
        return None
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    os.ftruncate(file, 0)
    os.write(
        file, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now}).encode()
    )
    _held.add(place)
    return file


def _named(content: bytes) -> str:
    try:
        holder = json.loads(content)
        return f"process {holder['pid']} on {holder['host']} is training since {holder['since']}"
    except (ValueError, KeyError, TypeError):  # the holder has not written its name yet
        return "another process is training"


def _told(place: Path, who: str) -> str:
    return f"{place}: {who} in this directory; wait for it, end it, or give another directory"
