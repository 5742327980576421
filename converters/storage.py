"""Places that hold files: a local directory, an object store, or the inside of an OCDBT database.

One small protocol over all three, so that readers and writers do not know where they are. Remote
places go through TensorStore's own key-value drivers; nothing is copied to local disk first.
"""

import functools
import os
import re
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from converters.errors import ConversionError

CACHE = 32 << 20  # bytes of OCDBT tree nodes that are kept decoded
OBJECT_STORE_DRIVERS = {"gs": "gcs", "s3": "s3"}  # URL scheme -> TensorStore kvstore driver


class StorageError(ConversionError):
    """A place cannot be reached, listed, read or written; the message says which and why."""


class MissingKeyError(StorageError):
    """A file that was asked for is not there."""


class Store(Protocol):
    """A tree of files under one root. Keys are '/'-separated and relative to the root.

    Attributes:
        url: the root, for messages; no '/' at its end.
        is_object_store: renaming is not possible there; a `commit_success.txt` marks what is whole.
    """

    url: str
    is_object_store: bool

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes `start` to `stop` (or the end) of a file; `MissingKeyError` if there is none."""
        ...

    def size(self, key: str) -> int:
        """Length of a file in bytes; `MissingKeyError` if there is none."""
        ...

    def exists(self, key: str) -> bool:
        """Whether there is a file of this name."""
        ...

    def children(self, prefix: str = "") -> list[str]:
        """Names one level below `prefix`, sorted; those of directories end in '/'."""
        ...

    def keys(self, prefix: str = "") -> list[str]:
        """All files below `prefix`, at any depth, relative to the root of the store, sorted."""
        ...

    def write(self, key: str, data: bytes | memoryview) -> None:
        """Create or replace a file; readers see the old or the new one, never a part."""
        ...

    def write_blocks(self, key: str, blocks: Iterable[bytes]) -> None:
        """As `write`, from pieces; an object store has to hold them all before it writes."""
        ...

    def delete(self, prefix: str) -> None:
        """Remove a file or a whole tree; nothing happens where there is none."""
        ...

    def child(self, prefix: str) -> "Store":
        """The same place seen from `prefix`."""
        ...

    def kvstore(self, prefix: str = "") -> dict[str, Any]:
        """TensorStore's JSON specification of this place (never a URL: names may hold '#')."""
        ...

    def local_path(self, key: str = "") -> Path | None:
        """Path in the local file system, None for any other place."""
        ...


def open_store(url: str | os.PathLike[str]) -> Store:
    """The store behind a local path or a `file://`, `gs://` or `s3://` URL."""
    text = os.fspath(url)
    scheme = urlsplit(text).scheme if "://" in text else ""
    if scheme in ("", "file"):
        return LocalStore(Path(text.removeprefix("file://")))
    if scheme not in OBJECT_STORE_DRIVERS:
        known = ", ".join(f"{name}://" for name in ("file", *OBJECT_STORE_DRIVERS))
        raise StorageError(f"{text}: no storage for '{scheme}://'; known are local paths, {known}")
    bucket, _, path = text.split("://", 1)[1].partition("/")
    if not bucket:
        raise StorageError(f"{text}: the URL names no bucket; write {scheme}://BUCKET/PATH")
    spec = {"driver": OBJECT_STORE_DRIVERS[scheme], "bucket": bucket, **_endpoint(scheme)}
    root = path.strip("/")
    return KvStore(spec | {"path": f"{root}/" if root else ""}, text.rstrip("/"), True)


def open_ocdbt(store: Store, prefix: str = "") -> "KvStore":
    """The keys inside the OCDBT database at `prefix` of `store`, for reading."""
    url = f"{store.url}/{prefix}".rstrip("/")
    return KvStore({"driver": "ocdbt", "base": store.kvstore(prefix)}, url, False)


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
                return file.read(-1 if stop is None else max(stop - start, 0))
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
            return self._path(key).is_file()
        except OSError as error:
            raise self._failure(key, "read", error) from error

    def children(self, prefix: str = "") -> list[str]:
        """See `Store.children`."""
        try:
            with os.scandir(self._path(prefix)) as entries:
                return sorted(e.name + "/" if e.is_dir() else e.name for e in entries)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self._failure(prefix, "list", error) from error

    def keys(self, prefix: str = "") -> list[str]:
        """See `Store.keys`."""
        found: list[str] = []
        pending = [prefix.strip("/")]
        while pending:
            place = pending.pop()
            for name in self.children(place):
                key = f"{place}/{name}" if place else name
                if name.endswith("/"):
                    pending.append(key[:-1])
                else:
                    found.append(key)
        return sorted(found)

    def write(self, key: str, data: bytes | memoryview) -> None:
        """See `Store.write`."""
        self.write_blocks(key, (data,))

    def write_blocks(self, key: str, blocks: Iterable[bytes | memoryview]) -> None:
        """See `Store.write_blocks`."""
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
            try:
                with fresh.open("xb", buffering=0) as file:
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
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise self._failure(prefix, "delete", error) from error

    def child(self, prefix: str) -> "LocalStore":
        """See `Store.child`."""
        return LocalStore(self._path(prefix))

    def kvstore(self, prefix: str = "") -> dict[str, Any]:
        """See `Store.kvstore`."""
        return {"driver": "file", "path": f"{self._path(prefix).absolute()}/"}

    def local_path(self, key: str = "") -> Path:
        """See `Store.local_path`."""
        return self._path(key)

    def _path(self, key: str) -> Path:
        return self.root / key.strip("/") if key else self.root

    def _failure(self, key: str, verb: str, error: OSError) -> StorageError:
        kind = MissingKeyError if isinstance(error, FileNotFoundError) else StorageError
        return kind(f"{self._path(key)}: cannot {verb}: {error.strerror or error}")


