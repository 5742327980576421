"""What an engine does: runs relational expressions on tables that may not fit into memory."""

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import pyarrow as pa

BATCH = 1 << 17  # rows that come at a time


class EngineError(ValueError):
    """An engine could not do it: too little memory or disk, or a runtime that is missing."""


class Engine(Protocol):
    """Tables by name; expressions are Ibis', on unbound tables of these names."""

    def view(self, name: str, file: Path) -> None:
        """Give a Parquet file a name."""
        ...

    def keep(self, name: str, expression: Any) -> None:
        """Compute a table, so that it is not computed at each use."""
        ...

    def drop(self, name: str) -> None:
        """Forget a table that was kept."""
        ...

    def row(self, expression: Any) -> dict[str, Any]:
        """The first row of a result; empty if it has none."""
        ...

    def batches(self, expression: Any) -> Iterator[pa.RecordBatch]:
        """The rows of a result, in its order."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...  # fmt: skip
