"""The interface of an engine, which runs relational queries on tables larger than memory."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import pyarrow as pa

BATCH = 1 << 17  # rows per batch


class EngineError(ValueError):
    """An engine failed: too little memory or disk, or a missing runtime."""


class Engine(Protocol):
    """Named tables. Expressions are Ibis', on unbound tables with these names."""

    def view(self, name: str, file: Path) -> None:
        """Make a Parquet file available as a table."""
        ...

    def keep(self, name: str, expression: Any) -> None:
        """Compute an expression once and store it as a table."""
        ...

    def drop(self, name: str) -> None:
        """Remove a table that `keep` stored."""
        ...

    def row(self, expression: Any) -> dict[str, Any]:
        """The first row of the result; empty if there is none."""
        ...

    def batches(self, expression: Any) -> Iterator[pa.RecordBatch]:
        """Yield the rows of the result, in its order."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...  # fmt: skip
