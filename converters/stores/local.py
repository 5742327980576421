"""A directory of the local file system as a store."""

import errno
import io
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from converters.stores.protocol import MissingKeyError, StorageError

BLOCK = 1 << 18  # bytes of a local file read at a time: they stay in the cache until they are used
PIECE = 1 << 20  # bytes written at a time: for larger writes Linux looks for larger free pages


class LocalStore:
    """A directory of the local file system."""

    is_object_store = False

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = str(root)

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        """See `Store.read`."""
        try:
            with self._path(key).open("rb", buffering=0) as file:
                if start:
                    file.seek(start)
                if stop is None:
                    return file.read()
                left = min(stop, os.fstat(file.fileno()).st_size) - start
                data = file.read(max(left, 0))
                while len(data) < left and (more := file.read(left - len(data))):
                    data += more  # one call returns 2 GiB at most
                return data
        except OSError as error:
            raise self._failure(key, "read", error) from error

    def read_many(self, keys: Sequence[str]) -> Iterator[bytes]:
        """See `Store.read_many`."""
        return map(self.read, keys)

    def blocks(self, key: str) -> Iterator[bytes]:
        """See `Store.blocks`."""
        try:
            with self._path(key).open("rb", buffering=0) as file:
                yield from iter(lambda: file.read(BLOCK), b"")
        except OSError as error:
            raise self._failure(key, "read", error) from error

    def size(self, key: str) -> int:
        """See `Store.size`."""
        try:
            return self._path(key).stat().st_size
        except OSError as error:
            raise self._failure(key, "read", error) from error

    def exists(self, key: str) -> bool:
        """See `Store.exists`."""
        try:
            return stat.S_ISREG(self._path(key).stat().st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise self._failure(key, "read", error) from error

    def children(self, prefix: str = "") -> list[str]:
        """See `Store.children`."""
        return sorted(name + "/" * is_dir for name, is_dir, _ in self._scan(prefix))

    def keys(self, prefix: str = "") -> list[str]:
        """See `Store.keys`. Follows links, unless they lead to a directory that contains them."""
        found: list[str] = []
        pending = [prefix.strip("/")]
        while pending:
            place = pending.pop()
            for name, is_dir, is_link in self._scan(place):
                key = f"{place}/{name}" if place else name
                path = self._path(key)
                if not is_dir:
                    found.append(key)
                elif is_link and any(map(path.samefile, path.absolute().parents)):
                    raise StorageError(f"{path}: cannot list: a link to a directory it lies in")
                else:
                    pending.append(key)
        return sorted(found)

    def _scan(self, prefix: str) -> Iterator[tuple[str, bool, bool]]:
        """(name, whether a directory, whether a link) of each entry of a directory."""
        try:
            with os.scandir(self._path(prefix)) as entries:
                yield from [(e.name, e.is_dir(), e.is_symlink()) for e in entries]
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise self._failure(prefix, "list", error) from error

    def write(self, key: str, data: bytes | memoryview) -> None:
        """See `Store.write`."""
        self.write_blocks(key, (data,))

    def write_blocks(self, key: str, blocks: Iterable[bytes | memoryview]) -> None:
        """See `Store.write_blocks`."""
        path = self._path(key)
        try:
            fresh = path.with_name(f".{secrets.token_hex(8)}.tmp")  # short: names are limited
            try:
                with _created(fresh) as file:
                    for block in blocks:
                        write_all(file, block)
                fresh.replace(path)
            except BaseException:
                fresh.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise self._failure(key, "write", error) from error

    def delete(self, prefix: str) -> None:
        """See `Store.delete`."""
        path = self._path(prefix)
        try:
            if path.is_dir() and not path.is_symlink():
                _remove_tree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise self._failure(prefix, "delete", error) from error

    def child(self, prefix: str) -> "LocalStore":
        """See `Store.child`."""
        return LocalStore(self._path(prefix))

    def kvstore(self, prefix: str = "") -> dict[str, Any]:
        """See `Store.kvstore`."""
        return {
            "driver": "file",
            "path": f"{self._path(prefix).resolve()}/",
        }  # TensorStore takes no ".."

    def local_path(self, key: str = "") -> Path:
        """See `Store.local_path`."""
        return self._path(key)

    def _path(self, key: str) -> Path:
        if "\0" in key or ".." in key.split("/"):
            raise StorageError(f"{self.url}: {key!r} is no name of a file in it")
        return self.root / key.strip("/") if key else self.root

    def _failure(self, key: str, verb: str, error: OSError) -> StorageError:
        kind = MissingKeyError if isinstance(error, FileNotFoundError) else StorageError
        path = self._path(key)
        advice = ""
        if error.errno == errno.ENAMETOOLONG:
            advice = f" ({max(len(os.fsencode(part)) for part in path.parts)} bytes in one name)"
        elif kind is MissingKeyError and path.is_symlink():
            advice = f" (a link to {path.readlink()})"
        return kind(f"{path}: cannot {verb}: {error.strerror or error}{advice}")


def _remove_tree(path: Path) -> None:
    """Remove a directory that other processes may be removing too."""
    while path.exists():
        try:
            shutil.rmtree(path)
        except FileNotFoundError:
            continue


def _created(path: Path) -> io.FileIO:
    """Create a file, and the directories around it if they are missing."""
    try:
        return path.open("xb", buffering=0)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb", buffering=0)


def write_all(file: Any, data: bytes | memoryview) -> None:
    """Write all of `data` to an unbuffered file, since one call may write only a part."""
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[file.write(rest[:PIECE]) :]
