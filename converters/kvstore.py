"""Places behind TensorStore's key-value drivers: object stores, the inside of OCDBT databases."""

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from converters.object_stores import FIRST_RETRIES, LATER_RETRIES, Bucket, cause_of
from converters.storage import MissingKeyError, StorageError

BLOCK = 4 << 20  # bytes of a value read at a time
CACHE = 32 << 20  # bytes of OCDBT tree nodes that are kept decoded
COMMIT = "commit_success.txt"  # marks what is whole on an object store
DELETED_AT_ONCE = 256
MIB = 1 << 20


class Connection:
    """An opened key-value store, shared by all `KvStore` that look into it.

    Attributes:
        bucket: the bucket, if it is one; else the inside of an OCDBT database.
    """

    def __init__(self, spec: Mapping[str, Any] | None, bucket: Bucket | None = None) -> None:
        self.bucket = bucket
        self._spec = dict(spec or {})  # of a database
        self._answered = bucket is None  # whether the server is known to answer
        self._found = bucket is None or bucket.scheme != "s3"  # whether the bucket surely exists
        self._opened: dict[bool, Any] = {}  # by `_answered`: the retries differ

    def spec(self) -> dict[str, Any]:
        """TensorStore's specification, without a path."""
        return self._spec if self.bucket is None else self.bucket.spec(LATER_RETRIES)

    def call(self, url: str, verb: str, request: Callable[[Any], Any]) -> Any:
        """Result of one request.

        Args:
            url: what the request is about, for messages.
            verb: what it does with it.
            request: makes it, given the opened store.

        Raises:
            StorageError: it failed; TensorStore's own error is the cause.
        """
        try:
            result = request(self._store()).result()
        except (ValueError, OSError, RuntimeError, KeyError) as error:
            raise StorageError(f"{url}: cannot {verb}: {self._explain(error)}") from error
        self._answered = True
        self._found |= verb != "read"
        return result

    def read(self, url: str, key: str, span: slice) -> bytes:
        """Bytes of a value; `MissingKeyError` if there is none.

        S3 answers in the same way if the key is missing or its bucket; the first time it is asked
        which of them.
        """
        # A database is not written while it is read: what is known of it needs no new look.
        fresh = {} if self.bucket is not None else {"staleness_bound": float("-inf")}
        result = self.call(url, "read", lambda store: store.read(key, byte_range=span, **fresh))
        if result.state != "missing":
            self._found = True
            return result.value
        if not self._found:
            try:
                self.list(url, _exactly(key))
            except StorageError as error:
                if "NoSuchBucket" in str(error.__cause__):
                    raise
            self._found = True  # if only because keys may be read there, but not listed
        raise MissingKeyError(f"{url}: cannot read: no such file")

    def list(self, url: str, span: Any) -> list[bytes]:
        """Keys in a range, unordered.

        TensorStore takes whatever error GCS answers to a request for a list for an empty list (if
        its text is JSON, else it cannot parse it). So an empty one is checked by a request of
        another kind, which is refused where the list was. That a bucket does not exist stays
        unnoticed.
        """
        google = self.bucket if self.bucket is not None and self.bucket.scheme == "gs" else None
        try:
            found = self.call(url, "list", lambda store: store.list(span))
        except StorageError as error:
            if google is None or "response metadata" not in str(error.__cause__):
                raise
            self._check_access(url, span)
            raise StorageError(
                f"{url}: cannot list: there is no bucket {google.url}, or it may not be listed"
            ) from error
        if google is not None and not found:
            self._check_access(url, span)
        return found

    def _check_access(self, url: str, span: Any) -> None:
        key = span.inclusive_min.decode().rstrip("/") or COMMIT
        self.call(url, "list", lambda store: store.read(key, byte_range=slice(0, 0)))

    def _store(self) -> Any:
        """The opened store, with the retries of now."""
        import tensorstore

        answered = self._answered
        if answered not in self._opened:
            spec = self._spec
            if self.bucket is not None:
                self.bucket.prepare()
                spec = self.bucket.spec(LATER_RETRIES if answered else FIRST_RETRIES)
            opened = tensorstore.KvStore.open(spec, context=_context())
            self._opened[answered] = opened.result()
        return self._opened[answered]

    def _explain(self, error: Exception) -> str:
        if self.bucket is not None and str(error):
            return self.bucket.explain(str(error))
        return cause_of(str(error)) or repr(error)


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

    def size(self, key: str) -> int:
        """See `Store.size`.

        TensorStore has no call for the length of a value. A read far past its end is refused with a
        message that tells it, except by some servers (Google's): there it is closed in on.
        """
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
            self._read(key, slice(0, 0))
        except MissingKeyError:
            return False
        return True

    def children(self, prefix: str = "") -> list[str]:
        """See `Store.children`. All that is below is listed: the drivers know no directories."""
        start = len(prefix.strip("/")) + 1 if prefix.strip("/") else 0
        rests = (key[start:].partition("/") for key in self.keys(prefix))
        return sorted({name + slash for name, slash, _ in rests if name})

    def keys(self, prefix: str = "") -> list[str]:
        """See `Store.keys`."""
        place = self._full(prefix)
        found = self._connection.list(self._url(prefix), _below(place))
        inside = f"{place}/".encode() if place else b""  # some servers take no notice of a range
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
        # What marks a tree as whole goes first: a part of it is not taken for the whole then.
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
        """A key as the driver has it, without '/' at its ends."""
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
        """Bytes `start` to `stop` of a value, which may end before.

        Returns:
            Whether all of them are there, they, and the size of the value if the refusal told it.
        """
        try:
            return True, self._read(key, slice(start, stop)), None
        except MissingKeyError:
            raise
        except StorageError as error:
            cause = str(error.__cause__)
            told = _SIZE.search(cause)
            if self._connection.bucket is None:
                # Not the same error from a file of the database, which would be cut off then.
                asked = f"[{start}, {'?' if stop is None else stop}) is not valid for value of size"
                past_end = asked in cause
            else:
                past_end = "OUT_OF_RANGE" in cause or told is not None
            if not past_end:
                raise
            return False, b"", int(told[told.lastindex or 0]) if told else None


@functools.cache
def _context() -> Any:
    """One context for all stores: they share connections and a small cache.

    Without the cache each read in an OCDBT database decodes the nodes of its tree again.
    """
    import tensorstore

    return tensorstore.Context({"cache_pool": {"total_bytes_limit": CACHE}})


def _below(place: str) -> Any:
    """Range of the keys below `place/`; '0' follows '/' in ASCII."""
    import tensorstore

    if not place:
        return tensorstore.KvStore.KeyRange()
    return tensorstore.KvStore.KeyRange(f"{place}/", f"{place}0")


def _exactly(key: str) -> Any:
    """Range of one key."""
    import tensorstore

    return tensorstore.KvStore.KeyRange(key, f"{key}\0")


# TensorStore's own drivers; its remote ones for a part of the range; S3's XML; Content-Range.
_SIZE = re.compile(
    r"value of size (\d+)|and total size (\d+)|<ActualObjectSize>(\d+)<|\"bytes [^\"/]*/(\d+)\""
)
_PAST_ANY_END = 1 << 50  # object stores take files of up to some 2**43 bytes
