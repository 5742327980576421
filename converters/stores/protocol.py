"""What a place that holds files can do, and the errors of all such places."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from converters.errors import ConversionError


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

    def read_many(self, keys: Sequence[str]) -> Iterator[bytes]:
        """Contents of small files, in order; several at once where each takes its time."""
        ...

    def blocks(self, key: str) -> Iterator[bytes]:
        """All of a file, in pieces of the size that is cheapest to take from this place."""
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