class KvStore:
    """A TensorStore key-value store: an object store, or the inside of an OCDBT database."""

    def __init__(self, spec: dict[str, Any], url: str, is_object_store: bool) -> None:
        self.url = url
        self.is_object_store = is_object_store
        self._spec = spec
        self._opened: Any = None

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        """See `Store.read`."""
        result = self._call(key, "read", lambda kv: kv.read(key, byte_range=slice(start, stop)))
        if result.state == "missing":
            raise MissingKeyError(f"{self.url}/{key}: cannot read: no such file")
        return result.value

    def size(self, key: str) -> int:
        """See `Store.size`."""
        # TensorStore has no call for the length of a value. A read far past its end is refused with
        # a message that holds it; should a driver answer otherwise, the value itself is measured.
        try:
            return len(self.read(key, _PAST_ANY_END, _PAST_ANY_END + 1))
        except MissingKeyError:
            raise
        except StorageError as error:
            told = re.search(r"of size (\d+)", str(error))
            return int(told.group(1)) if told else len(self.read(key))

    def exists(self, key: str) -> bool:
        """See `Store.exists`."""
        result = self._call(key, "read", lambda kv: kv.read(key, byte_range=slice(0, 0)))
        return result.state != "missing"

    def children(self, prefix: str = "") -> list[str]:
        """See `Store.children`."""
        start = len(prefix.strip("/")) + 1 if prefix.strip("/") else 0
        rests = (key[start:].partition("/") for key in self.keys(prefix))
        return sorted({name + slash for name, slash, _ in rests})

    def keys(self, prefix: str = "") -> list[str]:
        """See `Store.keys`."""
        import tensorstore

        place = prefix.strip("/")
        span = tensorstore.KvStore.KeyRange()
        if place:  # '0' follows '/' in ASCII: the range holds just the keys below `place/`
            span = tensorstore.KvStore.KeyRange(f"{place}/", f"{place}0")
        found: Iterable[bytes] = self._call(prefix, "list", lambda kv: kv.list(span))
        return sorted(key.decode() for key in found)

    def write(self, key: str, data: bytes | memoryview) -> None:
        """See `Store.write`."""
        self._call(key, "write", lambda kv: kv.write(key, bytes(data)))

    def write_blocks(self, key: str, blocks: Iterable[bytes]) -> None:
        """See `Store.write_blocks`."""
        self.write(key, b"".join(blocks))

    def delete(self, prefix: str) -> None:
        """See `Store.delete`."""
        import tensorstore

        place = prefix.strip("/")
        if place:
            self._call(prefix, "delete", lambda kv: kv.write(place, None))
            span = tensorstore.KvStore.KeyRange(f"{place}/", f"{place}0")
        else:
            span = tensorstore.KvStore.KeyRange()
        self._call(prefix, "delete", lambda kv: kv.delete_range(span))

    def child(self, prefix: str) -> "KvStore":
        """See `Store.child`."""
        place = prefix.strip("/")
        if not place:
            return self
        return KvStore(self.kvstore(place), f"{self.url}/{place}", self.is_object_store)

    def kvstore(self, prefix: str = "") -> dict[str, Any]:
        """See `Store.kvstore`."""
        place = prefix.strip("/")
        path = self._spec.get("path", "")
        return self._spec | {"path": f"{path}{place}/" if place else path}

    def local_path(self, key: str = "") -> None:
        """See `Store.local_path`."""
        del key

    def _call(self, key: str, verb: str, request: Any) -> Any:
        """Run one request; TensorStore's error becomes one line that names the place."""
        import tensorstore

        try:
            if self._opened is None:
                self._opened = tensorstore.KvStore.open(self._spec, context=_context()).result()
            return request(self._opened).result()
        except (ValueError, OSError, RuntimeError, KeyError) as error:
            cause = str(error).splitlines()[0].split(" [", 1)[0] if str(error) else repr(error)
            raise StorageError(
                f"{self.url}/{key}".rstrip("/") + f": cannot {verb}: {cause}"
            ) from error


@functools.cache
def _context() -> Any:
    """One context for all stores: they share connections, credentials and a small cache.

    Without the cache each read in an OCDBT database decodes the nodes of its tree again.
    """
    import tensorstore

    return tensorstore.Context({"cache_pool": {"total_bytes_limit": CACHE}})


def _endpoint(scheme: str) -> dict[str, Any]:
    """Endpoint options that TensorStore does not take from the environment by itself."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if scheme == "s3" and endpoint:
        return {"endpoint": endpoint, "aws_region": os.environ.get("AWS_REGION", "us-east-1")}
    return {}


def write_all(file: Any, data: bytes | memoryview) -> None:
    """Write all of `data` to an unbuffered file: one call may stop short (2 GiB on Linux)."""
    rest = memoryview(data).cast("B")
    while rest:
        rest = rest[file.write(rest) :]


_PAST_ANY_END = 1 << 60
