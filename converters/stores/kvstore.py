"""Stores behind TensorStore's key-value drivers: object stores and OCDBT databases."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from converters.stores.connections import COMMIT, Connection
from converters.stores.protocol import MissingKeyError, StorageError

BLOCK = 4 << 20  # bytes of a value read at a time
DELETED_AT_ONCE = 256
READ_AT_ONCE = 32  # as many as TensorStore's drivers work on
MIB = 1 << 20


class KvStore:
    """The keys below a prefix of a `Connection`; see `Store` for the methods."""

    def __init__(self, connection: Connection, prefix: str, url: str) -> None:
        self.url = url
        self.is_object_store = connection.bucket is not None
        self._connection = connection
        self._prefix = prefix  # '' or ends in '/'

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        """See `Store.read`."""
        if stop is None and not start:
            return self._read(key, slice(None))
        if stop is not None and stop <= start:
            return self._read(key, slice(0, 0))
        whole, data, size = self._part(key, start, stop)
        if whole or size is None or start >= size:
            return data
        return self._read(key, slice(start, size))

    def blocks(self, key: str) -> Iterator[bytes]:
        """See `Store.blocks`."""
        size = self.size(key)
        for start in range(0, size, BLOCK):
            yield self.read(key, start, min(start + BLOCK, size))

    def read_many(self, keys: Sequence[str]) -> Iterator[bytes]:
        """See `Store.read_many`."""
        with ThreadPoolExecutor(READ_AT_ONCE, "read") as pool:
            yield from pool.map(self.read, keys)

    def size(self, key: str) -> int:
        """See `Store.size`.

        TensorStore has no call for the length of a value. But it refuses a range that ends past the
        value, with the length in its message. A range that starts past the end works too, except on
        Google's servers; for those, the end is narrowed down first.
        """
        if not self._connection.google:
            _, _, size = self._part(key, _PAST_ANY_END, _PAST_ANY_END + 1)
            if size is not None:
                return size
        low, high = 0, MIB
        whole, _, size = self._part(key, low, high)
        while whole:
            low, high = high, 8 * high
            whole, _, size = self._part(key, high, high + 1)
        while size is None and high - low > MIB:
            middle = (low + high) // 2
            whole, _, size = self._part(key, middle, middle + 1)
            low, high = (middle, high) if whole else (low, middle)
        if size is None:
            _, _, size = self._part(key, low, high)
        return len(self.read(key)) if size is None else size

    def exists(self, key: str) -> bool:
        """See `Store.exists`."""
        try:
            if self.is_object_store:  # for a request of no bytes, S3 does not say what is wrong
                self._part(key, 0, 1)
            else:
                self._read(key, slice(0, 0))
        except MissingKeyError:
            return False
        return True

    def children(self, prefix: str = "") -> list[str]:
        """See `Store.children`. Lists all keys below, because the drivers have no directories."""
        start = len(prefix.strip("/")) + 1 if prefix.strip("/") else 0
        rests = (key[start:].partition("/") for key in self.keys(prefix))
        return sorted({name + slash for name, slash, _ in rests if name})

    def keys(self, prefix: str = "") -> list[str]:
        """See `Store.keys`."""
        place = self._full(prefix)
        found = self._connection.list(self._url(prefix), _below(place))
        inside = f"{place}/".encode() if place else b""  # some servers ignore the range
        start = len(self._prefix.encode())
        try:
            return sorted(key[start:].decode() for key in found if key.startswith(inside))
        except UnicodeDecodeError as error:
            raise StorageError(
                f"{self._url(prefix)}: cannot list: {error.object!r} is no name in UTF-8"
            ) from error

    def write(self, key: str, data: bytes | memoryview) -> None:
        """See `Store.write`."""
        self._call(key, "write", lambda store: store.write(self._full(key), bytes(data)))

    def write_blocks(self, key: str, blocks: Iterable[bytes]) -> None:
        """See `Store.write_blocks`."""
        self.write(key, b"".join(blocks))

    def delete(self, prefix: str) -> None:
        """See `Store.delete`."""
        keys = [*self.keys(prefix), *([prefix] if prefix.strip("/") else [])]
        # Delete the mark of a complete tree first, so that a part is never taken for the whole.
        for wanted in (True, False):
            some = [self._full(key) for key in keys if (key.rpartition("/")[2] == COMMIT) is wanted]
            for start in range(0, len(some), DELETED_AT_ONCE):
                self._delete(prefix, some[start : start + DELETED_AT_ONCE])

    def child(self, prefix: str) -> "KvStore":
        """See `Store.child`."""
        if not prefix.strip("/"):
            return self
        return KvStore(self._connection, f"{self._full(prefix)}/", self._url(prefix))

    def kvstore(self, prefix: str = "") -> dict[str, Any]:
        """See `Store.kvstore`."""
        place = self._full(prefix)
        return self._connection.spec() | {"path": f"{place}/" if place else ""}

    def local_path(self, key: str = "") -> None:
        """See `Store.local_path`."""
        del key

    def _full(self, key: str) -> str:
        """The driver's key, without '/' at its ends."""
        return f"{self._prefix}{key.strip('/')}".rstrip("/")

    def _url(self, key: str) -> str:
        return f"{self.url}/{key.strip('/')}".rstrip("/")

    def _call(self, key: str, verb: str, request: Callable[[Any], Any]) -> Any:
        return self._connection.call(self._url(key), verb, request)

    def _delete(self, prefix: str, keys: list[str]) -> None:
        def request(store: Any) -> Any:
            pending = [store.write(key, None) for key in keys]
            for each in pending[:-1]:
                each.result()
            return pending[-1]

        self._call(prefix, "delete", request)

    def _read(self, key: str, span: slice) -> bytes:
        return self._connection.read(self._url(key), self._full(key), span)

    def _part(self, key: str, start: int, stop: int | None) -> tuple[bool, bytes, int | None]:
        """Bytes `start` to `stop` of a value, which may end earlier.

        Returns:
            (whether all bytes exist, the bytes, the value's size if the error message contained
            it).
        """
        try:
            return True, self._read(key, slice(start, stop)), None
        except MissingKeyError:
            raise
        except StorageError as error:
            cause = str(error.__cause__)
            told = _SIZE.search(cause)
            if self._connection.bucket is None:
                # The same error from a truncated file of the database has another range.
                asked = f"[{start}, {'?' if stop is None else stop}) is not valid for value of size"
                past_end = asked in cause
            else:
                past_end = "OUT_OF_RANGE" in cause or told is not None
            if not past_end:
                raise
            return False, b"", int(told[told.lastindex or 0]) if told else None


def _below(place: str) -> Any:
    """Range of the keys below `place/`; '0' comes after '/' in ASCII."""
    import tensorstore

    if not place:
        return tensorstore.KvStore.KeyRange()
    return tensorstore.KvStore.KeyRange(f"{place}/", f"{place}0")


# Messages of TensorStore's local drivers, of its remote ones, of S3's XML, and Content-Range.
_SIZE = re.compile(
    r"value of size (\d+)|and total size (\d+)|<ActualObjectSize>(\d+)<|\"bytes [^\"/]*/(\d+)\""
)
_PAST_ANY_END = 1 << 50  # object stores accept files of up to about 2**43 bytes
