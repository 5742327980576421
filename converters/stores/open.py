"""Opens the store that a path or a URL refers to."""

import functools
import os
from pathlib import Path
from urllib.parse import urlsplit

from converters.stores.buckets import DRIVERS, Bucket, environment
from converters.stores.connections import Connection
from converters.stores.kvstore import KvStore
from converters.stores.local import LocalStore
from converters.stores.protocol import StorageError, Store


def open_store(url: str | os.PathLike[str]) -> Store:
    """Open a local path or a `file://`, `gs://` or `s3://` URL as a store; nothing is read yet."""
    text = os.fspath(url)
    scheme = urlsplit(text).scheme if "://" in text else ""
    if scheme in ("", "file"):
        return LocalStore(Path(text.removeprefix("file://")))
    if scheme not in DRIVERS:
        known = "local paths, file://, gs:// and s3://"
        raise StorageError(f"{text}: no storage for '{scheme}://'; known are {known}")
    bucket, _, path = text.split("://", 1)[1].partition("/")
    if not bucket:
        raise StorageError(f"{text}: the URL names no bucket; write {scheme}://BUCKET/PATH")
    connection = _connection(scheme, bucket, tuple(sorted(environment().items())))
    return KvStore(connection, f"{path.strip('/')}/".lstrip("/"), text.rstrip("/"))


def open_ocdbt(store: Store, prefix: str = "") -> Store:
    """Open the OCDBT database at `prefix` of `store`, for reading."""
    url = f"{store.url}/{prefix}".rstrip("/")
    return KvStore(Connection({"driver": "ocdbt", "base": store.kvstore(prefix)}), "", url)


@functools.lru_cache(maxsize=16)
def _connection(scheme: str, bucket: str, variables: tuple[tuple[str, str], ...]) -> Connection:
    """One connection per bucket, as long as the environment does not change."""
    return Connection(None, Bucket(scheme, bucket, dict(variables)))
