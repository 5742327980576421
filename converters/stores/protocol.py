"""The protocol that every store implements, and the errors of stores."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from converters.errors import ConversionError


class StorageError(ConversionError):
    """A store cannot be reached, listed, read or written; the message says which and why."""


class MissingKeyError(StorageError):
    """A file that is to be read does not exist."""


class Store(Protocol):
    """A tree of files under one root. Keys are '/'-separated and relative to the root.

    Attributes:
        url: path or URL of the root, for messages; without a '/' at its end.
        is_object_store: whether files cannot be renamed; a `commit_success.txt` then marks what is
            complete.
    """

    url: str
    is_object_store: bool

    def read(self, key: str, start: int = 0, stop: int | None = None) -> bytes:
        """Bytes `start` to `stop` (or the end) of a file; `MissingKeyError` if there is none."""
        ...

    def read_many(self, keys: Sequence[str]) -> Iterator[bytes]:
        """Contents of small files, in order; read concurrently if the store is slow to answer."""
        ...

    def blocks(self, key: str) -> Iterator[bytes]:
        """The whole file, in pieces of the size that is cheapest to read from this store."""
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
        """Create or replace a file; readers see the old or the new file, never a part."""
        ...

    def write_blocks(self, key: str, blocks: Iterable[bytes]) -> None:
        """Like `write`, from pieces; an object store holds them all in memory first."""
        ...

    def delete(self, prefix: str) -> None:
        """Remove a file or a whole tree; do nothing if it does not exist."""
        ...

    def child(self, prefix: str) -> "Store":
        """The store whose root is `prefix`."""
        ...

    def kvstore(self, prefix: str = "") -> dict[str, Any]:
        """TensorStore's JSON specification of this store; not a URL, as names may contain '#'."""
        ...

    def local_path(self, key: str = "") -> Path | None:
        """Path in the local file system; None for any other store."""
        ...
