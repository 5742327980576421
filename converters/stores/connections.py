"""Opened key-value stores of TensorStore: requests, and what their failures mean."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from converters.stores.buckets import FIRST_RETRIES, LATER_RETRIES, Bucket, cause_of
from converters.stores.protocol import MissingKeyError, StorageError

CACHE = 32 << 20  # bytes of OCDBT tree nodes that are kept decoded
COMMIT = "commit_success.txt"  # marks what is whole on an object store


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

    @property
    def google(self) -> bool:
        """Whether it is a bucket of Google's."""
        return self.bucket is not None and self.bucket.scheme == "gs"

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
                self.list(url, _exactly(key), "read")
            except StorageError as error:
                if "NoSuchBucket" in str(error.__cause__):
                    raise
            self._found = True  # if only because keys may be read there, but not listed
        raise MissingKeyError(f"{url}: cannot read: no such file")

    def list(self, url: str, span: Any, verb: str = "list") -> list[bytes]:
        """Keys in a range, unordered.

        TensorStore takes whatever error GCS answers to a request for a list for an empty list (if
        its text is JSON, else it cannot parse it). So an empty one is checked by a request of
        another kind, which is refused where the list was. That a bucket does not exist stays
        unnoticed.
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


@functools.cache
def _context() -> Any:
    """One context for all stores: they share connections and a small cache.

    Without the cache each read in an OCDBT database decodes the nodes of its tree again.
    """
    import tensorstore

    return tensorstore.Context({"cache_pool": {"total_bytes_limit": CACHE}})


def _exactly(key: str) -> Any:
    """Range of one key."""
    import tensorstore

    return tensorstore.KvStore.KeyRange(key, f"{key}\0")
