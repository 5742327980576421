"""Opened key-value stores of TensorStore: their requests, and explanations of failures."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from converters.stores.buckets import FIRST_RETRIES, LATER_RETRIES, Bucket, cause_of
from converters.stores.protocol import MissingKeyError, StorageError

CACHE = 32 << 20  # bytes of decoded OCDBT tree nodes that are kept
COMMIT = "commit_success.txt"  # marks complete output on an object store


class Connection:
    """An opened key-value store, shared by all `KvStore` objects on it.

    Attributes:
        bucket: the bucket; None for the inside of an OCDBT database.
    """

    def __init__(self, spec: Mapping[str, Any] | None, bucket: Bucket | None = None) -> None:
        self.bucket = bucket
        self._spec = dict(spec or {})  # of an OCDBT database
        self._answered = bucket is None  # whether the server is known to answer
        self._found = bucket is None or bucket.scheme != "s3"  # whether it is known to exist
        self._opened: dict[bool, Any] = {}  # by `_answered`, which decides the retries

    @property
    def google(self) -> bool:
        """Whether it is a Google bucket."""
        return self.bucket is not None and self.bucket.scheme == "gs"

    def spec(self) -> dict[str, Any]:
        """TensorStore's specification, without a path."""
        return self._spec if self.bucket is None else self.bucket.spec(LATER_RETRIES)

    def call(self, url: str, verb: str, request: Callable[[Any], Any]) -> Any:
        """Make one request and return its result.

        Args:
            url: what the request is about, for messages.
            verb: what the request does with it, for messages.
            request: makes the request, given the opened store.

        Raises:
            StorageError: the request failed; TensorStore's own error is the cause.
        """
        try:
            result = request(self._store()).result()
        except (ValueError, OSError, RuntimeError, KeyError) as error:
            raise StorageError(f"{url}: cannot {verb}: {self._explain(error)}") from error
        self._answered = True
        return result

    def read(self, url: str, key: str, span: slice) -> bytes:
        """Bytes of a value; raises `MissingKeyError` if there is none.

        S3 gives the same answer whether the key or its bucket is missing; the first time, a request
        to list finds out which it is.
        """
        # A database is not written while it is read, so what is cached of it stays valid.
        fresh = {} if self.bucket is not None else {"staleness_bound": float("-inf")}
        result = self.call(url, "read", lambda store: store.read(key, byte_range=span, **fresh))
        if result.state != "missing":
            self._found = True
            return result.value
        if not self._found:
            try:
                self.list(url, _exactly(key), "read")
            except StorageError as error:
                if "NoSuchBucket" in str(error.__cause__):
                    raise
            self._found = True  # or the bucket may be read but not listed
        raise MissingKeyError(f"{url}: cannot read: no such file")

    def list(self, url: str, span: Any, verb: str = "list") -> list[bytes]:
        """Keys in a range, unordered.

        If GCS answers a list request with an error, TensorStore returns an empty list (if the text
        is JSON; otherwise it cannot parse it). So an empty list is checked by a read request, which
        is refused if the list request was. A bucket that does not exist is not noticed.
        """
        try:
            found = self.call(url, verb, lambda store: store.list(span))
        except StorageError as error:
            if self.bucket is None or "response metadata" not in str(error.__cause__):
                raise
            self._check_access(url, span)
            raise StorageError(
                f"{url}: cannot list: there is no bucket {self.bucket.url}, or it may not be listed"
            ) from error
        if self.google and not found:
            self._check_access(url, span)
        self._found = True
        return found

    def _check_access(self, url: str, span: Any) -> None:
        key = span.inclusive_min.decode().rstrip("/") or COMMIT
        self.call(url, "list", lambda store: store.read(key, byte_range=slice(0, 0)))

    def _store(self) -> Any:
        """The store, opened with the retries that apply now."""
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


@functools.cache
def _context() -> Any:
    """One context for all stores, so that they share connections and a small cache.

    Without the cache, each read in an OCDBT database would decode the nodes of its tree again.
    """
    import tensorstore

    return tensorstore.Context({"cache_pool": {"total_bytes_limit": CACHE}})


def _exactly(key: str) -> Any:
    """The range that contains one key."""
    import tensorstore

    return tensorstore.KvStore.KeyRange(key, f"{key}\0")
