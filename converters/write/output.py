"""The directory of an output: built under another name, renamed when it is complete."""

import errno
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

from converters.errors import OutputError
from converters.stores import LocalStore, Store, open_store
from converters.write.journal import PLACE

COMMIT = "commit_success.txt"  # marks a complete output on object stores, which cannot rename
SPARE = 64 << 20  # bytes that should remain free on the disk after the conversion
MARKS = ("manifest.json", "_lock", f"{PLACE}/")  # every output of a conversion has one of these


class Output:
    """Where a conversion writes.

    Locally, everything is written to `NAME.partial` beside the output, which is renamed when it is
    complete. On an object store the files are written to their final place, and the output exists
    once `commit_success.txt`, which is written last, exists.

    Attributes:
        store: the directory to write to.
        url: path or URL of the output.
    """

    def __init__(self, url: str | os.PathLike[str], *, overwrite: bool) -> None:
        final = open_store(url)
        self.url = final.url
        self._final = final
        self._overwrite = overwrite
        path = final.local_path()
        self._path = None if path is None else Path(os.path.abspath(path))  # noqa: PTH100
        self.store: Store = final
        if self._path is not None:
            self.store = LocalStore(self._path.with_name(f"{self._path.name}.partial"))
        self._lock: Any = None
        self.check()

    def check(self) -> None:
        """Raise `OutputError` if the output exists and may not be replaced.

        Anything that no conversion made (the checkpoint itself, a home directory, a whole bucket)
        is never replaced.
        """
        if self.exists() and not self._overwrite:
            raise OutputError(f"{self.url} exists; give --overwrite to replace it, or another OUT.")
        if self._path is not None and self._path.is_file():
            raise OutputError(f"{self.url} is a file; OUT is a directory to be made.")
        for place in (self._final, self.store):
            names = place.children()
            if names and not any(mark in names for mark in MARKS):
                raise OutputError(
                    f"{place.url} exists and holds {names[0]}, but no manifest.json: no conversion "
                    "made it, so it is not replaced. Remove it yourself, or choose another OUT."
                )

    def exists(self) -> bool:
        """Whether a complete output exists under this name; locally, whether anything does."""
        if self._path is not None:
            return os.path.lexists(self._path)
        return self._final.exists(COMMIT)

    def open(self, *, resume: bool) -> bool:
        """Prepare the unfinished directory and lock it against other processes.

        Returns:
            Whether there is an unfinished output to continue.

        Raises:
            OutputError: another process is writing it, or the directory cannot be made.
        """
        found = bool(self.store.children())
        if self._path is None:
            if found and (not resume or self.exists()):
                self.store.delete(COMMIT)  # first: a half-deleted output must not look whole
                self.store.delete("")
                found = False
            return found
        place = self.store.local_path()
        assert place is not None
        try:
            place.mkdir(parents=True, exist_ok=True)
            self._take_lock(place)
            if found and not resume:
                for name in self.store.children():
                    if name != _LOCK:
                        self.store.delete(name)
                found = False
            keys = self.store.keys()
            for key in keys:
                name = key.rpartition("/")[2]
                if name.startswith(".") and name.endswith(".tmp"):  # its writer was killed
                    self.store.delete(key)
        except OSError as error:
            raise OutputError(f"{place}: cannot be made: {error.strerror}") from error
        return found

    def check_space(self, nbytes: int) -> None:
        """Raise `OutputError` if the disk has less room than the output will take.

        The bytes of an unfinished output count as free: it is either continued or removed.
        """
        if self._path is None:
            return
        place = self._path.parent
        while not place.exists():
            place = place.parent
        taken = sum(map(self.store.size, self.store.keys()))
        free = shutil.disk_usage(place).free + taken
        if free < nbytes + SPARE:
            raise OutputError(
                f"{self.url}: about {nbytes / 1e9:.2f} GB are to be written and {place} has "
                f"{free / 1e9:.2f} GB free; make room or choose another OUT."
            )

    def publish(self) -> None:
        """Give the complete output its name."""
        if self._path is None:
            self._final.write(COMMIT, b"")
            return
        place = self.store.local_path()
        assert place is not None
        (place / _LOCK).unlink(missing_ok=True)
        old: Path | None = None
        try:
            if os.path.lexists(self._path):
                if not self._overwrite:
                    self.check()
                old = self._path.with_name(f"{self._path.name}.old-{secrets.token_hex(4)}")
                self._path.rename(old)
            place.rename(self._path)
        except OSError as error:
            if old is not None and not os.path.lexists(self._path):
                old.rename(self._path)
            raise OutputError(f"{self.url}: cannot be renamed to: {error.strerror}") from error
        if old is not None:
            LocalStore(old.parent).delete(old.name)
        self.close()

    def discard(self) -> None:
        """Remove the unfinished output."""
        self.store.delete("")
        self.close()

    def close(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self, place: Path) -> None:
        import fcntl

        self._lock = os.open(place / _LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise OutputError(
                    f"{place} is being written by another process; wait, or choose another OUT."
                ) from error
            raise


_LOCK = "_lock"
